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
        if found is None or here is None or found.st_dev != here.st_dev:
            continue
        if stat.S_ISREG(found.st_mode):
            _content(directory, name)
        below = directory.child(name) if depth and stat.S_ISDIR(found.st_mode) else None
        if below:
            with below:
                everything(below, depth=depth - 1)
    names(directory)


def _content(directory: Directory, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with translated(f"sync {directory.join(name)}"):
        fd = os.open(name, flags, dir_fd=directory.fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
