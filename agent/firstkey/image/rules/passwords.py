"""G3: nobody has a password, in the files of accounts or in what was kept of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.display import diff
from firstkey.image import places, secrets, shadow
from firstkey.image.changes import Lock, Write
from firstkey.image.places import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Doubt, Finding, Verdict, not_applicable
from firstkey.image.watches import Needle
from firstkey.reasons import Refusal
from firstkey.system.shadow import ELSEWHERE, EMPTY, LOCKED, PASSWD, TCB, Shadow, entries, unknown

if TYPE_CHECKING:
    from firstkey.image.subject import Image

# --- passwords ------------------------------------------------------------------------------------


def checker(wanted: Callable[[str], bool]) -> Callable[[Image], Verdict]:
    """A check that finds each wanted account with a password, or with an empty one, to be locked."""

    def check(image: Image) -> Verdict:
        shadows = [shadow.SHADOW, *image.glob(TCB.format("*"))]
        if not any(image.tree.exists(path) for path in (PASSWD, shadow.SHADOW)):
            detail = f"there is no {PASSWD}: this is not the root of a system (ostree: see its deployments)"
            return Verdict(doubts=(Doubt(PASSWD, Refusal(image_reasons.NOT_LOOKED_AT, detail)),))
        findings = (
            _finding(image, file, entry)
            for file in (*shadows, PASSWD, shadow.GSHADOW)
            for entry in entries(image.read(file) or b"")
            if wanted(entry.name) and _is_usable(file, entry)
        )
        return Verdict(tuple(findings), tuple(_unknown(image, shadows, wanted)))

    return check


def _is_usable(file: str, entry: Shadow) -> bool:
    # A group without a password lets in its members only (gshadow(5)).
    harmless = (LOCKED, EMPTY) if file == shadow.GSHADOW else (LOCKED,)
    return entry.state not in harmless and entry.password != ELSEWHERE


def _unknown(image: Image, shadows: list[str], wanted: Callable[[str], bool]) -> Iterator[Doubt]:
    """Accounts whose password is said to be where no file has it."""
    known = {entry.name for file in shadows for entry in entries(image.read(file) or b"")}
    told = (entry.name for entry in entries(image.read(PASSWD) or b"") if entry.password == ELSEWHERE)
    for name in dict.fromkeys(told):
        if wanted(name) and name not in known:
            yield Doubt(PASSWD, unknown(name).refusal)


def _finding(image: Image, file: str, entry: Shadow) -> Finding:
    name, before = entry.name, image.read(file) or b""
    # Without PAM, sshd takes ! for a locked account and lets its keys in no more (sshd(8)); * only locks.
    mark = shadow.LOCK if image.sshd.uses_pam else shadow.NO_LOGIN
    masked = diff(file, shadow.masked(before), shadow.masked(shadow.locked(before, name, mark)))
    lock = Lock(file, name, mark, masked)
    if file == shadow.GSHADOW:
        reason = f"The group {name} has a password."
        return Finding(file, reason, line=entry.line, changes=(lock,))
    what = "an empty password" if entry.state == EMPTY else "a password"
    return Finding(file, f"{name} has {what}.", line=entry.line, changes=(lock,))


# --- whether the files are sound ------------------------------------------------------------------


def check_files(image: Image) -> Verdict:
    """Look at each line."""
    if not image.tree.exists(PASSWD):
        return not_applicable("there are no accounts")
    findings = []
    for path in shadow.FIELDS:
        for number, what in shadow.broken(path, image.read(path) or b""):
            reason = f"Line {number} {what}; programs pass over it or misread it."
            findings.append(Finding(path, reason, "Correct the line, or remove it", number))
    lines = (image.read(PASSWD) or b"").decode("utf-8", "surrogateescape").split("\n")
    numbers = {line.partition(":")[0]: number for number, line in enumerate(lines, 1)}
    words = "Remove the account, or give it a number of its own"
    for account in image.accounts.all():
        if account.uid == 0 and account.name != "root":
            reason = f"{account.name} has root's rights (its number is 0)."
            findings.append(Finding(PASSWD, reason, words, numbers.get(account.name)))
    return Verdict(tuple(findings))


# --- backups --------------------------------------------------------------------------------------

SHADOW_COPY = "shadow-copy"
_BACKUP = "a backup of a file of accounts"
FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
# Debian's daily copies, rotated and compressed perhaps; not whatever else begins like one of them.
DAILY = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~]|\.bak)?(?:\.\d+)?(?:\.(?:gz|bz2|xz|zst))?")
BESIDE = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~+]|\..+)")

BACKUPS = (
    *(Place(f"/etc/{file}[-~+.]*", _BACKUP, named=BESIDE) for file in FILES),
    Place("/var/backups/*", _BACKUP, named=DAILY),
    *places.places("a list of earlier passwords", "/etc/security/opasswd{,.old}"),
    # A person's tool, and more than a copy: only reported.
    *places.places(
        "a history of /etc, shadow of before included", "/etc/.{git,hg,bzr}", whole=True, kept=True
    ),
)
# A line of shadow(5) or passwd(5): the name, a hash as crypt(5) has it, locked or not, and a number.
HASH = re.compile(rb"(?<=[\w.$-]):!?\$(?:y|gy|7|6|5|1|md5|sha1|2[abxy])\$[\w./$,=+-]{24,}:\d*:")


def judge(content: bytes, place: int) -> str | None:
    """Judge `:$`: the start of a password's hash in a line of shadow(5)."""
    return "a hashed password, as shadow has it," if HASH.match(content, place) else None


