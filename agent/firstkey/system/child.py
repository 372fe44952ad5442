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
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command, files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class Child:
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
        if self._status is None:
            return "it is stuck in the kernel"
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            return f"it was ended by signal {-code}"
        return f"it ended with status {code}" if code else None

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


def start(work: Callable[[Tell], None], *, quiet: bool = False) -> Child:
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
        return Child(pid, *ours)
    except OSError as error:
        _close_all(ours)
        message = f"cannot start a process: {error.strerror}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error
    finally:
        _close_all(theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


# --- with a user's rights -------------------------------------------------------------------------


def ask(whom: str, work: Callable[[Note | None], Any], *, seconds: float) -> Any:  # noqa: ANN401 - as json.loads has it
    """Do `work` in a child, and return what it returns (JSON values).

    Raises what `work` raised if that was a FirstkeyError, and FirstkeyError(timed-out) after `seconds`.
    """
    visit = Visit(whom, lambda note: [work(note)], seconds=seconds)
    answer = None
    try:
        while answer is None:
            answer = visit.answer(float("inf"), lambda _: None)
    finally:
        visit.stop()
    return answer[0]


def run_as(
    account: Account, groups: Sequence[int], work: Callable[[], Any], *, seconds: float = SECONDS
) -> Any:  # noqa: ANN401 - as above
    """Ask a child with the effective ids and groups of `account`.

    Where the caller is not root, or boxed, the work is done with the caller's own rights.
    """

    def become_and_work(note: Note | None) -> Any:  # noqa: ANN401 - as above
        if note:
            become(account, groups)
        return work()

    return ask(account.name, become_and_work, seconds=seconds)


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
        self.deadline = time.monotonic() + seconds
        waits, self._resume = os.pipe()
        try:
            self._child = start(lambda tell: _visit(tell, waits, work), quiet=True)
        except BaseException:
            os.close(self._resume)
            raise
        finally:
            os.close(waits)
        self._heard = b""

    def answer(self, until: float, noted: Note) -> Any:  # noqa: ANN401 - as json.loads has it
        """What the work returned; None where it is not done `until` then (time.monotonic).

        What it notes on the way is given to `noted`. Raises what the work raised, FirstkeyError(timed-out)
        when the time of the whole visit is over. With an answer or an error, the visit has ended.
        """
        if self._is_over:
            return self._answer
        while part := self._child.hear_by(min(until, self.deadline)):
            self._heard += part
            if self._heard.endswith(b"\n"):
                noted(json.loads(self._heard))
                self._heard = b""
                with suppress(BrokenPipeError):  # it died meanwhile, which is heard next
                    os.write(self._resume, b"!")
        if part is None and time.monotonic() < self.deadline:
            return None
        if part is None:
            self.stop()
            return _value(None, self._whom, self._seconds)
        self._is_over = True
        os.close(self._resume)
        return _value(b"" if self._child.finish() else self._heard, self._whom, self._seconds)

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
            raise FirstkeyError("nobody heeds it any more", reason=reasons.TIMED_OUT)

    tell(json.dumps(_attempt(lambda: work(note))).encode())


def _attempt(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except FirstkeyError as error:
        return {"code": error.reason.code, "message": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        where = sys.exc_info()[2]
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
        return {"code": "internal-error", "message": f"{error!r} in {line}", "hint": None}


def _value(answer: bytes | None, whom: str, seconds: float) -> Any:  # noqa: ANN401 - as json.loads has it
    if answer is None:
        message = f"the files of {whom} did not answer within {seconds:g} s"
        raise FirstkeyError(message, reason=reasons.TIMED_OUT)
    if not answer:
        message = f"the process that worked as {whom} died"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
    said = json.loads(answer)
    if "code" in said:
        raise FirstkeyError(said["message"], reason=reasons.ALL[said["code"]], hint=said["hint"])
    return said["value"]


# --- in the child, and around it ------------------------------------------------------------------


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
