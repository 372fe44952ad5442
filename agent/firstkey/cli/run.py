"""`firstkey run`: the whole job once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events
from firstkey.boot.job import Job
from firstkey.cli import common, streams
from firstkey.model import NO_KEY, OK, UNREACHABLE
from firstkey.settings import seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.site import Site
    from firstkey.model import Report

EPILOG = """\
examples:
  firstkey run                    what the boot does, by hand
  firstkey run --dry-run          what it would change, as diffs
  firstkey run --user ec2-user    for this user only
  firstkey run --force            put back launch keys that were taken out

exit status: 0 done or nothing to do, 1 something failed, 2 usage,
  75 no answer from the metadata service in time, 77 needs root
"""


def main(argv: Sequence[str], *, say: Callable[[events.Entry], None] | None = None) -> int:
    """Run the job; returns the exit status. `say` hears of events in the journal's place."""
    args = common.parsed(argv, _parser, flags=("--json", "--dry-run", "--force"), others=("user", "wait"))
    if args.dry_run and say is None:
        from firstkey.cli import looking  # a boot writes, and does not look at another tree

        return looking.command(args, _run)
    return _run(args, say or common.voice(args))


def _run(args: argparse.Namespace, say: Callable[[events.Entry], None]) -> int:
    with common.opened(args, say) as site:
        common.require_root(args, "installing keys")
        off = common.switched_off(site)
        if off:
            say(events.DISABLED(detail=off, reason="disabled"))
            common.show_switched_off(args, off)
            return 0
        common.tell_of_cloud_init(site)
        done = _locked(site, site.config.imds.boot_timeout if args.wait is None else args.wait)
        if args.verbose:
            common.tell_steps(site, done)
        _print(done, args)
        return exit_status(done)


def exit_status(done: Report) -> int:
    """0 for what is done or needs nothing, 75 where nobody answered, else 1."""
    if done.outcome in (OK, NO_KEY):
        return 0
    return 75 if done.outcome == UNREACHABLE else 1


def _parser() -> argparse.ArgumentParser:
    made = common.parser("run", "Install host keys and launch keys, once.", epilog=EPILOG)
    common.with_forms(common.with_dry_run(made))
    made.add_argument(
        "--user", metavar="NAME", action="append", help="in place of the configured users; repeatable"
    )
    made.add_argument(
        "--wait", metavar="SECONDS", type=seconds, help="how long to wait for an answer (BootTimeoutSec=)"
    )
    made.add_argument(
        "--force", action="store_true", help="install again what was installed for this instance before"
    )
    return made


def _locked(site: Site, wait: float) -> Report:
    """The job, alone on the system; its ledger is read only once no other one writes it."""
    deadline = common.wait_until(wait)
    if site.dry_run:
        return _job(site, deadline).run()
    with common.alone(site, wait):
        done = _job(site, deadline).run()
        common.save_report(site, done)
        common.show_on_console(site, done)
    return done


def _job(site: Site, deadline: float) -> Job:
    return Job(site, connect=lambda: common.client(site), deadline=deadline)


def _print(done: Report, args: argparse.Namespace) -> None:
    if args.json:
        streams.show_json(done.as_json())
    elif not args.quiet:
        from firstkey.cli import render

        streams.show(*render.report(done))
