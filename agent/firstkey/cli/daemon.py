"""`firstkey daemon`: what the unit starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import __version__, events
from firstkey.boot.job import Job
from firstkey.boot.supervisor import Plan, Supervisor, encode
from firstkey.cli import common
from firstkey.errors import FirstkeyError
from firstkey.model import FAILED, Report
from firstkey.system import lock, notify
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from firstkey.boot.site import Site

PID_FILE = "/run/firstkey/firstkey.pid"
EPILOG = """\
signals:
  SIGTERM  end cleanly
  SIGHUP   read the configuration again, and start over with it
"""


def main(argv: Sequence[str]) -> int:
    """Do the job, be ready in time, try again until there is an answer, watch; returns the exit status."""
    made = common.parser(
        "daemon", "What the systemd unit starts; by hand, for hosts without systemd.", epilog=EPILOG
    )
    made.add_argument("--detach", action="store_true", help="go into the background (needs python-daemon)")
    made.add_argument("--pid-file", metavar="FILE", default=PID_FILE, help=f"with --detach ({PID_FILE})")
    args = made.parse_args(argv)
    say = common.voice(args)
    with common.opened(args, say) as site:
        common.require_root(site, "the daemon")
        off = common.switched_off(site)
        if not off:
            say(events.STARTED(version=__version__, command="daemon"))
            common.tell_of_neighbours(site)
    if off:
        say(events.DISABLED(detail=off, reason="disabled"))
        notify.ready(f"Switched off: {off}")
        return 0
    if not args.detach:
        return _supervise(args, say)
    from firstkey.system import detach

    with detach.detached(pid_file=args.pid_file):
        return _supervise(args, common.voice(args))


def _supervise(args: argparse.Namespace, say: Callable[[events.Entry], None]) -> int:
    def reload() -> Plan:
        with Tree(args.root) as tree:
            settled = common.configuration(tree, args)
        return Plan(settled.imds.boot_timeout, settled.watch.interval)

    return Supervisor(work=lambda watching: _work(args, say, watching=watching), reload=reload, say=say).run()


def _work(args: argparse.Namespace, say: Callable[[events.Entry], None], *, watching: bool) -> bytes:
    """One run, in the worker; it asks until there is an answer."""
    try:
        with common.opened(args, say) as site:
            return encode(_run(site, watching=watching))
    except FirstkeyError as error:
        say(events.INTERNAL_ERROR(detail=error.message, reason=error.reason.code))
        return encode(Report(FAILED, refusal=error.refusal))


def _run(site: Site, *, watching: bool) -> Report:
    forever = float("inf")
    with lock.held(site.tree, seconds=forever, waiting=lambda: site.say(events.ALREADY_RUNNING())):
        done = Job(site, connect=lambda: common.client(site), deadline=None, ask_anyway=watching).run()
        common.save_report(site, done)
        common.show_on_console(site, done)
        return done
