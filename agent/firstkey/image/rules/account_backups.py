"""Beyond the guide: no backups of the files of accounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

WHAT = "a backup of a file of accounts"
FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
# Debian's daily copies, rotated and compressed perhaps; not whatever else begins like one of them.
DAILY = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~]|\.bak)?(?:\.\d+)?(?:\.(?:gz|bz2|xz|zst))?")
BESIDE = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~]|\..+)")

PLACES = (
    *(Place(f"/etc/{file}[-~.]*", WHAT, named=BESIDE) for file in FILES),
    Place("/var/backups/*", WHAT, named=DAILY),
    Place("/etc/security/opasswd", "a list of earlier passwords"),
    Place("/etc/security/opasswd.old", "a list of earlier passwords"),
)


def _failing(tree: Builder) -> None:
    tree.file("/etc/shadow-", "root:$6$salt$hash:19000:0:99999:7:::\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/shadow", "root:*:19000:0:99999:7:::\n", mode=0o640)
    tree.file("/var/backups/groupware.tar", "mine")


RULE = Rule(
    id="account-backups",
    title="There are no backups of passwd and shadow",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Programs that change accounts keep the files of before: a password that is locked now stands "
        "there unlocked, and accounts that are gone are named. Checked are the copies of shadow's own "
        "tools, of Debian's daily backup, and those that people and package managers leave beside the "
        "files. seal removes them."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
