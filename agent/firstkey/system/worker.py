"""A child process that does the work, so that its parent can keep its promises whatever the work runs into.

A disk, a server or a directory service that never answers blocks a process beyond the reach of any timer
in it; the parent does nothing that can block, so a deadline and a request to stop are always kept.
A child never outlives its parent for long: it is told to stop when the parent is gone, even by SIGKILL.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import files

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[bytes], None]

GRACE_SECONDS = 2.0
"""How long a child may tidy up after SIGTERM before it is killed."""
KILL_SECONDS = 0.5
"""How long a killed child is waited for; one that is stuck in the kernel is left behind."""
LONGEST_PAUSE = 0.002
"""How long it is left alone between two looks at whether it has ended."""
AGAIN_SECONDS = 0.005
LOOK_SECONDS = 0.5
"""How long one wait lasts: a signal that comes just before it begins is seen only after it."""
TERMINATED = 143  # what a shell reports of a program that SIGTERM ended: 128 + 15

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PART = 65536
_own: set[int] = set()
"""Descriptors that belong to this process alone: were a child to hold one, an end of file would not come."""
_left_behind: set[int] = set()
"""Children that were stuck when they were last seen; collected when they have died after all."""


def _sever() -> None:
    for descriptor in _own:
        with suppress(OSError):
            os.close(descriptor)
    _own.clear()
    _left_behind.clear()


os.register_at_fork(after_in_child=_sever)


class Worker:
    """A running child. `pipe` has what it says, and at its end an end of file."""

    def __init__(self, pid: int, pipe: int, lifeline: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self._lifeline = lifeline
        self._status: int | None = None
        _own.update((pipe, lifeline))

    def hear(self) -> bytes:
        """What it has said since, or nothing at its end. Waits for a word: ask select(2) first."""
        return os.read(self.pipe, _PART)

    def hear_by(self, deadline: float) -> bytes | None:
        """The same by that moment (time.monotonic) at the latest; None where nothing was said by then."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if poll.poll(max(0.0, min(left, LOOK_SECONDS)) * 1000):
                return self.hear()
            if left <= LOOK_SECONDS:
                return None

    def finish(self) -> str | None:
        """Collect a child whose end of file was heard; returns what went wrong with it, if anything did."""
        if not self._collected(KILL_SECONDS):
            self._signal(signal.SIGKILL)
            self._collected(KILL_SECONDS)
        self._close()
        return _trouble(self._status)

    def stop(self, patience: float = GRACE_SECONDS) -> None:
        """End it: politely, so that it leaves nothing half done lying about, then at once."""
        for order, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, KILL_SECONDS)):
            self._signal(order)
            if self._collected(seconds):
                break
        self._close()

    def _close(self) -> None:
        if self._status is None:
            _left_behind.add(self.pid)
        for descriptor in (self.pipe, self._lifeline):
            _own.discard(descriptor)
            os.close(descriptor)

    def _signal(self, order: signal.Signals) -> None:
        # Only while it was not collected: afterwards the number may be somebody else's.
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, order)

    def _collected(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        pause = 0.0001  # one that was heard to its end is gone in less, as a rule
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return True


def start(work: Callable[[Tell], None], *, quiet: bool = False) -> Worker:
    """Start a child that does `work`, which is given a way to tell the parent something.

    A `quiet` one has none of the caller's standard streams: should it get stuck, no pipe waits for it.
    Raises FirstkeyError where the system has no room for another process.
    """
    _collect_the_left_behind()
    ours, theirs = _pipes()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _close_all(ours)
            _child(*theirs, work, quiet=quiet)
        return Worker(pid, *ours)
    except OSError as error:
        _close_all(ours)
        message = f"cannot start a process: {error.strerror}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error
    finally:
        _close_all(theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ask(work: Callable[[], bytes], *, seconds: float, patience: float = 0.0) -> bytes | None:
    """Do `work` in a child and return what it says, or None where it is not done within `seconds`.

    A child that dies on the way has said nothing. One that is given up, or that has to end because this
    process has to, may tidy up for `patience` seconds.
    """
    worker = start(lambda tell: tell(work()), quiet=True)
    deadline = time.monotonic() + seconds
    parts = []
    try:
        while part := worker.hear_by(deadline):
            parts.append(part)
    except BaseException:
        worker.stop(patience)
        raise
    if part is None:
        worker.stop(patience)
        return None
    return b"" if worker.finish() else b"".join(parts)


def own_signals(status: int = TERMINATED) -> None:
    """Let SIGTERM end this process as an exception would: temporary files are removed, children ended.

    Whoever started it may have had it ignore SIGCHLD (then nobody learns how a child ended) or block SIGTERM.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda _number, _frame: _exit(status))
    sys.unraisablehook = lambda lost: _once_more(lost, status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _exit(status: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def _once_more(lost: sys.UnraisableHookArgs, status: int) -> None:
    """What is raised in a destructor or a callback (of an import, say) is dropped: the order stands."""
    if lost.exc_type is not SystemExit:
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, lambda _number, _frame: _exit(status))
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def _child(writer: int, lifeline: int, work: Callable[[Tell], None], *, quiet: bool) -> None:
    """Never returns: whatever happens here must not run on in the parent's code."""
    status = 1
    try:
        _own.update((writer, lifeline))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        own_signals()
        _hang_on(lifeline)
        for number in range(3) if quiet else ():
            with suppress(OSError):
                files.send_nowhere(number)
        work(lambda said: _write(writer, said))
        status = 0
    finally:
        os._exit(status)


def _hang_on(lifeline: int) -> None:
    """Have the kernel send SIGTERM when the parent is gone, and with it the other end (fcntl(2): O_ASYNC)."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    # Gone already, perhaps. Asking for the parent's id would not do: its ends close before it is gone.
    with suppress(BlockingIOError):
        if not os.read(lifeline, 1):
            sys.exit(TERMINATED)


def _write(writer: int, said: bytes) -> None:
    while said:
        said = said[os.write(writer, said) :]


def _trouble(status: int | None) -> str | None:
    if status is None:
        return "it is stuck in the kernel"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"it was ended by signal {-code}"
    return f"it ended with status {code}" if code else None


def _collect_the_left_behind() -> None:
    for pid in list(_left_behind):
        with suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                continue
        _left_behind.discard(pid)


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """The parent's ends and the child's: one to tell by, one that shows whether the parent lives."""
    reader, writer = os.pipe()
    try:
        lifeline, held = os.pipe()
    except OSError:
        _close_all((reader, writer))
        raise
    return (reader, held), (writer, lifeline)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
