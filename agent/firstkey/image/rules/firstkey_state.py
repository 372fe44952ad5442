"""Beyond the guide: nothing that firstkey itself keeps of one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.boot import ledger
from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import LOGS, Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

INTERRUPTED = "a temporary file of a firstkey that was interrupted"
PLACES = (
    Place(f"{ledger.DIRECTORY}/*", "what firstkey keeps of one instance", empty_counts=True),
    Place(f"{ledger.DIRECTORY}/.firstkey-*", INTERRUPTED, empty_counts=True),
    Place("/etc/.firstkey-*", INTERRUPTED, empty_counts=True),
    Place("/etc/ssh/.firstkey-*", INTERRUPTED, empty_counts=True),
    Place("/etc/sudoers.d/.firstkey-*", INTERRUPTED, empty_counts=True),
    Place("~/.ssh/.firstkey-*", INTERRUPTED, empty_counts=True),
)


def _is_meant_to_stay(path: str) -> bool:
    return path == ledger.SEALED


def _failing(tree: Builder) -> None:
    tree.file(ledger.PATH, "{}\n", mode=0o600)
    tree.file(ledger.SEALED, "{}\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file(ledger.SEALED, "{}\n", mode=0o600)


RULE = Rule(
    id="firstkey-state",
    title="firstkey has kept nothing of an instance",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "The ledger names the instances that the image was made on, their launch keys by fingerprint, and "
        "their users. It is what heals an image that was made without sealing; one that is sealed has no "
        "keys that it would be needed for. seal removes it, after the keys that it speaks of, and leaves "
        "the salted hashes of removed host keys, by which a boot knows one that comes back."
    ),
    check=leftovers.checker(*PLACES, spare=_is_meant_to_stay),
    remedy=leftovers.remover(*PLACES, spare=_is_meant_to_stay),
    failing=_failing,
    passing=_passing,
    stage=LOGS,
    after="authorized-keys",
)
