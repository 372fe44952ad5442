"""Who has a password in the image, and locking it: what the rules about root and about the others share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import shadow
from firstkey.image.changes import Lock
from firstkey.image.verdict import Finding, Verdict, not_applicable
from firstkey.named_tuple import NamedTuple
from firstkey.text import diff

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

ELSEWHERE = "x"  # passwd(5): the password is in /etc/shadow


class Password(NamedTuple):
    """An account that one can log in to with a password, or without one."""

    file: str
    entry: shadow.Entry


def checker(wanted: Callable[[str], bool]) -> Callable[[Image], Verdict]:
    """A check that finds each wanted account with a password."""

    def check(image: Image) -> Verdict:
        if not any(image.tree.exists(path) for path in (shadow.PASSWD, shadow.SHADOW)):
            return not_applicable("there are no accounts")
        return Verdict(tuple(_finding(password) for password in _usable(image, wanted)))

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
    for file in (shadow.SHADOW, shadow.PASSWD, shadow.GSHADOW):
        # A group without a password lets in its members only (gshadow(5)).
        harmless = (shadow.LOCKED, shadow.EMPTY) if file == shadow.GSHADOW else (shadow.LOCKED,)
        for entry in shadow.entries(image.read(file) or b""):
            if wanted(entry.name) and entry.state not in harmless and entry.field != ELSEWHERE:
                yield Password(file, entry)


def _finding(password: Password) -> Finding:
    name = password.entry.name
    if password.file == shadow.GSHADOW:
        reason = f"The group {name} has a password."
        return Finding(password.file, reason, f"gpasswd -R {name}", password.entry.line)
    what = "an empty password" if password.entry.state == shadow.EMPTY else "a password"
    return Finding(password.file, f"{name} has {what}.", f"passwd -l {name}", password.entry.line)
