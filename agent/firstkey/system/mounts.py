"""What is mounted where (proc(5), mountinfo): so that a walk enters neither the kernel's own file systems
nor those of the network, and never waits for a server that is gone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MOUNTINFO = "/proc/self/mountinfo"

DISKS = frozenset({
    "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "iso9660", "jfs",
    "msdos", "nilfs2", "ntfs3", "overlay", "reiserfs", "squashfs", "ufs", "vfat", "xfs", "zfs",
})  # fmt: skip
"""File systems that lie on a disk (or a file), and so may be a part of an image."""

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system and where it is mounted."""

    path: str
    kind: str

    @property
    def is_disk(self) -> bool:
        """Whether what is in it may lie on the image's own disk."""
        return self.kind in DISKS


def parse(lines: Iterable[str]) -> tuple[Mount, ...]:
    """The mounts of a mountinfo file; of several on one another, the last is the one that is seen."""
    found: dict[str, Mount] = {}
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 4:
            path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            found[path] = Mount(path, after.split(" ")[0])
    return tuple(found.values())


def below(root: str) -> tuple[Mount, ...]:
    """The mounts inside the directory `root` (a host path, resolved); none where /proc cannot tell."""
    prefix = root.rstrip("/") + "/"
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as source:
            mounts = parse(source)
    except OSError:
        return ()
    return tuple(mount for mount in mounts if mount.path.startswith(prefix) and mount.path != root)
