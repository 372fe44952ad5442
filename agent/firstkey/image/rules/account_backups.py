"""Beyond the guide: no backups of the files of accounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import leftovers, secrets, shadow
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, WARNING, Verdict
from firstkey.image.watches import Needle

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

KIND = "shadow-copy"
WHAT = "a backup of a file of accounts"
FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
# Debian's daily copies, rotated and compressed perhaps; not whatever else begins like one of them.
DAILY = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~]|\.bak)?(?:\.\d+)?(?:\.(?:gz|bz2|xz|zst))?")
BESIDE = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~+]|\..+)")

PLACES = (
    *(Place(f"/etc/{file}[-~+.]*", WHAT, named=BESIDE) for file in FILES),
    Place("/var/backups/*", WHAT, named=DAILY),
    Place("/etc/security/opasswd", "a list of earlier passwords"),
    Place("/etc/security/opasswd.old", "a list of earlier passwords"),
)
# A person's tool, and more than a copy: only reported.
KEPT = tuple(
    Place(f"/etc/{name}", "a history of /etc, shadow of before included", whole=True)
    for name in (".git", ".hg", ".bzr")
)
# A line of shadow(5) or passwd(5): the name, a hash as crypt(5) has it, locked or not, and a number.
HASH = re.compile(rb"(?<=[\w.$-]):!?\$(?:y|gy|7|6|5|1|md5|sha1|2[abxy])\$[\w./$,=+-]{24,}:\d*:")


def judge(content: bytes, place: int) -> str | None:
    """Judge `:$`: the start of a password's hash in a line of shadow(5)."""
    return "a hashed password, as shadow has it," if HASH.match(content, place) else None


def check(image: Image) -> Verdict:
    """What is at these places, and lines of shadow's in any other file."""
    known = leftovers.checker(*PLACES, *KEPT)(image)
    claimed = {*shadow.FIELDS, *(found.path for found in known.findings)}
    copies = secrets.verdict(secrets.sorted_out(image, image.sightings(KIND), claimed=claimed))
    elsewhere = tuple(found._replace(severity=ERROR) for found in copies.findings)
    return Verdict((*known.findings, *elsewhere), (*known.doubts, *copies.doubts), remark=copies.remark)


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
        "Programs that change accounts keep the files of before: a password that is locked now stands there "
        "unlocked, and accounts that are gone are named. Checked are the copies of shadow's own tools, of "
        "Debian's daily backup, and those that people and package managers leave beside the files; seal "
        "removes them. A hashed password in a line like shadow's is looked for in every text file that no "
        "package brought, in compressed ones too, and is an error; it is only reported, as is a repository "
        "in /etc (etckeeper's), since such a file has other things in it."
    ),
    check=check,
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
    watches=(Needle(KIND, b":$", judge), Needle(KIND, b":!$", judge)),
)
