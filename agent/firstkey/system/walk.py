"""The quick door to many files: each is opened once, looked at through one buffer, and left as it was.

No walk follows a link or opens anything but regular files and directories, so none leads out of its
tree, waits for a pipe or wakes a device. Access times stay where the kernel allows it (open(2): O_NOATIME).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from firstkey import NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.files import Directory, open_quietly, translated
from firstkey.system.tree import MAXIMUM_LINKS, Tree, is_null

BLOCK = 256 * 1024
OVERLAP = 8 * 1024
"""How much of the end of a block is seen again at the start of the next: what lies across is not missed."""
PLENTY = 64 * 1024 * 1024
"""How many bytes of one file are read at most before its tail."""
TAIL = 8 * 1024 * 1024

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


class Names(NamedTuple):
    """What is in a directory: the names of its directories, regular files and links; nothing else counts."""

    directories: list[str]
    files: list[str]
    links: list[str]


def open_directory(name: str, dir_fd: int | None = None) -> int:
    """A descriptor of the real directory `name`. Raises OSError, as everything in this module does."""
    return open_quietly(name, _DIRECTORY, dir_fd)


def names(fd: int) -> Names:
    """What is in the open directory. The kernel has the types, so no file is touched."""
    found = Names([], [], [])
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                found.files.append(entry.name)
            elif entry.is_symlink():
                found.links.append(entry.name)
    return found


class Window:
    """The buffer that all files of a walk are looked at through; `content[:length]` is what is valid."""

    def __init__(self) -> None:
        self.content = bytearray(BLOCK)
        self.length = 0
        self.is_last = True
        self.is_partial = False
        """Whether a part of the file was passed over because it is too large."""
        self._view = memoryview(self.content)
        self._into = (self._view,)

    def through(self, name: str, dir_fd: int) -> Iterator[bool]:
        """Open the file and look through it, a window at a time; yields whether that is the first.

        What is no regular file (any more) has none, nor has an empty one. Holes are passed over (lseek(2):
        SEEK_DATA), so that a sparse file costs what it holds. Past `PLENTY` bytes, only the tail is seen.
        """
        fd = open_quietly(name, _FILE, dir_fd)
        try:
            status = os.fstat(fd)
            is_regular = stat.S_ISREG(status.st_mode)
            self.length = os.readv(fd, self._into) if is_regular else 0
            self.is_last = self.length < BLOCK
            self.is_partial = False
            if self.length:
                yield True
            if not self.is_last:
                yield from self._others(fd, status.st_size)
        finally:
            os.close(fd)

    def put(self, part: bytes, *, is_last: bool) -> None:
        """Look at a part of something that is no file, behind the end of what was looked at before."""
        keep = min(OVERLAP, self.length)
        self._view[:keep] = self._view[self.length - keep : self.length]
        self._view[keep : keep + len(part)] = part
        self.length, self.is_last = keep + len(part), is_last

    def _others(self, fd: int, size: int) -> Iterator[bool]:
        """The windows of a file of that size from the second on."""
        offset, allowance = BLOCK, PLENTY
        while not self.is_last:
            start = _data(fd, offset)
            if start >= size:
                return
            if allowance <= 0 and not self.is_partial and start < size - TAIL:
                start, self.is_partial = size - TAIL, True
            keep = OVERLAP if start == offset else 0
            self._view[:keep] = self._view[BLOCK - keep :]
            read = os.preadv(fd, (self._view[keep:],), start)
            self.length, self.is_last = keep + read, keep + read < BLOCK
            offset, allowance = start + read, allowance - read
            yield False


def _data(fd: int, offset: int) -> int:
    """Where the next data is, from `offset` on; past every file's end where there is none."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        # A file system that knows no holes says so with EINVAL.
        return sys.maxsize if error.errno == errno.ENXIO else offset


def stream(name: str, dir_fd: int) -> IO[bytes]:
    """The regular file, to be read from its start; anything else is as if it were empty."""
    file = open(open_quietly(name, _FILE, dir_fd), "rb")  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        return BytesIO()
    return file


# --- one path, to its end ---------------------------------------------------------------------------


class Found(NamedTuple):
    """What a path leads to in the end, by a path with no link in it, and the links at the end, in order."""

    path: str
    status: os.stat_result
    links: tuple[str, ...]


def follow(tree: Tree, path: str) -> Found | None:
    """What `path` leads to in the end; None where nothing is there, or where it leads to /dev/null.

    At its end, a user's link is followed as well, but only to what that user owns; a path with a link of
    another user's on the way to that is refused, as `Tree.open` does. Raises FirstkeyError.
    """
    links: list[str] = []
    owners: set[int] = set()
    while len(links) <= MAXIMUM_LINKS:
        found = None if is_null(path) else _at(tree, path)
        if found is None:
            return None
        if not stat.S_ISLNK(found.status.st_mode):
            if owners - {0, os.getuid(), found.status.st_uid}:
                message = f"{links[0]} is a user's link to another's {found.path}; it was not followed"
                raise FirstkeyError(message, reason=reasons.SYMLINK_REFUSED)
            return found._replace(links=tuple(links))
        links.append(found.path)
        owners.add(found.status.st_uid)
        path = os.path.join(os.path.dirname(found.path), found.links[0])
    raise FirstkeyError(f"{links[0]} goes round in links", reason=reasons.SYMLINK_REFUSED)


def end_of(tree: Tree, path: str) -> Found | None:
    """What the path leads to, None where that is nothing, or may not be followed."""
    try:
        return follow(tree, path)
    except FirstkeyError:
        return None


def _at(tree: Tree, path: str) -> Found | None:
    """What is at `path` itself; of a link, `links` is where it leads."""
    above, name = os.path.split(path)
    if name in ("", ".", ".."):
        above, name = path, ""
    with translated(f"look at {path}"):
        try:
            fd, real = tree.walk(above)
        except FileNotFoundError:
            return None
    with Directory(fd, real, real) as directory:
        status = directory.status(name)
        if status is None:
            return None
        is_link = stat.S_ISLNK(status.st_mode)
        with translated(f"look at {path}"):
            leads_to = (os.readlink(name, dir_fd=fd),) if is_link else ()
        return Found(directory.join(name) if name else real, status, leads_to)
