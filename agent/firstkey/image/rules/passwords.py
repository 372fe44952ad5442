"""G3: no account has a password, in the files of accounts or in what was kept of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from firstkey.display import diff
from firstkey.image import places, secrets, shadow
from firstkey.image.changes import Lock, Write
from firstkey.image.places import Place
from firstkey.image.rule import Rule
from firstkey.image.scan import Needle
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, Finding, Part, Unknown, not_applicable, not_looked_at
from firstkey.system.shadow import ELSEWHERE, EMPTY, LOCKED, PASSWD, TCB, Shadow, entries, unknown

# --- passwords ------------------------------------------------------------------------------------


def _check_passwords(image: Image, *, of_root: bool) -> Iterator[Part]:
    """Find the accounts with a password, or with an empty one, to be locked: root, or all others."""
    shadows = [shadow.SHADOW, *image.glob(TCB.format("*"))]
    if not any(image.tree.exists(path) for path in (PASSWD, shadow.SHADOW)):
        why = f"there is no {PASSWD}: this is not the root of a system (ostree: see its deployments)"
        yield not_looked_at(PASSWD, why)
        return
    known = set()
    for file in (*shadows, PASSWD, *shadow.GROUPS):
        for entry in entries(image.read(file) or b""):
            if (entry.name == "root") is not of_root:
                continue
            if file in shadows:
                known.add(entry.name)
            # A group without a password lets in its members only (gshadow(5)).
            harmless = (LOCKED, EMPTY) if file in shadow.GROUPS else (LOCKED,)
            if entry.state not in harmless and entry.password != ELSEWHERE:
                yield _finding(image, file, entry)
            elif file == PASSWD and entry.password == ELSEWHERE and entry.name not in known:
                yield Unknown(PASSWD, unknown(entry.name).refusal)


def _finding(image: Image, file: str, entry: Shadow) -> Finding:
    name, before = entry.name, image.read(file) or b""
    # Without PAM, sshd takes ! for a locked account and lets its keys in no more (sshd(8)); * only locks.
    mark = shadow.LOCK if image.sshd.uses_pam else shadow.NO_LOGIN
    masked = diff(file, shadow.masked(before), shadow.masked(shadow.locked(before, name, mark)))
    lock = Lock(file, name, mark, masked)
    whom = f"The group {name}" if file in shadow.GROUPS else name
    what = "an empty password" if entry.state == EMPTY else "a password"
    return Finding(file, f"{whom} has {what}.", line=entry.line, changes=(lock,))


# --- whether the files are sound ------------------------------------------------------------------


def _check_files(image: Image) -> Iterator[Part]:
    if not image.tree.exists(PASSWD):
        yield not_applicable("there are no accounts")
        return
    for path in shadow.FIELDS:
        for number, what in shadow.broken(path, image.read(path) or b""):
            reason = f"Line {number} {what}; programs pass over it or misread it."
            yield Finding(path, reason, "Correct the line, or remove it", number)
    numbers = {entry.name: entry.line for entry in entries(image.read(PASSWD) or b"")}
    for account in image.accounts.all():
        if account.uid == 0 and account.name != "root":
            reason = f"{account.name} has root's rights (its number is 0)."
            words = "Remove the account, or give it a number of its own"
            yield Finding(PASSWD, reason, words, numbers.get(account.name))


# --- backups --------------------------------------------------------------------------------------

SHADOW_COPY = "shadow-copy"
_BACKUP = "a backup of a file of accounts"
FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
# Debian's daily copies, rotated and compressed perhaps; not whatever else begins like one of them.
DAILY = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~]|\.bak)?(?:\.\d+)?(?:\.(?:gz|bz2|xz|zst))?")
BESIDE = re.compile(rf"(?:{'|'.join(FILES)})(?:[-~+]|\..+)")

BACKUPS = (
    Place(f"/etc/{{{','.join(FILES)}}}[-~+.]*", _BACKUP, named=BESIDE),
    Place("/var/backups/*", _BACKUP, named=DAILY),
    Place("/etc/security/opasswd{,.old}", "a list of earlier passwords"),
    # A person's tool, and more than a copy: only reported.
    Place("/etc/.{git,hg,bzr}", "a history of /etc, shadow of before included", whole=True, kept=True),
)
# A line of shadow(5) or passwd(5): the name, a hash as crypt(5) has it, locked or not, and a number.
HASH = re.compile(rb"(?<=[\w.$-]):!?\$[a-z\d]{1,9}(?:,rounds=\d{1,9})?\$[\w./$,=+-]{24,}:\d*:")


def judge(content: bytes, place: int) -> str | None:
    """Judge `:$`: the start of a password's hash in a line of shadow(5)."""
    return "a hashed password, as shadow has it," if HASH.match(content, place) else None


