"""One firstkey at a time on a system: a lock that the kernel drops with its holder.

It belongs to the process alone (fcntl(2): F_SETLK), not to the children that it forks: one of these may hang
on a dead disk for ever, and may not keep every later firstkey from its work.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system.files import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey"
NAME = "lock"
PAUSE = 0.05


@contextmanager
def held(tree: Tree, *, seconds: float, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock; wait `seconds` for another holder at most, then raise FirstkeyError(already-running).

    `waiting` is called once if there is another holder.
    """
    with tree.ensure(DIRECTORY, mode=0o755) as directory:
        lock = directory.open_file(NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait(lock, time.monotonic() + seconds, waiting)
        yield
    finally:
        os.close(lock)


def _wait(lock: int, deadline: float, waiting: Callable[[], None]) -> None:
    told = False
    while not _taken(lock):
        if not told:
            waiting()
            told = True
        if time.monotonic() >= deadline:
            raise FirstkeyError("another firstkey is at work on this system", reason=reasons.ALREADY_RUNNING)
        time.sleep(PAUSE)


def _taken(lock: int) -> bool:
    with translated("lock " + DIRECTORY):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
