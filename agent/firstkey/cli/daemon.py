"""`firstkey daemon`: what the unit starts."""

from __future__ import annotations

import os
import time

from firstkey import TYPE_CHECKING, __version__, events, reasons
from firstkey.boot.supervisor import Plan, Ready, Refused, Result, Supervisor, as_line
from firstkey.cli import common
from firstkey.model import DISABLED, FAILED
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.target import Target
    from firstkey.model import Report
    from firstkey.system.child import Send

    Log = Callable[[events.Entry], None]

_START_TIME = 19
"""proc(5), /proc/PID/stat: starttime is field 22, in clock ticks since boot; field 3 follows the name."""


def main(argv: Sequence[str]) -> int:
    """Supervise the job until it is done; returns the exit status."""
    # The unit's way is the plain one; detaching has a default that argparse knows.
    args = common.parsed(argv, "daemon", others=("detach", "pid_file"))
    log = common.logger(args)
    if args.detach:
        from firstkey.cli import detached  # the unit never detaches

        return detached.command(args, log, _supervise)
    return _supervise(args, log)


def _supervise(args: argparse.Namespace, log: Log) -> int:
    started = process_started()
    log(events.STARTED(version=__version__, command="daemon"))
    return Supervisor(
        work=lambda is_first, send: _work(args, log, send, started, is_first=is_first),
        log=log,
        started=started,
    ).run()


def process_started() -> float:
    """The moment on time.monotonic() at which this process began, in clock ticks.

    A promise that counts from a start counts the time that Python took to load.
    """
    now = time.monotonic()
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rsplit(b")", 1)[1].split()[_START_TIME])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return now
    return now - max(0.0, age)


def _work(args: argparse.Namespace, log: Log, send: Send, started: float, *, is_first: bool) -> None:
    """One run, in the worker; it asks until there is an answer."""
    try:
        with common.opened(args, log, warn=is_first) as target:
            common.require_root(args, "the daemon")
            send(as_line(Plan(target.config.imds.boot_timeout)))
            send(as_line(_result(target, send, started, is_first=is_first)))
    except FirstkeyError as error:
        send(as_line(Refused(error.message, error.reason.code, error.hint, error.exit_status)))
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user, and the boot goes on
        log(events.INTERNAL_ERROR(detail=repr(error), reason=reasons.INTERNAL_ERROR.code))
        send(as_line(Result(FAILED, reasons.INTERNAL_ERROR.code)))


def _result(target: Target, send: Send, started: float, *, is_first: bool) -> Result:
    # The supervisor does without all that belongs to the job.
    from firstkey.boot.job import Job
    from firstkey.boot.platform import is_elsewhere

    try:
        if off := common.switched_off(target):
            target.log(events.DISABLED(detail=off, reason="disabled"))
            send(as_line(Ready(f"Switched off: {off}")))
            return Result(DISABLED, None)
        is_held = not is_elsewhere(target)
        if is_first:
            common.report_cloud_init(target)
        if is_first and not is_held:
            target.log(
                events.OTHER_PLATFORM(claim=target.firmware_claim(), reason=reasons.OTHER_PLATFORM.code)
            )
        ready_by = started + target.config.imds.boot_timeout if is_held else 0.0

        def ready(done: Report) -> bool:
            """False where asking again is more urgent than host keys that sshd need not wait for."""
            result = _kept(target, done)
            if result.is_final:
                send(as_line(Ready(result.status)))
            elif not is_held:
                send(as_line(Ready("No metadata service is expected here; it is asked all the same")))
            return result.is_final or time.monotonic() >= ready_by

        with common.locked(target.tree, float("inf"), target.log):
            job = Job(target, lambda: common.client(target), ready=ready, ready_by=ready_by)
            return _kept(target, job.run())
    except FirstkeyError as error:
        target.log(events.RUN_FAILED(detail=error.message, reason=error.reason.code))
        return Result(FAILED, error.reason.code)


def _kept(target: Target, done: Report) -> Result:
    """Leave the report for programs; on the console the host keys are shown once they are all there."""
    common.save_report(target, done)
    result = Result.of(done)
    if not result.pending:
        common.show_on_console(target, done)
    return result
