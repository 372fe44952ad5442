"""A private directory of the host for one question to a program that takes only paths, gone afterwards."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system.files import Looks
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.system.files import Directory

PLACES = ("/run/firstkey", "/run", "/tmp", "/var/tmp")  # noqa: S108 - taken only where it is safe
"""Where it may be, the best first: root's is in memory, and in nobody else's reach."""
OTHERS_WRITE = 0o022
PREFIX = ".firstkey-scratch."
AGE_SECONDS = 60.0
"""How old one must be to be taken for a killed firstkey's: a new one is not locked yet."""


@contextmanager
def directory() -> Iterator[Directory]:
    """Make it, and remove it with all that is in it. Raises FirstkeyError where there is no safe place."""
    with Tree("/") as host, _place(host) as above:
        _sweep(above)
        name = above.temporary_name("scratch")
        try:
            with above.make(name, Looks(0o700, durable=False)) as made:
                fcntl.flock(made.fd, fcntl.LOCK_SH)
                yield made
        finally:
            above.remove_directory(name)


def _place(host: Tree) -> Directory:
    for path in PLACES:
        found = host.open(path)
        if found is None:
            continue
        if _is_safe(found) and os.access(found.on_host, os.W_OK):
            return found
        found.__exit__()
    message = f"there is no safe place for temporary files: none of {', '.join(PLACES)}"
    raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)


def _sweep(above: Directory) -> None:
    """Remove what a firstkey that was killed left here: one that is at work holds its own locked."""
    for name in filter(lambda name: name.startswith(PREFIX), above.names()):
        found = above.status(name)
        if found is None or found.st_uid != os.geteuid() or time.time() - found.st_mtime < AGE_SECONDS:
            continue
        with suppress(FirstkeyError, BlockingIOError):
            left = above.child(name)
            if left:
                with left:
                    fcntl.flock(left.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    above.remove_directory(name)


def _is_safe(place: Directory) -> bool:
    """Whether nobody else can exchange what is made in it: ours or root's, and sticky if others write."""
    found = place.status()
    if found is None or found.st_uid not in (0, os.geteuid()):
        return False
    return not found.st_mode & OTHERS_WRITE or bool(found.st_mode & stat.S_ISVTX)
