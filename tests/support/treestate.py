"""A whole tree as a value: taken, compared and put back."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One name in the tree. `content` is that of a file, or where a link leads."""

    inode: int
    mode: int
    uid: int
    gid: int
    content: bytes = b""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def looks(self) -> tuple[int, int, int, bytes]:
        """Everything but which inode it is."""
        return self[1:]


State = Mapping[str, Entry]
"""Paths in the tree, and what is there. Each directory comes before what is in it."""


def take(root: Path) -> dict[str, Entry]:
    """The tree as it is; what vanishes meanwhile was not there."""
    return dict(_entries(str(root), ""))


def _entries(root: str, path: str) -> Iterator[tuple[str, Entry]]:
    try:
        names = sorted(os.listdir(root + path))
    except FileNotFoundError:
        return
    for name in names:
        inside = f"{path}/{name}"
        try:
            entry = _entry(root + inside)
        except FileNotFoundError:
            continue
        yield inside, entry
        if entry.is_directory:
            yield from _entries(root, inside)


def _entry(path: str) -> Entry:
    found = os.lstat(path)
    content = b""
    if stat.S_ISREG(found.st_mode):
        content = Path(path).read_bytes()
    elif stat.S_ISLNK(found.st_mode):
        content = os.fsencode(os.readlink(path))
    return Entry(found.st_ino, found.st_mode, found.st_uid, found.st_gid, content)


def put(root: Path, state: State) -> None:
    """Make the tree what the state says; whatever was there goes."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for path, entry in state.items():
        _make(f"{root}{path}", entry)


def _make(path: str, entry: Entry) -> None:
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.content, path)
    elif entry.is_directory:
        os.mkdir(path)
    else:
        Path(path).write_bytes(entry.content)
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(path, stat.S_IMODE(entry.mode))


@contextmanager
def private_file(content: bytes) -> Iterator[str]:
    """A path of a file of the caller's alone with that content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
