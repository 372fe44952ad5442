"""Beyond the guide: the files of accounts are sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import shadow
from firstkey.image.rule import Rule, by_hand
from firstkey.image.verdict import WARNING, Finding, Verdict, not_applicable
from firstkey.system.shadow import PASSWD

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """Look at each line."""
    if not image.tree.exists(PASSWD):
        return not_applicable("there are no accounts")
    return Verdict((*_broken(image), *_other_roots(image)))


def _broken(image: Image) -> Iterator[Finding]:
    for path in shadow.FIELDS:
        for number, what in shadow.broken(path, image.read(path) or b""):
            reason = f"Line {number} {what}; programs pass over it or misread it."
            yield Finding(path, reason, f"Mend it: {'vigr' if 'g' in path else 'vipw'}, pwck, grpck", number)


def _other_roots(image: Image) -> Iterator[Finding]:
    for account in image.accounts.all():
        if account.uid == 0 and account.name != "root":
            reason = f"{account.name} has root's rights (its number is 0)."
            yield Finding(PASSWD, reason, f"userdel {account.name}, if nobody needs it")


def _failing(tree: Builder) -> None:
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nbroken:x:1\ntoor:x:0:0::/root:/bin/sh\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")


RULE = Rule(
    id="account-files",
    title="The files of accounts are sound",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "A line of passwd, shadow, group or gshadow with a field too many or too few is passed over by "
        "some programs and misread by others, so what is said of the accounts may not be all. A second "
        "account with root's number is a second root. Neither is repaired by seal: only a person knows what "
        "was meant."
    ),
    check=check,
    remedy=by_hand,
    failing=_failing,
    passing=_passing,
)
