"""What the boot loaders of the image say to its kernel, where a word switches a service off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.image.subject import Image

FILES = (
    # What the loaders read: GRUB, the boot loader specification's entries, extlinux.
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/efi/EFI/*/grub.cfg",
    "/boot/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/extlinux/extlinux.conf",
    # What those are written from at the next update of a kernel: kernel-install(8), update-grub(8).
    "/etc/kernel/cmdline",
    "/usr/lib/kernel/cmdline",
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
)


def word_of(pattern: str) -> re.Pattern[bytes]:
    """What finds a whole word that fits the pattern, in a line that is no comment."""
    return re.compile(rf"""^[^#\n]*?(?<![^\s"'=])(?:{pattern})(?![^\s"'])""".encode(), re.MULTILINE)


def where(image: Image, pattern: str) -> str | None:
    """The first file with a line, no comment, in which a whole word fits the regular expression, or None."""
    word = word_of(pattern)
    paths = (path for file in FILES for path in image.glob(file))
    return next((path for path in paths if word.search(image.read(path) or b"")), None)
