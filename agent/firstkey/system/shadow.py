"""What shadow(5) says of an account's password and how long it holds: root's to read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from firstkey import NamedTuple, login_reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command
from firstkey.system.tree import Tree

PASSWD, PATH = "/etc/passwd", "/etc/shadow"
TCB = "/etc/tcb/{}/shadow"
"""Each user's own file, in ALT Linux and Openwall (tcb(5))."""
LIMIT = 16 * 1024 * 1024
DAY = 86400
ELSEWHERE = "x"
"""In passwd(5): the password is in a file of shadow(5)."""

EMPTY, USABLE, LOCKED = "empty", "usable", "locked"
_HASHES = "$_./0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DAY = re.compile("[0-9]{1,10}")


class Shadow(NamedTuple):
    """One line, and its number. Days are counted from 1970-01-01; None where the field is empty."""

    name: str
    password: str
    changed: int | None = None
    maximum: int | None = None
    expires: int | None = None
    line: int = 0

    @property
    def is_locked(self) -> bool:
        """Whether sshd takes the account for locked (with UsePAM no)."""
        return self.password.startswith("!")

    @property
    def state(self) -> str:
        """Whether one can log in with the password: empty, usable or locked."""
        if not self.password:
            return EMPTY
        # crypt(5): a hash starts with one of these; whatever else stands there (!, *) matches nothing.
        return USABLE if self.password[0] in _HASHES else LOCKED

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


def entries(content: bytes) -> Iterator[Shadow]:
    """The accounts in a file of shadow(5); of one of passwd(5), names and passwords."""
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1):
        fields = [*line.split(":"), *[""] * 9]
        if ":" in line and fields[0] and not fields[0].startswith(("#", "+", "-")):
            # Of a longer number Python may refuse to make one, and no calendar has that day.
            changed, maximum, expires = (
                int(day) if _DAY.fullmatch(day) else None for day in (fields[2], fields[4], fields[7])
            )
            yield Shadow(fields[0], fields[1], changed, maximum, expires, number)


def of(tree: Tree, name: str) -> Shadow | None:
    """The account's line, or None where it has none. Raises FirstkeyError."""
    places = [PATH] if "/" in name else [PATH, TCB.format(name)]
    for content in (*(tree.read(path, limit=LIMIT) or b"" for path in places), _from_nss(tree, name)):
        found = next((entry for entry in entries(content) if entry.name == name), None)
        if found:
            return found
    listed = entries(tree.read(PASSWD, limit=LIMIT) or b"")
    own = next((entry for entry in listed if entry.name == name), None)
    # Without such a line sshd goes by passwd(5), for which an x is no lock.
    return Shadow(name, own.password, line=own.line) if own and own.password != ELSEWHERE else None


def unknown(name: str) -> FirstkeyError:
    """That it is not known whether the account has a password."""
    message = f"{PASSWD} says that the password of {name} is elsewhere, and no file of shadow(5) has it"
    return FirstkeyError(message, reason=login_reasons.PASSWORD_ELSEWHERE)


def _from_nss(tree: Tree, name: str) -> bytes:
    """Of a directory service, asked through getent: the interpreter's own module for it is gone."""
    program = command.find("getent") if tree.is_running_system else None
    return command.run([program, "shadow", name]).stdout if program else b""
