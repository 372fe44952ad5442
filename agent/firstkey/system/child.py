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

    Tell = Callable[[bytes], None]
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
_own: set[int] = set()
"""Descriptors that belong to this process alone: were a child to hold one, an end of file would not come."""


def _sever() -> None:
    for descriptor in _own:
        with suppress(OSError):
            os.close(descriptor)
    _own.clear()


os.register_at_fork(after_in_child=_sever)


class Child:
    """A running child. `pipe` has what it says, and at its end an end of file."""

    def __init__(self, pid: int, pipe: int, lifeline: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self._lifeline = lifeline
        self._status: int | None = None
        _own.update((pipe, lifeline))

    def hear(self) -> bytes:
        """What it has said since, or nothing at its end. Waits for a word: ask poll(2) first."""
        return os.read(self.pipe, 65536)

    def finish(self) -> str | None:
        """Collect a child whose end of file was heard; returns what went wrong with it, if anything did."""
        if not self._collected(KILL_SECONDS):
            self._end(signal.SIGKILL, KILL_SECONDS)
        self._close()
        if self._status is None:
            return "it is stuck in the kernel"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"it was ended by signal {-code}"
        return f"it ended with status {code}" if code else None

    def stop(self, patience: float = GRACE_SECONDS) -> None:
        """End it: politely, so that it leaves nothing half done lying about, then at once."""
        if not self._end(signal.SIGTERM, patience):
            self._end(signal.SIGKILL, KILL_SECONDS)
        self._close()

    def _close(self) -> None:
        for descriptor in (self.pipe, self._lifeline):
            _own.discard(descriptor)
            os.close(descriptor)

    def _end(self, order: signal.Signals, seconds: float) -> bool:
        # Only while it was not collected: afterwards the number may be somebody else's.
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, order)
        return self._collected(seconds)

    def _collected(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(PAUSE)
        return True


def start(work: Callable[[Tell], None], *, quiet: bool = False) -> Child:
    """Start a child that does `work`, which is given a way to tell the parent something.

    A `quiet` one has none of the caller's standard streams: should it get stuck, no pipe waits for it.
    Raises FirstkeyError where the system has no room for another process.
    """
    ends: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        ends += os.pipe()  # the child tells by this one
        ends += os.pipe()  # and sees by this one that the parent is gone
        pid = os.fork()
        if pid == 0:
            _child(*ends, work=work, quiet=quiet)
        return Child(pid, ends.pop(0), ends.pop())
    except OSError as error:
        message = f"cannot start a process: {error.strerror}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error
    finally:
        for end in ends:
            os.close(end)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(
    told: int, writer: int, lifeline: int, held: int, *, work: Callable[[Tell], None], quiet: bool
) -> None:
    """Never returns: whatever happens here must not run on in the parent's code."""
    status = 1
    try:
        os.close(told)
        os.close(held)
        _own.update((writer, lifeline))
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
        work(lambda said: files.write_all(writer, said))
        status = 0
    finally:
        os._exit(status)


def own_signals(status: int = TERMINATED) -> None:
    """Let SIGTERM and SIGHUP end this process as an exception would: files are removed, children ended.

    Whoever started it may have had it ignore SIGCHLD (then nobody learns how a child ended) or block SIGTERM.
    """

    def leave(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(status)

    def lost(error: sys.UnraisableHookArgs) -> None:
        """What is raised in a destructor or a callback (of an import, say) is dropped: the order stands."""
        if error.exc_type is SystemExit:
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

    `work(note)` returns JSON values (not None); in `note(value)` it waits until the caller has heeded that.
    With `here` it is done at once, by this process, and note is None: where there are no rights to give up.
    """

    def __init__(
        self, whom: str, work: Callable[[Note | None], Any], *, seconds: float, here: bool = False
    ) -> None:
        self._is_over = here or command.ask_watcher is not None  # a boxed process cannot become another
        if self._is_over:
            self._answer = json.loads(json.dumps(work(None)))
            return
        self._whom = whom
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._heard = b""
        waits, self._resume = os.pipe()
        try:
            self._child = start(lambda tell: _visit(tell, waits, work), quiet=True)
        except BaseException:
            os.close(self._resume)
            raise
        finally:
            os.close(waits)

    def answer(self, until: float, noted: Note) -> Any:  # noqa: ANN401 - as json.loads has it
        """What the work returned; None where it is not done `until` then (time.monotonic).

        What it notes on the way is given to `noted`. Raises what the work raised, FirstkeyError(timed-out)
        when the time of the whole visit is over. With an answer or an error, the visit has ended.
        """
        if self._is_over:
            return self._answer
        poll = select.poll()
        poll.register(self._child.pipe, select.POLLIN)
        while True:
            if poll.poll(max(0.0, min(until, self._deadline) - time.monotonic()) * 1000):
                part = self._child.hear()
                if not part:
                    return self._ended()
                self._heard += part
                if part.endswith(b"\n"):
                    noted(json.loads(self._heard))
                    self._heard = b""
                    with suppress(BrokenPipeError):  # it died meanwhile, which is heard next
                        os.write(self._resume, b"!")
            elif until < self._deadline:
                return None
            else:
                self.stop()
                message = f"the files of {self._whom} did not answer within {self._seconds:g} s"
                raise FirstkeyError(message, reason=reasons.TIMED_OUT)

    def _ended(self) -> Any:  # noqa: ANN401 - as above
        self._is_over = True
        os.close(self._resume)
        if self._child.finish() or not self._heard:
            message = f"the process that worked as {self._whom} died"
            raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
        said = json.loads(self._heard)
        if "code" in said:
            raise FirstkeyError(said["message"], reason=reasons.ALL[said["code"]], hint=said["hint"])
        return said["value"]

    def stop(self) -> None:
        """End it, wherever it is; one that has ended is left alone."""
        if not self._is_over:
            self._is_over = True
            os.close(self._resume)
            self._child.stop(PATIENCE_SECONDS)


def _visit(tell: Tell, waits: int, work: Callable[[Note | None], Any]) -> None:
    def note(value: Any) -> None:  # noqa: ANN401 - as json.dumps has it
        tell(json.dumps(value).encode() + b"\n")
        if not os.read(waits, 1):
            raise FirstkeyError("the caller has given it up", reason=reasons.TIMED_OUT)

    said: dict[str, Any]
    try:
        said = {"value": work(note)}
    except Exception as error:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        if not isinstance(error, FirstkeyError):
            import traceback

            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{error!r} in {where.name}:{where.lineno}"
            error = FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
        said = {"code": error.reason.code, "message": error.message, "hint": error.hint}
    tell(json.dumps(said).encode())
