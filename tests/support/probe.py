"""What was done to a directory tree: its looks before and after, and everything that was opened in it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

# inotify(7); all that anybody can do to a file, looking at its status alone left out.
_EVENTS = {
    0x1: "read", 0x2: "written", 0x4: "attributes", 0x8: "closed, written", 0x10: "closed", 0x20: "opened",
    0x40: "moved from", 0x80: "moved to", 0x100: "created", 0x200: "deleted",
}  # fmt: skip
_NONBLOCK = 0o4000
_HEAD = struct.Struct("iIII")


class Looks(NamedTuple):
    """What a change of a file would show in."""

    mode: int
    owner: tuple[int, int]
    inode: int
    links: int
    size: int
    times_ns: tuple[int, int]
    content: str | None


def looks(top: Path) -> dict[str, Looks]:
    """Every file below `top`, and itself; nothing odd is opened."""
    found = {}
    for where, directories, names in os.walk(top):
        for path in (Path(where), *(Path(where, name) for name in (*directories, *names))):
            status = path.lstat()
            plain = stat.S_ISREG(status.st_mode)
            content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else None
            content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else content
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found[str(path)] = Looks(
                status.st_mode, (status.st_uid, status.st_gid), status.st_ino, status.st_nlink,
                status.st_size, times, content,
            )  # fmt: skip
    return found


class Watch:
    """All that is done to the directories and files below `top` while the block runs, opening included."""

    def __init__(self, top: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_NONBLOCK)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        self._paths: dict[int, str] = {}
        # Looked through before, which is no event then.
        for where in [where for where, _, _ in os.walk(top)]:
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(where), sum(_EVENTS))
            assert number >= 0, os.strerror(ctypes.get_errno())
            self._paths[number] = os.path.relpath(where, top)

    def __enter__(self) -> Watch:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def seen(self) -> list[str]:
        """What was done since it was last asked, each once."""
        logged: list[str] = []
        while True:
            try:
                content = os.read(self._fd, 65536)
            except BlockingIOError:
                return sorted(set(logged))
            while content:
                number, mask, _, length = _HEAD.unpack_from(content)
                name = content[_HEAD.size : _HEAD.size + length].rstrip(b"\0").decode()
                what = ", ".join(words for bit, words in _EVENTS.items() if mask & bit)
                logged.append(f"{self._paths.get(number, '?')}/{name}: {what}")
                content = content[_HEAD.size + length :]
