"""Who has a password in the image, and locking it: what the rules about root and about the others share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons
from firstkey.display import diff
from firstkey.image import shadow
from firstkey.image.changes import Lock
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.reasons import Refusal
from firstkey.system.shadow import ELSEWHERE, EMPTY, LOCKED, PASSWD, TCB, Shadow, entries, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change
    from firstkey.image.subject import Image


class Password(NamedTuple):
    """An account that one can log in to with a password, or without one."""

    file: str
    entry: Shadow


def checker(wanted: Callable[[str], bool]) -> Callable[[Image], Verdict]:
    """A check that finds each wanted account with a password."""

    def check(image: Image) -> Verdict:
        if not any(image.tree.exists(path) for path in (PASSWD, shadow.SHADOW)):
            detail = f"there is no {PASSWD}: this is not the root of a system (ostree: see its deployments)"
            return Verdict(doubts=(Doubt(PASSWD, Refusal(image_reasons.NOT_LOOKED_AT, detail)),))
        findings = tuple(_finding(password) for password in _usable(image, wanted))
        return Verdict(findings, tuple(_unknown(image, wanted)))

    return check


def locker(wanted: Callable[[str], bool]) -> Callable[[Image], list[Change]]:
    """The remedy that goes with it."""

    def remedy(image: Image) -> list[Change]:
        found = list(_usable(image, wanted))
        return [_lock(image, password) for password in found]

    return remedy


def _lock(image: Image, password: Password) -> Lock:
    name, before, mark = password.entry.name, image.read(password.file) or b"", _mark(image)
    after = shadow.locked(before, name, mark)
    return Lock(password.file, name, mark, diff(password.file, shadow.masked(before), shadow.masked(after)))


def _mark(image: Image) -> str:
    """Without PAM, sshd takes ! for a locked account and lets its keys in no more (sshd(8)); * only locks."""
    return shadow.LOCK if image.sshd.uses_pam else shadow.NO_LOGIN


def _usable(image: Image, wanted: Callable[[str], bool]) -> Iterator[Password]:
    for file in (*_shadows(image), PASSWD, shadow.GSHADOW):
        # A group without a password lets in its members only (gshadow(5)).
        harmless = (LOCKED, EMPTY) if file == shadow.GSHADOW else (LOCKED,)
        for entry in entries(image.read(file) or b""):
            if wanted(entry.name) and entry.state not in harmless and entry.password != ELSEWHERE:
                yield Password(file, entry)


def _shadows(image: Image) -> list[str]:
    return [shadow.SHADOW, *image.glob(TCB.format("*"))]


def _unknown(image: Image, wanted: Callable[[str], bool]) -> Iterator[Doubt]:
    """Accounts whose password is said to be where no file has it."""
    known = {entry.name for file in _shadows(image) for entry in entries(image.read(file) or b"")}
    told = (entry.name for entry in entries(image.read(PASSWD) or b"") if entry.password == ELSEWHERE)
    for name in dict.fromkeys(told):
        if wanted(name) and name not in known:
            yield Doubt(PASSWD, unknown(name).refusal)


def _finding(password: Password) -> Finding:
    name = password.entry.name
    if password.file == shadow.GSHADOW:
        reason = f"The group {name} has a password."
        return Finding(password.file, reason, f"gpasswd -R {name}", password.entry.line)
    what = "an empty password" if password.entry.state == EMPTY else "a password"
    return Finding(password.file, f"{name} has {what}.", f"passwd -l {name}", password.entry.line)
