"""`firstkey run`: the whole job once."""

from __future__ import annotations

from contextlib import nullcontext

from firstkey import TYPE_CHECKING, events, reasons
from firstkey.boot.job import Job
from firstkey.cli import common
from firstkey.model import DISABLED, NO_KEY, OK, UNREACHABLE, Report
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.target import Target


def main(argv: Sequence[str], *, log: Callable[[events.Entry], None] | None = None) -> int:
    """Run the job; returns the exit status. `log` gets the events in the journal's place."""
    args = common.parsed(argv, "run", flags=("--json", "--dry-run", "--force"), others=("user", "wait"))
    return command(args, "installing keys", _whole, log=log)


def command(
    args: argparse.Namespace,
    doing: str,
    work: Callable[[Target, Job], Report],
    *,
    log: Callable[[events.Entry], None] | None = None,
) -> int:
    """Do `work` on the system that the options name, and tell what came of it; returns the exit status."""

    def main(args: argparse.Namespace, log: Callable[[events.Entry], None]) -> int:
        with common.opened(args, log) as target:
            common.require_root(args, doing)
            if off := common.switched_off(target):
                log(events.DISABLED(detail=off, reason="disabled"))
                done = Report(DISABLED, dry_run=args.dry_run, refusal=Refusal(reasons.DISABLED, off))
            else:
                wait = getattr(args, "wait", None)
                seconds = target.config.imds.boot_timeout if wait is None else wait
                # Alone on the system: the ledger is read only once no other one writes it.
                with nullcontext() if target.dry_run else common.locked(target.tree, seconds, target.log):
                    done = work(target, Job(target, lambda: common.client(target), wait=seconds))
                    common.show_on_console(target, done)
            if args.json or not args.quiet:
                from firstkey.cli import render

                render.show(args, done)
            return {OK: 0, NO_KEY: 0, DISABLED: 0, UNREACHABLE: 75}.get(done.outcome, 1)

    if args.dry_run and log is None:
        from firstkey.cli import looking  # a boot writes, and does not look at another tree

        return looking.command(args, main)
    return main(args, log or common.logger(args))


def _whole(target: Target, job: Job) -> Report:
    common.report_cloud_init(target)
    done = job.run()
    common.save_report(target, done)
    return done
