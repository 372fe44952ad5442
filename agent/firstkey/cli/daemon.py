"""`firstkey daemon`: what the unit starts."""

from __future__ import annotations

import os
import time

from firstkey import TYPE_CHECKING, __version__, events, reasons
from firstkey.boot.supervisor import Plan, Ready, Refused, Result, Supervisor, as_line
from firstkey.cli import common
from firstkey.model import DISABLED, FAILED
from firstkey.reasons import FirstkeyError
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.site import Site
    from firstkey.model import Report
    from firstkey.system.child import Tell

    Say = Callable[[events.Entry], None]

_START_TIME = 19
"""proc(5), /proc/PID/stat: starttime is field 22, in clock ticks since boot; field 3 follows the name."""


def main(argv: Sequence[str]) -> int:
    """Supervise the job until it is done; returns the exit status."""
    # The unit's way is the plain one; detaching has a default that argparse knows.
    args = common.parsed(argv, "daemon", others=("detach", "pid_file"))
    say = common.voice(args)
    if not args.detach:
        return _supervise(args, say)
    # Whoever starts it is still there to see what stands in its way.
    with common.opened(args, say) as site:
        common.require_root(args, "the daemon")
        off = common.switched_off(site)
    if off:
        say(events.DISABLED(detail=off, reason="disabled"))
        return 0
    from firstkey.system import detach

    if args.pid_file == detach.PID_FILE:
        with Tree("/") as host:  # /run is empty after a boot, and no systemd makes our directory there
            host.ensure(os.path.dirname(args.pid_file), mode=0o755).__exit__()
    with detach.detached(pid_file=os.path.abspath(args.pid_file)):
        return _supervise(args, common.voice(args))


def _supervise(args: argparse.Namespace, say: Say) -> int:
    started = process_started()
    say(events.STARTED(version=__version__, command="daemon"))
    return Supervisor(
        work=lambda is_first, tell: _work(args, say, tell, started, is_first=is_first),
        say=say,
        started=started,
    ).run()


def process_started() -> float:
    """The moment on time.monotonic() at which this process began, as well as anybody can tell.

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


def _work(args: argparse.Namespace, say: Say, tell: Tell, started: float, *, is_first: bool) -> None:
    """One run, in the worker; it asks until there is an answer."""
    try:
        with common.opened(args, say, warn=is_first) as site:
            common.require_root(args, "the daemon")
            tell(as_line(Plan(site.config.imds.boot_timeout)))
            tell(as_line(_result(site, tell, started, is_first=is_first)))
    except FirstkeyError as error:
        tell(as_line(Refused(error.message, error.reason.code, error.hint, error.exit_status)))
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user, and the boot goes on
        say(events.INTERNAL_ERROR(detail=repr(error), reason=reasons.INTERNAL_ERROR.code))
        tell(as_line(Result(FAILED, reasons.INTERNAL_ERROR.code)))


def _result(site: Site, tell: Tell, started: float, *, is_first: bool) -> Result:
    # The supervisor does without all that belongs to the job.
    from firstkey.boot.job import Job
    from firstkey.boot.platform import is_elsewhere

    try:
        off = common.switched_off(site)
        if off:
            site.say(events.DISABLED(detail=off, reason="disabled"))
            tell(as_line(Ready(f"Switched off: {off}")))
            return Result(DISABLED, None)
        is_held = not is_elsewhere(site)
        if is_first:
            common.tell_of_cloud_init(site)
        if is_first and not is_held:
            site.say(events.OTHER_PLATFORM(claim=site.firmware_claim(), reason=reasons.OTHER_PLATFORM.code))
        ready_by = started + site.config.imds.boot_timeout if is_held else 0.0

        def ready(done: Report) -> bool:
            """False where asking again is more urgent than host keys that sshd need not wait for."""
            result = _kept(site, done)
            if result.is_final:
                tell(as_line(Ready(result.status)))
            elif not is_held:
                tell(as_line(Ready("No metadata service is expected here; it is asked all the same")))
            return result.is_final or time.monotonic() >= ready_by

        with common.locked(site.tree, float("inf"), site.say):
            job = Job(site, lambda: common.client(site), ready=ready, ready_by=ready_by)
            return _kept(site, job.run())
    except FirstkeyError as error:
        site.say(events.RUN_FAILED(detail=error.message, reason=error.reason.code))
        return Result(FAILED, error.reason.code)


def _kept(site: Site, done: Report) -> Result:
    """Leave the report for programs; on the console the host keys are shown once they are all there."""
    common.save_report(site, done)
    result = Result.of(done)
    if not result.pending:
        common.show_on_console(site, done)
    return result
