"""`firstkey keys`: which keys the metadata service offers; installs nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from firstkey.boot import launch_keys
from firstkey.boot.job import wait_until
from firstkey.cli import common, render
from firstkey.model import NO_KEY, OK, PARTIAL, Imds, Report
from firstkey.reasons import NO_KEY_PAIR, Refusal
from firstkey.settings import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.site import Site


def main(argv: Sequence[str]) -> int:
    """Show the offered keys with their fingerprints; returns the exit status."""
    made = common.with_json(
        common.parser("keys", "Show which keys the metadata service offers; installs nothing.")
    )
    made.add_argument(
        "--wait", metavar="SECONDS", type=seconds, default=5.0, help="how long to wait for an answer (5)"
    )
    args = made.parse_args(argv)
    with common.opened(args, common.voice(args)) as site:
        done = _asked(site, args.wait)
        if args.json:
            print(json.dumps(done.as_json(), indent=1))
        else:
            lines = [*render.instance(done), *(line for key in done.keys for line in render.offered_key(key))]
            print("\n".join(lines))
            if done.refusal:
                print("\n".join(render.refusal(done.refusal)))
        return 0 if done.outcome in (OK, NO_KEY) else 1


def _asked(site: Site, wait: float) -> Report:
    asking = common.client(site)
    try:
        answer = asking.ask(deadline=wait_until(wait))
    finally:
        asking.close()
    offer = launch_keys.judge(answer.keys)
    fallback = answer.fallback_reason
    why = Refusal(fallback, fallback.meaning) if fallback else None
    none = Refusal(NO_KEY_PAIR, "the instance was launched without a key pair")
    return Report(
        PARTIAL if any(key.refusal for key in offer.results) else OK if answer.keys else NO_KEY,
        instance_id=answer.instance_id,
        imds=Imds(answer.endpoint, answer.version, why),
        keys=offer.results,
        refusal=None if answer.keys else none,
    )
