"""`firstkey host-keys`: only the host keys; no network."""

from __future__ import annotations

from firstkey import TYPE_CHECKING
from firstkey.cli import common, run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Look at the host keys and make what is missing; returns the exit status."""
    args = common.parsed(argv, "host-keys", flags=("--json", "--dry-run"))
    return run.command(args, "making host keys", lambda _, job: job.host_keys_only())
