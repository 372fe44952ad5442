"""What is mounted where (proc(5), mountinfo): so that nothing enters the kernel's own file systems or those
of the network, waits for a server that is gone, or takes the host's own files for those of an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from firstkey import NamedTuple

MOUNTINFO = "/proc/self/mountinfo"

DISKS = frozenset({
    "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "iso9660", "jfs",
    "msdos", "nilfs2", "ntfs3", "overlay", "reiserfs", "squashfs", "ufs", "vfat", "xfs", "zfs",
})  # fmt: skip
"""File systems that lie on a disk (or a file), and so may be a part of an image."""

_SUBVOLUMES = frozenset(("bcachefs", "btrfs"))
"""Those of which a part is mounted as others are whole, a partition's worth by itself."""
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A file system and where it is mounted; `top` is what of it is seen there ("/" for all of it)."""

    path: str
    kind: str
    device: str
    top: str

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
            top, path = (_OCTAL.sub(lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
            found[path] = Mount(path, after.split(" ")[0], fields[2], top)
    return tuple(found.values())


def foreign(root: str) -> tuple[Mount, ...]:
    """The mounts inside the directory `root` (a host path, resolved) that are no part of the tree there.

    There are none where /proc does not show them.
    """
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as source:
            return foreign_of(parse(source), root)
    except OSError:
        return ()


def foreign_of(mounts: Collection[Mount], root: str) -> tuple[Mount, ...]:
    """Those that are no disk's, and those that show what is the host's.

    A partition of the image is mounted whole, or as a subvolume, and nowhere else; parts of it, or of the
    tree itself, may be bound to other places in the tree. What is mounted outside as well, or only in part,
    may be in use by a person. An image's partition that is mounted twice is taken for the host's too:
    what is left alone can be sealed yet, but what is gone is gone.
    """
    below = [mount for mount in mounts if is_at_or_below(mount.path, root) and mount.path != root]
    own = _own_of(root, mounts)
    shown = {mount.device for mount in mounts if not is_at_or_below(mount.path, root)}
    whole = {mount.device for mount in below if mount.top == "/"} - shown

    def is_own(mount: Mount) -> bool:
        if own and mount.device == own.device and is_at_or_below(mount.top, own.top):
            return True
        return mount.device in whole or (mount.kind in _SUBVOLUMES and mount.device not in shown)

    return tuple(mount for mount in below if not (mount.is_disk and is_own(mount)))


def _own_of(root: str, mounts: Collection[Mount]) -> Mount | None:
    """The mount that the tree itself lies in, as if only the tree were mounted."""
    holders = (mount for mount in mounts if is_at_or_below(root, mount.path))
    holder = max(holders, key=lambda mount: len(mount.path), default=None)
    if holder is None:
        return None
    top = os.path.join(holder.top, os.path.relpath(root, holder.path))
    return holder._replace(path=root, top=os.path.normpath(top))


def is_at_or_below(path: str, place: str) -> bool:
    """Whether the path is that place, or one in it."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def over(found: Iterable[Mount], root: str, path: str) -> Mount | None:
    """Which of these is mounted at that path of the tree at `root`, or above."""
    host = root.rstrip("/") + path
    return next((mount for mount in found if is_at_or_below(host, mount.path)), None)


def upwards(path: str) -> Iterator[str]:
    """The path, then each directory above it: looked up in a set, many places take no longer than few."""
    while path.strip("/"):
        yield path
        path = os.path.dirname(path)
    yield path


def number(fd: int) -> int | None:
    """The number of the mount that the open file lies in (proc(5), fdinfo); None where /proc has none."""
    with suppress(OSError), open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as source:
        for line in source:
            name, _, value = line.partition(":")
            if name == "mnt_id":
                return int(value)
    return None
