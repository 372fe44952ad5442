"""Beyond the guide: debconf keeps no passwords."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image.changes import Write
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Finding, Verdict, not_applicable

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

FILE = "/var/cache/debconf/passwords.dat"
VALUE = re.compile(rb"^Value:[ \t]*\S.*\n?", re.MULTILINE)
MODE = 0o600


def check(image: Image) -> Verdict:
    """Look for a value in the database of passwords."""
    content = image.read(FILE)
    if content is None:
        return not_applicable("debconf has no database of passwords")
    match = VALUE.search(content)
    if match is None:
        return Verdict()
    line = content.count(b"\n", 0, match.start()) + 1
    reason = "debconf keeps a password here that somebody gave it when a package was installed."
    return Verdict((Finding(FILE, reason, f"sed -i '/^Value:/d' {FILE}", line),))


def remedy(image: Image) -> list[Change]:
    """Take the values out, and leave what was asked."""
    content = image.read(FILE) or b""
    after = VALUE.sub(b"", content)
    if after == content:
        return []
    masked = (VALUE.sub(b"Value: (password)\n", content), after)
    return [Write(FILE, "forget passwords", content, after, MODE, masked)]


def _failing(tree: Builder) -> None:
    tree.file(FILE, "Name: db/password\nTemplate: db/password\nValue: secret\nOwners: db\n\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file(FILE, "Name: db/password\nTemplate: db/password\nValue:\nOwners: db\n\n", mode=0o600)


RULE = Rule(
    id="debconf-passwords",
    title="debconf has kept no passwords",
    guideline="beyond",
    severity=ERROR,
    prose=(
        "Packages of Debian and Ubuntu ask for passwords through debconf, which keeps the answers in a "
        "database of its own until the package takes them out. seal removes the answers, and leaves the "
        "questions."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
