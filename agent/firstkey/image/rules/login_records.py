"""Beyond the guide: no records of logins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import EMPTY, Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/var/log/wtmp*", "a record of logins", EMPTY),
    Place("/var/log/btmp*", "a record of failed logins", EMPTY),
    Place("/var/log/lastlog", "a record of last logins", EMPTY),
    Place("/var/log/faillog", "a record of failed logins", EMPTY),
    Place("/var/log/tallylog", "a record of failed logins", EMPTY),
    Place("/var/lib/wtmpdb/*", "a record of logins"),
    Place("/var/lib/lastlog/*", "a record of last logins"),
    Place("/var/log/sudo-io", "a record of what was typed under sudo", whole=True),
    Place("/var/log/session-recording", "a record of sessions", whole=True),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/log/wtmp", b"\7" * 384)


def _passing(tree: Builder) -> None:
    tree.file("/var/log/wtmp", "")


RULE = Rule(
    id="login-records",
    title="There are no records of logins",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Who logged in to the builder, when and from which address. seal empties the files, since "
        "programs expect them to be there, and removes the databases that newer systems keep."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