def check_copies(image: Image) -> Verdict:
    """Lines of shadow's in any other file than those of accounts and the backups of them."""
    claimed = {*shadow.FIELDS, *(match.path for match in places.survey(image, BACKUPS).matches)}
    copies = secrets.sorted_out(image, image.sightings(SHADOW_COPY), claimed=claimed)
    verdict = secrets.verdict(image, copies, None)
    return verdict._replace(findings=tuple(found._replace(severity=ERROR) for found in verdict.findings))


# --- debconf --------------------------------------------------------------------------------------

DEBCONF = "/var/cache/debconf/passwords.dat"
VALUE = re.compile(rb"^Value:[ \t]*\S.*\n?", re.MULTILINE)


def check_debconf(image: Image) -> Verdict:
    """Look for a value in the database of passwords; seal takes it out, and leaves what was asked."""
    content = image.read(DEBCONF)
    if content is None:
        return not_applicable("debconf has no database of passwords")
    match = VALUE.search(content)
    if match is None:
        return Verdict()
    line = content.count(b"\n", 0, match.start()) + 1
    reason = "debconf keeps a password here that was entered when a package was installed."
    after = VALUE.sub(b"", content)
    masked = (VALUE.sub(b"Value: (password)\n", content), after)
    write = Write(DEBCONF, "forget passwords", content, after, 0o600, masked)
    return Verdict((Finding(DEBCONF, reason, line=line, changes=(write,)),))


RULES = (
    Rule(
        id="root-password",
        title="Root's password is locked",
        guideline="G3",
        severity=ERROR,
        prose=(
            "A person who knows a password of an image has it on every instance, at the console and "
            "for su. Root's field in /etc/shadow, or in /etc/tcb/root/shadow, must start with ! or *; "
            "where passwd says that there is a password and neither file has it, the verdict is "
            "unknown. It is also unknown without any accounts, as in a commit of ostree, whose /etc "
            "is in /usr/etc. seal locks the password as passwd -l does, so that passwd -u root "
            "restores it; sudo is not affected. Where sshd works without PAM, ! would keep root's "
            "keys out too, and seal writes * instead."
        ),
        check=checker(lambda name: name == "root"),
        failing={shadow.SHADOW: "root:$6$salt$hash:19000:0:99999:7:::\n"},
        passing={shadow.SHADOW: "root:!$6$salt$hash:19000:0:99999:7:::\n"},
    ),
    Rule(
        id="other-passwords",
        title="No other account has a password, or an empty one",
        guideline="G3",
        severity=ERROR,
        prose=(
            "A password of any account is as public as the image, and an empty password lets everyone "
            "in. Every field in /etc/shadow (and in /etc/passwd, where old systems keep them) must "
            "start with ! or *, or be x where a shadow file has the real one; a group's password "
            "counts too. seal locks each of them; passwd -u NAME restores one."
        ),
        check=checker(lambda name: name != "root"),
        failing={
            shadow.GSHADOW: "wheel:$6$salt$hash::ann\nusers:::ann\n",
            shadow.SHADOW: "admin::19000:0:99999:7:::\nann:$6$salt$hash:19000::::::\n",
        },
        passing={
            shadow.GSHADOW: "wheel:!::ann\nusers:::ann\n",
            shadow.SHADOW: "admin:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
        },
    ),
    Rule(
        id="account-files",
        title="The files of accounts are sound",
        prose=(
            "A line of passwd, shadow, group or gshadow with a field too many or too few is skipped "
            "by some programs and misread by others, so the findings about accounts may be "
            "incomplete. A second account with root's number is a second root. seal repairs neither: "
            "only a person knows which line is right."
        ),
        check=check_files,
        by_hand=True,
        failing={PASSWD: "root:x:0:0::/root:/bin/sh\nbroken:x:1\ntoor:x:0:0::/root:/bin/sh\n"},
        passing={PASSWD: "root:x:0:0::/root:/bin/sh\n"},
    ),
    Rule(
        id="account-backups",
        title="There are no backups of passwd and shadow",
        prose=(
            "Programs that change accounts keep the former files: a password that is locked now is "
            "still unlocked there, and removed accounts are named. The rule checks the copies of "
            "shadow's own tools, of Debian's daily backup, and those that people and package managers "
            "leave beside the files; seal removes them. A hashed password in a line like shadow's is "
            "searched for in every text file that no package brought, in compressed ones too, and is "
            "an error; it is only reported, as is a repository in /etc (etckeeper's), since such a "
            "file has other content too."
        ),
        places=BACKUPS,
        check=check_copies,
        failing={f"{shadow.SHADOW}-": "root:$6$salt$hash:19000:0:99999:7:::\n"},
        passing={
            shadow.SHADOW: "root:*:19000:0:99999:7:::\n",
            "/var/backups/groupware.tar": "mine",
        },
        watches=(Needle(SHADOW_COPY, b":$", judge), Needle(SHADOW_COPY, b":!$", judge)),
    ),
    Rule(
        id="debconf-passwords",
        title="debconf has no passwords",
        severity=ERROR,
        prose=(
            "Packages of Debian and Ubuntu ask for passwords through debconf, which keeps the answers "
            "in a database of its own until the package removes them. seal removes the answers, and "
            "leaves the questions."
        ),
        check=check_debconf,
        failing={DEBCONF: "Name: db/password\nTemplate: db/password\nValue: secret\nOwners: db\n\n"},
        passing={DEBCONF: "Name: db/password\nTemplate: db/password\nValue:\nOwners: db\n\n"},
    ),
)
