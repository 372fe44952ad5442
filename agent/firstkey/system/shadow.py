"""What shadow(5) says of an account's password and how long it holds: root's to read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.named_tuple import NamedTuple
from firstkey.system import command

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

PATH = "/etc/shadow"
LIMIT = 16 * 1024 * 1024
DAY = 86400


class Shadow(NamedTuple):
    """One line. Days are counted from 1970-01-01; None where the field is empty."""

    password: str
    changed: int | None
    maximum: int | None
    inactive: int | None
    expires: int | None

    @property
    def is_locked(self) -> bool:
        """Whether sshd takes the account for locked (with UsePAM no)."""
        return self.password.startswith("!")

    def has_expired(self, now: float) -> bool:
        """Whether the account is over (shadow(5): from that day on; sshd and PAM differ by that one day)."""
        return self.expires is not None and now // DAY >= self.expires

    def wants_new_password(self, now: float) -> bool:
        """Whether a new password is demanded before anything else (pam_unix(8))."""
        if self.changed == 0:
            return True
        if self.changed is None or self.maximum is None:
            return False
        return now // DAY > self.changed + self.maximum


def of(tree: Tree, name: str) -> Shadow | None:
    """The account's line, or None where there is none. Raises FirstkeyError(permission-denied) for others."""
    text = (tree.read(PATH, limit=LIMIT) or b"").decode("utf-8", "surrogateescape")
    lines = [*text.split("\n"), *_from_nss(tree, name)]
    return next((_parsed(line) for line in lines if line.split(":")[0] == name), None)


def _from_nss(tree: Tree, name: str) -> list[str]:
    """Of a directory service, asked through getent: the interpreter's own module for it is gone."""
    program = command.find("getent") if tree.is_running_system else None
    if program is None:
        return []
    return command.run([program, "shadow", name]).stdout.decode("utf-8", "surrogateescape").split("\n")


def _parsed(line: str) -> Shadow:
    fields = [*line.split(":"), *[""] * 9]
    return Shadow(fields[1], _day(fields[2]), _day(fields[4]), _day(fields[6]), _day(fields[7]))


_DAY = re.compile("[0-9]{1,10}")


def _day(text: str) -> int | None:
    # Of a longer number Python may refuse to make one, and no calendar has that day.
    return int(text) if _DAY.fullmatch(text) else None
