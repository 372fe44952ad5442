"""`firstkey run`: the whole job once."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot.job import Job
from firstkey.cli import common, streams
from firstkey.model import DISABLED, NO_KEY, OK, UNREACHABLE, Report
from firstkey.reasons import Refusal
from firstkey.settings import seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.site import Site

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
    return command(args, "installing keys", _whole, say=say)


def command(
    args: argparse.Namespace,
    doing: str,
    work: Callable[[Site, Job], Report],
    *,
    say: Callable[[events.Entry], None] | None = None,
) -> int:
    """Do `work` on the system that the options name, and tell what came of it; returns the exit status."""

    def main(args: argparse.Namespace, say: Callable[[events.Entry], None]) -> int:
        with common.opened(args, say) as site:
            common.require_root(args, doing)
            off = common.switched_off(site)
            if off:
                say(events.DISABLED(detail=off, reason="disabled"))
                _show_switched_off(args, off)
                return 0
            done = _alone(site, getattr(args, "wait", None), work)
            if args.verbose:
                common.tell_steps(site, done)
            if args.json:
                streams.show_json(done.as_json())
            elif not args.quiet:
                from firstkey.cli import render

                streams.show(*render.report(done))
            return _exit_status(done)

    if args.dry_run and say is None:
        from firstkey.cli import looking  # a boot writes, and does not look at another tree

        return looking.command(args, main)
    return main(args, say or common.voice(args))


def _alone(site: Site, wait: float | None, work: Callable[[Site, Job], Report]) -> Report:
    """The work, alone on the system; its ledger is read only once no other one writes it."""
    seconds = site.config.imds.boot_timeout if wait is None else wait
    deadline = common.wait_until(seconds)
    with nullcontext() if site.dry_run else common.alone(site, seconds):
        done = work(site, Job(site, lambda: common.client(site), deadline=deadline))
        common.show_on_console(site, done)
        return done


def _whole(site: Site, job: Job) -> Report:
    common.tell_of_cloud_init(site)
    done = job.run()
    common.save_report(site, done)
    return done


def _show_switched_off(args: argparse.Namespace, off: str) -> None:
    """Whoever runs it by hand does not read the journal, and would take silence for success."""
    if args.json:
        done = Report(DISABLED, dry_run=args.dry_run, refusal=Refusal(reasons.DISABLED, off))
        streams.show_json(done.as_json())
    elif not args.quiet:
        streams.show(f"Switched off: {off}. Nothing was done.")


def _exit_status(done: Report) -> int:
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
