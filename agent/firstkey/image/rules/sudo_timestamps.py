"""Beyond the guide: no timestamps of sudo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/var/lib/sudo/ts/*", "when somebody gave sudo a password", empty_counts=True),
    Place("/var/lib/sudo/lectured/*", "whom sudo has lectured", empty_counts=True),
    Place("/var/db/sudo/*", "when somebody gave sudo a password", empty_counts=True),
    Place("/var/lib/sudo/[!lt]*", "when somebody gave sudo a password", empty_counts=True),
    Place("~/.sudo_as_admin_successful", "that somebody used sudo", empty_counts=True),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/lib/sudo/lectured/1000", "")


def _passing(tree: Builder) -> None:
    tree.directory("/var/lib/sudo/lectured")


RULE = Rule(
    id="sudo-timestamps",
    title="There are no timestamps of sudo",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "sudo remembers who gave a password when, and whom it has lectured, in files that are named after "
        "accounts. On a copy they are as true as on the builder, and of no use. seal removes it all."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
