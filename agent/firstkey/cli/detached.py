"""`firstkey daemon --detach`: the same in the background, for hosts without systemd."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from firstkey import events
from firstkey.cli import common
from firstkey.system import detach
from firstkey.system.tree import Tree

Log = Callable[[events.Entry], None]


def command(args: argparse.Namespace, log: Log, supervise: Callable[[argparse.Namespace, Log], int]) -> int:
    """Supervise in the background; returns the exit status. Errors that come before reach the caller."""
    with common.opened(args, log) as target:
        common.require_root(args, "the daemon")
        off = common.switched_off(target)
    if off:
        log(events.DISABLED(detail=off, reason="disabled"))
        return 0
    if args.pid_file == detach.PID_FILE:
        with Tree("/") as host:  # /run is empty after a boot, and no systemd makes our directory there
            host.ensure(os.path.dirname(args.pid_file), mode=0o755).__exit__()
    with detach.detached(pid_file=os.path.abspath(args.pid_file)):
        return supervise(args, common.logger(args))
