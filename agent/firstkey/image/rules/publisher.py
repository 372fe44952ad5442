"""G8: the image says who made it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image.changes import Write
from firstkey.image.rule import Rule
from firstkey.image.verdict import NOTE, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.config import Image as Settings
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

FILE = "/etc/image-info"
BANNER = "/etc/motd.d/50-image-info"  # pam_motd(8) shows what is there, the manual's own example aside
OS_RELEASE = "/etc/os-release"
HEADER = "# Who made this image. Written by firstkey seal, from [Image] in its configuration.\n"
NAME = b"PUBLISHER="


def check(image: Image) -> Verdict:
    """Look for the publisher's name, and whether it is the one that is configured."""
    if image.settings.publisher:
        made = tuple(_changes(image))
        if not made:
            return Verdict()
        reason = f"The image does not say that {image.settings.publisher} made it."
        return Verdict((Finding(made[0].path, reason, changes=made),))
    if NAME in (image.read(FILE) or b""):
        return Verdict()
    reason = "The image does not say who made it; users see an account number only."
    words = "Set Publisher= in [Image] of firstkey.conf; seal writes the rest"
    return Verdict((Finding(FILE, reason, words),))


def _changes(image: Image) -> Iterator[Change]:
    """The readable file, the banner, and os-release's own fields for images (os-release(5))."""
    before, after = image.read(FILE), readable(image.settings)
    if before != after:
        yield Write(FILE, "say who made the image", before, after)
    before, after = image.read(BANNER), f"{ami_description(image.settings)}\n".encode()
    if image.wants_banner and before != after:
        yield Write(BANNER, "say at each login who made the image", before, after)
    before = image.read(OS_RELEASE)
    if before is not None and not re.search(rb"^IMAGE_ID=", before, re.MULTILINE):
        yield Write(OS_RELEASE, "name the image", before, before + _names(image, before))


def readable(settings: Settings) -> bytes:
    """The content of the readable file: for people, and for shells that source it."""
    fields = {
        "PUBLISHER": settings.publisher,
        "CONTACT": settings.contact,
        "DESCRIPTION": settings.description,
    }
    lines = [f"{key}={_quoted(value)}\n" for key, value in fields.items() if value]
    return (HEADER + "".join(lines)).encode()


def ami_description(settings: Settings) -> str:
    """Ready for `aws ec2 create-image --description` (255 characters at most, EC2 API reference)."""
    parts = [settings.description, f"by {settings.publisher}" if settings.publisher else "", settings.contact]
    return ", ".join(part for part in parts if part)[:255]


def _names(image: Image, before: bytes) -> bytes:
    """IMAGE_ID and IMAGE_VERSION, for the end of an os-release that has none."""
    name = re.sub(r"[^a-z0-9._-]+", "-", image.settings.publisher.lower()).strip("-") or "image"
    gap = b"" if before.endswith(b"\n") or not before else b"\n"
    lines = f"IMAGE_ID={name}\nIMAGE_VERSION={time.strftime('%Y.%m.%d', time.gmtime())}\n"
    return gap + lines.encode()


def _quoted(value: str) -> str:
    return '"' + re.sub(r'(["$`\\])', r"\\\1", value) + '"'


RULES = (
    Rule(
        id="publisher",
        title="The image says who made it",
        guideline="G8",
        severity=NOTE,
        prose=(
            "Users of an image see an account number, and a name only if its maker gives one. seal "
            "writes Publisher=, Contact= and Description= in [Image] of firstkey.conf to "
            "/etc/image-info, and IMAGE_ID= and IMAGE_VERSION= to os-release where it has none; with "
            "--banner, the login message shows them too. seal also prints a description for the AMI "
            "itself, ready to paste."
        ),
        check=check,
        failing={
            "/etc/firstkey/firstkey.conf": "[Image]\nPublisher=Example Ltd.\nContact=a@example.com\n",
            "/usr/lib/os-release": "ID=debian\n",
            OS_RELEASE: "->../usr/lib/os-release",
        },
        passing={FILE: 'PUBLISHER="Example Ltd."\n'},
    ),
)
