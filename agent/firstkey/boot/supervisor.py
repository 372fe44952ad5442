"""The daemon: readiness in time, retries until there is an answer, watching, and a clean end.

It decides when a worker is started and what the service manager is told; the workers do the job.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from firstkey import events, reasons
from firstkey.model import NO_KEY, OK, UNREACHABLE
from firstkey.system import notify, worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from firstkey.model import Report
    from firstkey.system.worker import Worker

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
MARGIN_SECONDS = 30.0
"""What systemd is asked to wait beyond the boot deadline before it believes that the daemon hangs."""
_TRIED_AGAIN = frozenset({
    reasons.BAD_ANSWER.code, reasons.ANSWER_TOO_LARGE.code, reasons.REDIRECT_REFUSED.code,
    reasons.TOKEN_REJECTED.code, reasons.ALREADY_RUNNING.code, reasons.INTERNAL_ERROR.code,
})  # fmt: skip
"""Not an answer of the metadata service, whoever gave it; so the daemon goes on asking."""


class Result(NamedTuple):
    """How a worker ended: the outcome of its report, and the reason where there is one."""

    outcome: str
    reason: str | None

    @property
    def is_final(self) -> bool:
        """Whether there was an answer, so that there is nothing to try again."""
        return self.outcome != UNREACHABLE and self.reason not in _TRIED_AGAIN


class Plan(NamedTuple):
    """The settings of the daemon itself, in seconds."""

    boot_timeout: float
    interval: float


def encode(report: Report) -> bytes:
    """What a worker says of its run."""
    reason = report.refusal.reason.code if report.refusal else None
    return json.dumps([report.outcome, reason]).encode()


class Supervisor:
    """One daemon. `work(watching)` is done in a child; `reload` reads the configuration again."""

    def __init__(
        self,
        *,
        work: Callable[[bool], bytes],
        reload: Callable[[], Plan],
        say: Callable[[events.Entry], None],
    ) -> None:
        self._work = work
        self._reload = reload
        self._say = say
        self._plan = reload()
        self._started = time.monotonic()
        self._deadline = self._started + self._plan.boot_timeout
        self._is_ready = False
        self._has_answer = False
        self._pause = FIRST_PAUSE
        self._worker: Worker | None = None
        self._next_start: float | None = self._started
        self._signals: set[int] = set()
        self._status = 0

    def run(self) -> int:
        """Supervise until there is nothing more to do, or SIGTERM; returns the exit status."""
        wakeup, restore = self._listen()
        notify.need_time(self._plan.boot_timeout + MARGIN_SECONDS)
        try:
            while not self._is_over():
                self._start_if_due()
                self._wait(wakeup)
                self._heed_signals()
                self._ready_if_due()
            return self._status
        finally:
            if self._worker:
                self._worker.stop()
            restore()

    # --- what happens -------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._worker is None and self._next_start is None

    def _start_if_due(self) -> None:
        if self._worker or self._next_start is None or time.monotonic() < self._next_start:
            return
        watching = self._has_answer
        self._worker = worker.start(lambda: self._work(watching))
        if not self._is_ready:
            notify.status("Asking the metadata service, and making host keys")

    def _wait(self, wakeup: int) -> None:
        watched = [wakeup, self._worker.pipe] if self._worker else [wakeup]
        ready, _, _ = select.select(watched, [], [], self._seconds_to_next())
        if wakeup in ready:
            self._signals.update(os.read(wakeup, 64))
        if self._worker and self._worker.pipe in ready:
            said = self._worker.hear()
            if said is not None:
                self._worker = None
                self._ended(_decoded(said))

    def _seconds_to_next(self) -> float | None:
        moments = [] if self._is_ready else [self._deadline]
        if self._worker is None and self._next_start is not None:
            moments.append(self._next_start)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _ended(self, result: Result) -> None:
        """A worker has ended: be ready, watch, try again, or be done."""
        if not result.is_final:
            self._next_start = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return
        self._pause = FIRST_PAUSE
        self._status = 0 if result.outcome in (OK, NO_KEY) else 1
        if not self._has_answer and self._is_ready:
            late = f"{time.monotonic() - self._started:.0f}"
            self._say(events.IMDS_LATE_ANSWER(seconds=late))
        self._has_answer = True
        self._ready(f"Done: {result.outcome}")
        self._watch()

    def _watch(self) -> None:
        interval = self._plan.interval
        self._next_start = time.monotonic() + interval if interval > 0 else None

    def _ready_if_due(self) -> None:
        """The boot is not held longer than the deadline, whatever the worker is waiting for."""
        if self._is_ready or self._is_over() or time.monotonic() < self._deadline:
            return
        detail = "" if self._worker else "The last answer was not usable."
        self._say(events.IMDS_UNREACHABLE_AT_DEADLINE(seconds=f"{self._plan.boot_timeout:g}", detail=detail))
        self._ready("No answer from the metadata service yet; going on with the attempts")

    def _ready(self, status: str) -> None:
        if self._is_ready:
            notify.status(status)
            return
        self._is_ready = True
        notify.ready(status)
        if self._plan.interval > 0 and self._has_answer:
            self._say(events.WATCHING(seconds=f"{self._plan.interval:g}"))

    # --- signals ------------------------------------------------------------------------------

    def _listen(self) -> tuple[int, Callable[[], None]]:
        """Signals become bytes in a pipe, so that they are heeded between steps and never within one."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {
            number: signal.signal(number, _noted) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

        return reader, restore

    def _heed_signals(self) -> None:
        if self._signals & {signal.SIGTERM, signal.SIGINT}:
            self._say(events.STOPPING(detail="asked to by a signal"))
            notify.stopping("Stopping")
            self._stop_worker()
            self._next_start = None
            self._status = 0
            self._is_ready = True
        elif signal.SIGHUP in self._signals:
            self._reread()
        self._signals.clear()

    def _reread(self) -> None:
        """The settings that count from now on; a worker with the old ones starts anew."""
        notify.reloading()
        self._plan = self._reload()
        self._deadline = self._started + self._plan.boot_timeout
        self._say(events.CONFIG_RELOADED())
        self._stop_worker()
        if self._is_ready:
            notify.ready("The configuration was read again")
        self._next_start = time.monotonic()

    def _stop_worker(self) -> None:
        if self._worker:
            self._worker.stop()
            self._worker = None


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wake-up pipe has it already."""


def _decoded(said: bytes) -> Result:
    try:
        outcome, reason = json.loads(said)
    except ValueError:
        return Result(UNREACHABLE, reasons.INTERNAL_ERROR.code)
    return Result(outcome, reason)
