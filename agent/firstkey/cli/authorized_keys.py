"""`firstkey authorized-keys`: what sshd's AuthorizedKeysCommand asks at each login."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from firstkey.cli import common, parsers, streams
from firstkey.login import served_keys
from firstkey.settings import seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from firstkey.boot.site import Site
    from firstkey.model import Answer

TTL_SECONDS = 300.0
WAIT_SECONDS = 0.7
"""sshd waits for it, and so does the user who logs in: with the start of Python, it is within a second."""
EPILOG = """\
For images whose homes or root cannot be written, in sshd_config:

  AuthorizedKeysCommand /usr/bin/firstkey authorized-keys %u
  AuthorizedKeysCommandUser firstkey-keys

That user needs only the directory /run/firstkey-keys, its own with mode 0700.
For examples of both, see firstkey's documentation. Keys are printed for the
configured users only.

exit status: 0 with the keys, or without a key for other users;
  75 no answer in time
"""


def main(argv: Sequence[str]) -> int:
    """Print the launch keys, if the user is one who gets them; returns the exit status."""
    args = _parser().parse_args(argv)
    with common.opened(args, common.voice(args), warn=False) as site:
        if common.switched_off(site):
            return 0
        cache = served_keys.Cache(site.tree)
        found = served_keys.lines(
            site,
            args.user_name,
            lambda: served_keys.keys(cache, ask=lambda: _ask(site, args.wait), ttl=args.ttl),
        )
    streams.show(*found)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parsers.command(
        "authorized-keys",
        "Print the launch keys of a configured user, as sshd's AuthorizedKeysCommand.",
        epilog=EPILOG,
    )
    made.add_argument("user_name", metavar="USER", help="the user who logs in (%%u)")
    made.add_argument(
        "--ttl", metavar="SECONDS", type=seconds, default=TTL_SECONDS, help="how long keys are kept (300)"
    )
    made.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=WAIT_SECONDS,
        help="how long to wait for an answer (0.7)",
    )
    return made


def _ask(site: Site, wait: float) -> Answer:
    return common.client(site).ask(deadline=time.monotonic() + wait)
