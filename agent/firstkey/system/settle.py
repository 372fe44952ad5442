"""Putting on the disk what another program has written: few of them do that themselves."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from firstkey.system import descriptors
from firstkey.system.descriptors import translated

if TYPE_CHECKING:
    from firstkey.system.files import Directory


DEEPEST = 20
"""Deeper than anybody's /etc/skel, and far from what Python's own stack could not take."""


def names(directory: Directory) -> None:
    """Make the names in the directory durable: what was renamed there, say, after a sync of its own."""
    with translated(f"sync {directory.path}"):
        descriptors.sync_directory(directory.fd)


def everything(directory: Directory, *, depth: int = DEEPEST) -> None:
    """Make the directory durable with what is in it, `depth` directories deep.

    No link is followed, and no other file system looked into.
    """
    here = directory.status()
    for name in directory.names():
        found = directory.status(name)
        if found and stat.S_ISREG(found.st_mode):
            _content(directory, name)
        if found and stat.S_ISDIR(found.st_mode) and depth and _is_on(found, here):
            _below(directory, name, depth - 1)
    names(directory)


def _is_on(found: os.stat_result, above: os.stat_result | None) -> bool:
    """Whether the directory is on the same file system (an overlay's files may tell otherwise)."""
    return above is not None and found.st_dev == above.st_dev


def _below(directory: Directory, name: str, depth: int) -> None:
    below = directory.child(name)
    if below:
        with below:
            everything(below, depth=depth)


def _content(directory: Directory, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with translated(f"sync {directory.join(name)}"):
        fd = os.open(name, flags, dir_fd=directory.fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
