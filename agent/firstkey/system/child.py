"""A child process that does the work, so that its parent can keep its promises whatever the work runs into.

A disk, a server or a directory service that never answers blocks a process beyond the reach of any timer
in it; the parent does nothing that can block, so a deadline and a request to stop are always kept.
A child never outlives its parent for long: it is told to stop when the parent is gone, even by SIGKILL.

Work in a home is done by a child that has the user's rights and no others; a child, because the ids of a
process are shared by all its threads and by every program it starts. Only the effective ids are the user's,
and with them every capability is gone (capabilities(7)). The real ones stay root's, so that the user can
neither send the child signals (kill(2)) nor trace it or look into it (ptrace(2)), nor change its limits
(prlimit(2)); and no core file of it is written (prctl(2), PR_SET_DUMPABLE). So the child itself, which runs
firstkey's code alone, can become root again.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

from firstkey import TYPE_CHECKING, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command, files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from firstkey.model import Account

    Send = Callable[..., None]
    """Sends the parent these bytes; with waits=True, waits then until the parent lets it go on."""
    Note = Callable[[Any], None]

SECONDS = 8.0
"""How long the work in one home may take: homes that hang may not use up the time that the boot waits."""
PATIENCE_SECONDS = 0.5
"""How long a child in a home may take to remove its temporary file; one that hangs takes all of it."""
GRACE_SECONDS = 2.0
"""How long a child may tidy up after SIGTERM before it is killed."""
KILL_SECONDS = 0.5
"""How long a killed child is waited for; one that is stuck in the kernel is left behind."""
PAUSE = 0.0002
"""How long it is left alone between two looks at whether it has ended, which it has as a rule."""
TERMINATED = 143  # what a shell reports of a program that SIGTERM ended: 128 + 15

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
own: set[int] = set()
"""Descriptors that belong to this process alone: were a child to hold one, an end of file would not come."""


class Child:
    """A running child. What it sends can be read from `pipe`, and at its end an end of file."""

    def __init__(self, pid: int, pipe: int, lifeline: int, resume: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.resume = resume
        """Who `send`s with waits=True goes on when a byte is written here."""
        self._ends = [pipe, lifeline, resume]
        self._status: int | None = None
        own.update(self._ends)

    def receive(self) -> bytes:
        """What it has sent since, or nothing at its end. Waits for that: ask poll(2) first."""
        return os.read(self.pipe, 65536)

    def finish(self) -> str | None:
        """Collect a child whose end of file was read; returns what went wrong with it, if anything did."""
        self._end(0, KILL_SECONDS)
        if self._status is None:
            return "it is stuck in the kernel"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"it was ended by signal {-code}"
        return f"it ended with status {code}" if code else None

    def stop(self, patience: float = GRACE_SECONDS) -> None:
        """End it, if it has not ended: politely, so that it leaves nothing half done about, then at once."""
        self._end(signal.SIGTERM, patience)

    def _end(self, first: int, patience: float) -> None:
        for order, seconds in ((first, patience), (signal.SIGKILL, KILL_SECONDS)) if self._ends else ():
            deadline = time.monotonic() + seconds
            # Only while it was not collected: afterwards the number may be another process's.
            if self._status is None:
                os.kill(self.pid, order)
            while self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._status = status
                elif time.monotonic() >= deadline:
                    break
                else:
                    time.sleep(PAUSE)
        while self._ends:
            own.discard(self._ends[-1])
            os.close(self._ends.pop())


def start(work: Callable[[Send], None], *, quiet: bool = False) -> Child:
    """Start a child that does `work`, which gets a function that sends bytes to the parent.

    A `quiet` one has none of the caller's standard streams: should it get stuck, no pipe waits for it.
    Raises FirstkeyError where the system has no room for another process.
    """
    ends: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        ends += os.pipe()  # by this one the child sends
        ends += os.pipe()[::-1]  # by this one it sees that the parent is gone
        ends += os.pipe()[::-1]  # and by this one it may go on
        pid = os.fork()
        if pid == 0:
            _child(ends, work, quiet=quiet)
        kept, ends = ends[::2], ends[1::2]
        return Child(pid, *kept)
    except OSError as error:
        message = f"cannot start a process: {error.strerror}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error
    finally:
        for end in ends:
            os.close(end)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(ends: Sequence[int], work: Callable[[Send], None], *, quiet: bool) -> None:
    """Never returns: whatever happens here must not run on in the parent's code."""
    writer, lifeline, resume = ends[1::2]

    def send(said: bytes, *, waits: bool = False) -> None:
        files.write_all(writer, said)
        if waits and not os.read(resume, 1):
            raise FirstkeyError("the caller has given it up", reason=reasons.TIMED_OUT)

    status = 1
    try:
        for end in (*ends[::2], *own):
            os.close(end)
        own.clear()
        own.update((writer, lifeline, resume))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        own_signals()
        # The kernel sends SIGTERM when the parent is gone, and with it the other end (fcntl(2): O_ASYNC).
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        # Gone already, perhaps. Asking for the parent's id would not do: its ends close before it is gone.
        with suppress(BlockingIOError):
            if not os.read(lifeline, 1):
                sys.exit(TERMINATED)
        for number in range(3) if quiet else ():
            with suppress(OSError):
                files.send_nowhere(number)
        work(send)
        status = 0
    finally:
        os._exit(status)