def _check_copies(image: Image) -> Iterator[Part]:
    """Lines of shadow's in any other file than those of accounts and the backups of them."""
    claimed = {*shadow.FIELDS, *(match.path for match in places.survey(image, BACKUPS).matches)}
    verdict = secrets.verdict(image, image.sightings(SHADOW_COPY), None, claimed=claimed)
    yield verdict._replace(findings=tuple(found._replace(severity=ERROR) for found in verdict.findings))


# --- debconf --------------------------------------------------------------------------------------

DEBCONF = "/var/cache/debconf/passwords.dat"
VALUE = re.compile(rb"^Value:[ \t]*\S.*\n?", re.MULTILINE)


def _check_debconf(image: Image) -> Iterator[Part]:
    """Look for a value in the database of passwords; seal takes it out, and leaves what was asked."""
    content = image.read(DEBCONF)
    match = VALUE.search(content or b"")
    if content is None:
        yield not_applicable("debconf has no database of passwords")
    elif match:
        line = content.count(b"\n", 0, match.start()) + 1
        reason = "debconf keeps a password here that was entered when a package was installed."
        after = VALUE.sub(b"", content)
        masked = (VALUE.sub(b"Value: (password)\n", content), after)
        write = Write(DEBCONF, "forget passwords", content, after, 0o600, masked)
        yield Finding(DEBCONF, reason, line=line, changes=(write,))


RULES = (
    Rule(
        id="root-password",
        title="Root's password is locked",
        guideline="G3",
        severity=ERROR,
        prose="""A person who knows a password of an image has it on every instance, at the console and for
        su. Root's field in /etc/shadow, or in /etc/tcb/root/shadow, must start with ! or *. The verdict is
        unknown where neither file has the password that passwd names, and without any accounts, as in a
        commit of ostree, whose /etc is in /usr/etc. seal locks the password so that passwd -u root restores
        it; sudo is not affected. Where sshd works without PAM, ! would keep root's keys out too, and seal
        writes * instead.""",
        check=partial(_check_passwords, of_root=True),
        failing={shadow.SHADOW: "root:$6$salt$hash:19000:0:99999:7:::\n"},
        passing={shadow.SHADOW: "root:!$6$salt$hash:19000:0:99999:7:::\n"},
    ),
    Rule(
        id="other-passwords",
        title="No other account has a password, or an empty one",
        guideline="G3",
        severity=ERROR,
        prose="""A password of any account is as public as the image, and an empty one lets everyone in. Every
        field in /etc/shadow and /etc/gshadow (and in /etc/passwd, where old systems keep them) must start
        with ! or *, or be x where a shadow file has the real one. seal locks each of them; passwd -u NAME
        restores one.""",
        check=partial(_check_passwords, of_root=False),
        failing={
            shadow.GSHADOW: "wheel:$6$salt$hash::ann\nusers:::ann\n",
            shadow.GROUP: "staff:$6$salt$hash:50:ann\nusers:x:100:ann\n",
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
        prose="""A line of passwd, shadow, group or gshadow with a field too many or too few is skipped by
        some programs and misread by others, so the findings about accounts may be incomplete. A second
        account with root's number is a second root. Only a person knows which line is right.""",
        check=_check_files,
        by_hand=True,
        failing={PASSWD: "root:x:0:0::/root:/bin/sh\nbroken:x:1\ntoor:x:0:0::/root:/bin/sh\n"},
        passing={PASSWD: "root:x:0:0::/root:/bin/sh\n"},
    ),
    Rule(
        id="account-backups",
        title="There are no backups of passwd and shadow",
        prose="""A password that is locked now is still unlocked in the former files that programs keep, and
        removed accounts are named there. seal removes the copies of shadow's own tools, of Debian's daily
        backup, and those that people and package managers leave beside the files. A hashed password in a line
        like shadow's is an error in any text file that no package brought, compressed ones included; such a
        file has other content too, as has a repository in /etc (etckeeper's): both are only reported.""",
        places=BACKUPS,
        check=_check_copies,
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
        prose="""debconf keeps the passwords that packages of Debian and Ubuntu ask for in a database of its
        own, until the package removes them. seal removes the answers, and leaves the questions.""",
        check=_check_debconf,
        failing={DEBCONF: "Name: db/password\nTemplate: db/password\nValue: secret\nOwners: db\n\n"},
        passing={DEBCONF: "Name: db/password\nTemplate: db/password\nValue:\nOwners: db\n\n"},
    ),
)
