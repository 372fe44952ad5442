"""`firstkey authorized-keys`: what sshd's AuthorizedKeysCommand asks at each login."""

from __future__ import annotations

import argparse
import time

from firstkey.cli import common, streams, usage
from firstkey.login import served_keys
from firstkey.model import Answer

TTL_SECONDS = 300.0
WAIT_SECONDS = 0.7
"""sshd waits for it, and so does the user who logs in: with the start of Python, it is within a second."""
USAGE = usage.Usage(
    (
        usage.value("user_name", "USER", "the user who logs in (%%u)"),
        usage.seconds("--ttl", "how long keys are kept", TTL_SECONDS),
        usage.seconds("--wait", "how long to wait for an answer", WAIT_SECONDS),
    ),
    """\
For images whose homes or root cannot be written, in sshd_config:

  AuthorizedKeysCommand /usr/bin/firstkey authorized-keys %u
  AuthorizedKeysCommandUser firstkey-keys

That user needs only the directory /run/firstkey-keys, its own with mode 0700.
For examples of both, see firstkey's documentation. Keys are printed for the
configured users only.

exit status: 0 with the keys, or without a key for other users; 2 usage error;
  75 no answer in time
""",
)


def main(args: argparse.Namespace) -> int:
    """Print the launch keys, if the user is one who gets them; returns the exit status."""
    with common.opened(args, common.logger(args), warn=False) as target:
        if common.switched_off(target):
            return 0

        def ask() -> Answer:
            return common.client(target).ask(deadline=time.monotonic() + args.wait)

        found = served_keys.lines(
            target, args.user_name, lambda: served_keys.keys(target.tree, ask=ask, ttl=args.ttl)
        )
    streams.show(*found)
    return 0
