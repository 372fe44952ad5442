"""The daemon: readiness in time, retries until all is done that time can bring, and a clean end.

It decides when a worker is started and what the service manager is sent; the workers do the job, and read
the configuration. From its start to its end the supervisor itself touches no disk, no network and no name
service, so that nothing but its own clock decides when the boot goes on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons, settings
from firstkey.model import DISABLED, NO_KEY, OK, UNREACHABLE
from firstkey.reasons import FirstkeyError
from firstkey.system import child, notify

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    from firstkey.model import Report
    from firstkey.system.child import Child, Send

    Log = Callable[[events.Entry], None]

# --- what a worker says: one word a line, in JSON, over the pipe between the two ------------------

_TRIED_AGAIN = frozenset({
    reasons.BAD_ANSWER.code, reasons.ANSWER_TOO_LARGE.code, reasons.REDIRECT_REFUSED.code,
    reasons.TOKEN_REJECTED.code, reasons.ALREADY_RUNNING.code, reasons.INTERNAL_ERROR.code,
})  # fmt: skip
"""With these there was no answer of the metadata service: the daemon goes on asking."""
_HEALED_BY_TIME = (reasons.HOME_MISSING, reasons.READ_ONLY, reasons.NO_SPACE, reasons.NO_SUCH_USER)
"""A home may be made or mounted later, a file system become writable or grow, a service know an account."""


class Plan(NamedTuple):
    """The settings of the daemon itself, in seconds: said first, as soon as the configuration is read."""

    boot_timeout: float


class Ready(NamedTuple):
    """sshd may start. The worker goes on with what may come later; `status` says with what."""

    status: str


class Refused(NamedTuple):
    """The work could not even be begun, and why: what a FirstkeyError says. A worker's last word."""

    message: str
    code: str
    hint: str
    exit_status: int


class Result(NamedTuple):
    """How a run ended, a worker's last word: the outcome of its report, and the reason where there is one."""

    outcome: str
    reason: str | None
    late: str = ""
    """The names of users whose home, account, or a file system that can be written, may come later."""
    pending: str = ""
    """The types of host keys that are still being made."""

    @classmethod
    def of(cls, report: Report) -> Result:
        """The word for this report."""
        pending = (
            key.type
            for key in report.host_keys
            if key.refusal and key.refusal.reason is reasons.HOST_KEY_PENDING
        )
        late = (user.name for user in report.users if user.refusal and user.refusal.reason in _HEALED_BY_TIME)
        reason = report.refusal.reason.code if report.refusal else None
        return cls(report.outcome, reason, " ".join(late), " ".join(pending))

    @property
    def is_final(self) -> bool:
        """Whether there was an answer, so that there is nothing to try again."""
        return self.outcome != UNREACHABLE and self.reason not in _TRIED_AGAIN

    @property
    def status(self) -> str:
        """What `systemctl status` shows of it."""
        if self.pending:
            return f"Done: {self.outcome}; making the host key {self.pending} in the background"
        more = f"; going on with the attempts for {self.late}" if self.late else ""
        return f"Done: {self.outcome}{more}"


if TYPE_CHECKING:
    Word = Union[Plan, Ready, Refused, Result]


_KINDS: dict[str, type[Word]] = {kind.__name__: kind for kind in (Plan, Ready, Refused, Result)}


def as_line(word: Word) -> bytes:
    """The word as it goes over the pipe."""
    return json.dumps([type(word).__name__, *word]).encode() + b"\n"


def from_line(said: bytes) -> Word:
    """The word that the line holds."""
    kind, *fields = json.loads(said)
    return _KINDS[kind](*fields)


# --- the supervisor -------------------------------------------------------------------------------

