"""Beyond the guide: no logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import LOGS, Rule
from firstkey.image.verdict import WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.leftovers import Survey
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

DIRECTORY = "/var/log"
JOURNAL = f"{DIRECTORY}/journal"
PLACE = Place(DIRECTORY, "a log")
OTHERS = re.compile(
    DIRECTORY + r"/(?:wtmp|btmp|lastlog|faillog|tallylog|cloud-init"
    r"|sudo-io/|account/|faillock/|anaconda/|installer/|dump/|session-recording/)"
)
"""What other rules claim."""
ROTATED = re.compile(r".*(?:\.\d+|\.old|-\d{8})?\.(?:gz|xz|bz2|zst|old|\d+)|.*-\d{8}|.*\.journal~?")


def check(image: Image) -> Verdict:
    """One finding for each file with something in it."""
    seen = leftovers.survey(image, (PLACE,))
    return Verdict(tuple(_finding(path) for path in _logs(seen)), seen.doubts)


def _logs(seen: Survey) -> Iterator[str]:
    return (spot.path for spot in seen.spots if not OTHERS.match(spot.name))


def _finding(path: str) -> Finding:
    command = "rm --" if ROTATED.fullmatch(path) else "truncate -s 0"
    return Finding(
        path, "This is a log: it tells what was done on the builder.", f"{command} {changes.quoted(path)}"
    )


def remedy(image: Image) -> list[Change]:
    """Old ones go; those that are written to are emptied, and keep the owner that lets a service write."""
    return [_change(image, path) for path in _logs(leftovers.survey(image, (PLACE,)))]


def _change(image: Image, path: str) -> Change:
    if ROTATED.fullmatch(path):
        return changes.Remove(path, "a log", links=image.links_to(path))
    return changes.Empty(path, "a log")


def _failing(tree: Builder) -> None:
    tree.file("/var/log/auth.log", "sshd: Accepted publickey for root from 203.0.113.7\n", mode=0o640)
    tree.file("/var/log/syslog.2.gz", b"\x1f\x8b\x08")
    tree.file("/var/log/journal/0123456789abcdef0123456789abcdef/system.journal", b"LPKSHHRH")


def _passing(tree: Builder) -> None:
    tree.file("/var/log/auth.log", "", mode=0o640)


RULE = Rule(
    id="logs",
    title="There are no logs",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Logs and the journal tell who built the image, from where and how, and now and then a password "
        "that was typed in the wrong place. seal removes journals and old logs, and empties those that "
        "services write to, near its end: on the running system, a service may write again until it is "
        "stopped."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    stage=LOGS,
)