def own_signals(status: int = TERMINATED) -> None:
    """Let SIGTERM and SIGHUP end this process as an exception would: files are removed, children ended.

    Its parent may have had it ignore SIGCHLD (then no child's exit status can be had) or block SIGTERM.
    """

    def leave(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(status)

    def lost(error: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a destructor or a callback (of an import, say): raise it again."""
        if error.exc_type in (SystemExit, KeyboardInterrupt):
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(error)

    sys.unraisablehook = lost
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # and not ignored, as by nohup
        signal.signal(signal.SIGHUP, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


# --- with a user's rights -------------------------------------------------------------------------


def ask(whom: str, work: Callable[[Note | None], Any], *, seconds: float) -> Any:  # noqa: ANN401 - as json.loads has it
    """Do `work` in a child, and return what it returns (JSON values).

    Raises what `work` raised if that was a FirstkeyError, and FirstkeyError(timed-out) after `seconds`.
    """
    visit = Visit(whom, lambda note: [work(note)], seconds=seconds)
    try:
        return visit.answer(float("inf"), lambda _: None)[0]
    finally:
        visit.stop()


def become(account: Account, groups: Sequence[int]) -> None:
    """Take these effective ids and groups in a child of root's; any other caller keeps its own."""
    os.umask(0o077)
    if 0 not in (os.getuid(), os.geteuid()):
        return
    os.seteuid(0)
    os.setgroups(list(groups))
    os.setegid(account.gid)
    os.seteuid(account.uid)


class Visit:
    """Work that goes on beside the caller's, in a child that becomes whom it has to by itself.

    `work(note)` returns JSON values (not None); in `note(value)` it waits until the caller has dealt with it.
    With `here` it is done at once, by this process, and note is None: where there are no rights to give up.
    """

    def __init__(
        self, whom: str, work: Callable[[Note | None], Any], *, seconds: float, here: bool = False
    ) -> None:
        self._whom = whom
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._received = b""
        self._child: Child | None = None
        if here or command.ask_watcher:  # a boxed process cannot become another
            self._answer = json.loads(json.dumps(work(None)))
        else:
            self._child = start(lambda send: _visit(send, work), quiet=True)

    def answer(self, until: float, noted: Note) -> Any:  # noqa: ANN401 - as json.loads has it
        """What the work returned; None where it is not done `until` then (time.monotonic).

        What it notes on the way is given to `noted`. Raises what the work raised, FirstkeyError(timed-out)
        when the time of the whole visit is over. With an answer or an error, the visit has ended.
        """
        if self._child is None:
            return self._answer
        poll = select.poll()
        poll.register(self._child.pipe, select.POLLIN)
        while poll.poll(max(0.0, min(until, self._deadline) - time.monotonic()) * 1000):
            part = self._child.receive()
            self._received += part
            if part.endswith(b"\n"):
                noted(json.loads(self._received))
                self._received = b""
                with suppress(BrokenPipeError):  # it died meanwhile, which is noticed next
                    os.write(self._child.resume, b"!")
            elif not part:
                if self._child.finish() or not self._received:
                    message = f"the process that worked as {self._whom} died"
                    raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
                answer, error = json.loads(self._received)
                if error:
                    raise reasons.from_plain(error)
                return answer
        if until < self._deadline:
            return None
        self.stop()
        message = f"the files of {self._whom} did not answer within {self._seconds:g} s"
        raise FirstkeyError(message, reason=reasons.TIMED_OUT)

    def stop(self) -> None:
        """End it, wherever it is; one that has ended is left alone."""
        if self._child:
            self._child.stop(PATIENCE_SECONDS)


def _visit(send: Send, work: Callable[[Note | None], Any]) -> None:
    answer = error = None
    try:
        answer = work(lambda value: send(json.dumps(value).encode() + b"\n", waits=True))
    except Exception as raised:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        error = reasons.as_plain(raised)
    send(json.dumps([answer, error]).encode())
