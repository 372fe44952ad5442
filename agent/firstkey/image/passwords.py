"""Who has a password in the image, and locking it: what the rules about root and about the others share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from firstkey.image import shadow
from firstkey.image.changes import Write
from firstkey.image.verdict import Finding, Verdict, not_applicable

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
        return [Lock(password.file, password.entry.name) for password in found]

    return remedy


class Lock(NamedTuple):
    """Lock one account's password."""

    path: str
    name: str

    def describe(self) -> str:
        """As passwd(1) would be told."""
        return f"lock the password of {self.name} in {self.path} (passwd -u {self.name} undoes it)"

    def apply(self, image: Image) -> str:
        """Rewrite the one line; everything else stays byte for byte."""
        before = image.read(self.path) or b""
        mark = shadow.LOCK if image.sshd.uses_pam else shadow.NO_LOGIN
        after = shadow.locked(before, self.name, mark)
        return Write(self.path, "lock", before, after, 0o640).apply(image) and f"locked with {mark}"


def _usable(image: Image, wanted: Callable[[str], bool]) -> Iterator[Password]:
    for file in (shadow.SHADOW, shadow.PASSWD):
        for entry in shadow.entries(image.read(file) or b""):
            if wanted(entry.name) and entry.state != shadow.LOCKED and entry.field != ELSEWHERE:
                yield Password(file, entry)


def _finding(password: Password) -> Finding:
    name = password.entry.name
    what = "an empty password" if password.entry.state == shadow.EMPTY else "a password"
    return Finding(password.file, f"{name} has {what}.", f"passwd -l {name}", password.entry.line)