DEFAULT_PLAN = Plan(settings.SECTIONS["IMDS"]["BootTimeoutSec"].default)
"""What holds until a worker has read the configuration, and where none can."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_PAUSE_FOR_A_HOME = 600.0
"""A home gets its key after at most twice the time that it took to come. A misspelt name in Users= is in the
journal six times an hour, not each minute, for as long as the machine runs.
"""
MARGIN_SECONDS = 30.0
"""What systemd is asked to wait beyond the boot deadline before it believes that the daemon hangs."""


class Supervisor:
    """One daemon. `work` is done in a child; the deadline counts from `started`, on time.monotonic().

    `work` gets whether it reads the configuration for the first time, and the function that sends a word.
    """

    def __init__(self, *, work: Callable[[bool, Send], None], log: Log, started: float) -> None:
        self._work = work
        self._log = log
        self._started = started
        self._plan = DEFAULT_PLAN
        self._deadline = started + DEFAULT_PLAN.boot_timeout
        self._is_ready = False
        self._is_overdue = False  # ready at the deadline, without an answer
        self._pause = FIRST_PAUSE
        self._worker: Child | None = None
        self._received = b""
        self._next_start: float | None = started  # None: while a worker is at work, and once all is done
        self._status = 0

    def run(self) -> int:
        """Supervise until there is nothing more to do, or a signal; returns the exit status.

        Raises FirstkeyError where the first worker could not begin (no such configuration file, not root).
        The handlers of SIGTERM, SIGINT and SIGHUP stay the supervisor's: the process is to end after this.
        """
        wakeup = _signals_as_bytes()
        self._ask_for_time()
        try:
            while self._worker or self._next_start is not None:
                if self._next_start is not None and time.monotonic() >= self._next_start:
                    self._start_worker()
                # The boot is not held longer than the deadline, whatever the worker is waiting for.
                if not self._is_ready and time.monotonic() >= self._deadline:
                    self._is_overdue = True
                    self._ready("No answer from the metadata service yet; going on with the attempts")
                    detail = "" if self._worker else "The last answer was not usable."
                    seconds = f"{self._plan.boot_timeout:g}"
                    self._log(events.IMDS_UNREACHABLE_AT_DEADLINE(seconds=seconds, detail=detail))
                self._wait(wakeup)
            return self._status
        finally:
            self._stop_worker()

    def _ask_for_time(self) -> None:
        """Where BootTimeoutSec= exceeds the unit's limit, starting up may take longer."""
        seconds = max(0.0, self._deadline - time.monotonic()) + MARGIN_SECONDS
        notify.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _start_worker(self) -> None:
        is_first = self._plan is DEFAULT_PLAN
        self._next_start, self._received = None, b""
        try:
            self._worker = child.start(lambda send: self._work(is_first, send))
        except FirstkeyError as error:
            self._failed(error.message)
            return
        if not self._is_ready:
            notify.send(status="Asking the metadata service, and making host keys")

    def _wait(self, wakeup: int) -> None:
        moments = [] if self._is_ready else [self._deadline]
        if self._next_start is not None:
            moments.append(self._next_start)
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        if self._worker:
            poll.register(self._worker.pipe, select.POLLIN)
        left = max(0.0, min(moments) - time.monotonic()) * 1000 if moments else None
        ready = {descriptor for descriptor, _ in poll.poll(left)}
        if self._worker and self._worker.pipe in ready:
            self._receive(self._worker)
        if wakeup in ready:
            notify.send("STOPPING=1", status="Stopping")
            self._log(events.STOPPING(detail="asked to by a signal"))
            self._stop_worker()
            self._next_start, self._status = None, 0

    def _ready(self, status: str) -> None:
        notify.send("" if self._is_ready else "READY=1", status=status)
        self._is_ready = True

    def _receive(self, worker: Child) -> None:
        part = worker.receive()
        if not part:
            trouble = worker.finish() or "it said nothing"
            self._failed(f"the process that does the work ended before it was done: {trouble}")
            return
        *lines, self._received = (self._received + part).split(b"\n")
        for said in lines:
            word = from_line(said)
            if isinstance(word, Plan):
                is_longer = word.boot_timeout > self._plan.boot_timeout
                self._plan, self._deadline = word, self._started + word.boot_timeout
                if is_longer and not self._is_ready:
                    self._ask_for_time()
            elif isinstance(word, Ready):
                self._ready(word.status)
            elif isinstance(word, Refused):
                # The caller that starts the daemon gets the error; a daemon that runs already tries again.
                if self._plan is DEFAULT_PLAN and not self._is_ready:
                    error = FirstkeyError(word.message, reason=reasons.ALL[word.code], hint=word.hint)
                    error.exit_status = word.exit_status
                    raise error
                self._log(events.RUN_FAILED(detail=word.message, reason=word.code))
                self._try_again(LONGEST_PAUSE)
            else:
                self._ended(word)
            if isinstance(word, (Refused, Result)):  # the last one
                # Should it hang on its way out, nothing waits for it.
                worker.finish()
                self._worker = None
                return

    def _ended(self, result: Result) -> None:
        if not result.is_final:
            self._try_again(LONGEST_PAUSE)
            return
        if result.late:
            self._try_again(LONGEST_PAUSE_FOR_A_HOME)
        self._status = 0 if result.outcome in (OK, NO_KEY, DISABLED) else 1
        if result.outcome != DISABLED:  # its status names the switch already
            self._ready(result.status)
        if self._is_overdue:
            self._is_overdue = False
            self._log(events.IMDS_LATE_ANSWER(seconds=f"{time.monotonic() - self._started:.0f}"))

    def _failed(self, detail: str) -> None:
        self._log(events.INTERNAL_ERROR(detail=detail, reason="internal-error"))
        self._worker = None
        self._try_again(LONGEST_PAUSE)

    def _try_again(self, longest: float) -> None:
        self._next_start = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, longest)

    def _stop_worker(self) -> None:
        """End it politely."""
        if self._worker:
            self._worker.stop()
            self._worker = None


def _signals_as_bytes() -> int:
    """SIGTERM, SIGINT and SIGHUP become bytes in this pipe: heeded between steps and never within one."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # The pipe first: a signal that came between a handler and its pipe would be lost.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
            signal.signal(number, lambda _number, _frame: None)
    return reader
