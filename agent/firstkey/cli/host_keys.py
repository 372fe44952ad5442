"""`firstkey host-keys`: only the host keys; no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.cli import common, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EPILOG = """\
examples:
  firstkey host-keys                     make what is missing or broken
  firstkey host-keys --dry-run           what that would be; changes nothing
  firstkey host-keys --root /mnt/image   in an image, whose first boot makes
                                         keys of its own again

exit status: 0 every wanted host key is there, 1 something failed, 2 usage,
  77 needs root
"""


def main(argv: Sequence[str]) -> int:
    """Look at the host keys and make what is missing; returns the exit status."""
    args = _parser().parse_args(argv)
    return run.command(args, "making host keys", lambda _, job: job.host_keys_only())


def _parser() -> argparse.ArgumentParser:
    made = common.parser(
        "host-keys",
        "Check the SSH host keys, and make those that are missing or broken.",
        epilog=EPILOG,
        asks=False,
    )
    common.with_forms(common.with_dry_run(made))
    return made
