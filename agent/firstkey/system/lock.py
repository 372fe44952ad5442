"""One firstkey at a time on a system: a lock that the kernel drops with its holder.

It belongs to the process alone (fcntl(2): F_SETLK), not to the children that it forks: one of these may hang
on a dead disk for ever, and may not keep every later firstkey from its work. Such a lock is lost as soon as
its process closes *any* descriptor of the file, so nothing else ever opens it.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError, NeedsRoot
from firstkey.system.files import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey"
NAME = "lock"
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5

_NO_LOCK = (reasons.NO_SPACE, reasons.READ_ONLY, reasons.IO_ERROR)


@contextmanager
def held(
    tree: Tree,
    *,
    seconds: float,
    waiting: Callable[[], None] = lambda: None,
    without: Callable[[FirstkeyError], None] | None = None,
) -> Iterator[None]:
    """Hold the lock; wait `seconds` for another holder at most, then raise FirstkeyError(already-running).

    Raises NeedsRoot where the tree is not the caller's to change.

    `waiting` is called once if there is another holder. Where there can be no lock (a full, broken or
    read-only /run), `without` is told, and the work goes on: two at once harm nothing, since every write
    notices the other's, and no lock is no reason to keep anybody out. Without `without` that is raised.
    """
    try:
        with tree.ensure(DIRECTORY, mode=0o755) as directory:
            lock = directory.open_to_lock(NAME)
    except FirstkeyError as error:
        if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
            raise NeedsRoot(f"in the tree under {tree.root}: {error.message}") from error
        if without is None or error.reason not in _NO_LOCK:
            raise
        without(error)
        yield
        return
    try:
        _wait(lock, time.monotonic() + seconds, waiting)
        yield
    finally:
        os.close(lock)


def _wait(lock: int, deadline: float, waiting: Callable[[], None]) -> None:
    pause = FIRST_PAUSE
    while not _taken(lock):
        if pause == FIRST_PAUSE:
            waiting()
        left = deadline - time.monotonic()
        if left <= 0:
            raise FirstkeyError("another firstkey is at work on this system", reason=reasons.ALREADY_RUNNING)
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


def _taken(lock: int) -> bool:
    with translated("lock " + DIRECTORY):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
