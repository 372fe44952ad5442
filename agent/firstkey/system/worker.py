"""A child process that does the work, so that its parent can keep its promises whatever the work runs into.

A disk or server that never answers blocks a process beyond the reach of any timer in it; the parent does
nothing that can block, so the boot deadline and a request to stop are always kept.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GRACE_SECONDS = 2.0
"""How long a worker may tidy up after SIGTERM before it is killed."""
TERMINATED = 143  # what a shell reports of a program that SIGTERM ended: 128 + 15
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Worker:
    """A running child. `pipe` has what it says; at its end it has an end of file."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self._said: list[bytes] = []

    def hear(self) -> bytes | None:
        """What the child said in all, once it has ended; None while it has not."""
        part = os.read(self.pipe, 65536)
        if part:
            self._said.append(part)
            return None
        self._close()
        return b"".join(self._said)

    def stop(self) -> None:
        """End the child: politely, so that it leaves nothing half done lying about, then at once."""
        for order, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 0.5)):
            self._signal(order)
            if self._collected(seconds):
                break
        os.close(self.pipe)

    def _close(self) -> None:
        os.close(self.pipe)
        if not self._collected(GRACE_SECONDS):
            self._signal(signal.SIGKILL)
            self._collected(GRACE_SECONDS)

    def _signal(self, order: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, order)

    def _collected(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        # Where whoever started this process had it ignore SIGCHLD, the kernel collects the child itself.
        with suppress(ChildProcessError):
            while not os.waitpid(self.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.002)
        return True


def start(work: Callable[[], bytes]) -> Worker:
    """Start a child that does `work` and says what that returns."""
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(writer, work)
        os.close(writer)
        return Worker(pid, reader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(writer: int, work: Callable[[], bytes]) -> None:
    """Never returns. SIGTERM becomes an exception, so that every `finally` on the way out is run."""
    try:
        # A child of its own that hangs may not hold the pipe open: the end of file is what the parent awaits.
        os.register_at_fork(after_in_child=lambda: os.close(writer))
        signal.set_wakeup_fd(-1)
        exit_on_sigterm()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        said = work()
        while said:
            said = said[os.write(writer, said) :]
    finally:
        os._exit(0)


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception would: temporary files are removed, children ended."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)
