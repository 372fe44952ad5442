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

    from firstkey.boot.site import Site


def main(argv: Sequence[str], *, say: Callable[[events.Entry], None] | None = None) -> int:
    """Run the job; returns the exit status. `say` hears of events in the journal's place."""
    args = common.parsed(argv, "run", flags=("--json", "--dry-run", "--force"), others=("user", "wait"))
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
                done = Report(DISABLED, dry_run=args.dry_run, refusal=Refusal(reasons.DISABLED, off))
            else:
                wait = getattr(args, "wait", None)
                seconds = site.config.imds.boot_timeout if wait is None else wait
                # Alone on the system: the ledger is read only once no other one writes it.
                with nullcontext() if site.dry_run else common.locked(site.tree, seconds, site.say):
                    done = work(site, Job(site, lambda: common.client(site), wait=seconds))
                    common.show_on_console(site, done)
            if args.json or not args.quiet:
                from firstkey.cli import render

                render.show(args, site, done)
            return {OK: 0, NO_KEY: 0, DISABLED: 0, UNREACHABLE: 75}.get(done.outcome, 1)

    if args.dry_run and say is None:
        from firstkey.cli import looking  # a boot writes, and does not look at another tree

        return looking.command(args, main)
    return main(args, say or common.voice(args))


def _whole(site: Site, job: Job) -> Report:
    common.tell_of_cloud_init(site)
    done = job.run()
    common.save_report(site, done)
    return done
