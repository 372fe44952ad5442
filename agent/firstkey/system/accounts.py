"""Who has an account on the tree: its own /etc/passwd and /etc/group, then (on the running system) NSS; and
what new accounts are like.

The files come first because a directory service may be slow or dead while a machine boots, and NSS is asked
in a child process with a time limit for the same reason.
"""

from __future__ import annotations

import io
import os
import re

from firstkey import TYPE_CHECKING, reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.system import child, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
NSS_SECONDS = 5.0
"""How long NSS may take for one account; sssd answers out of its cache or in a second or two."""

DEFAULTS = ("/usr/etc/login.defs", "/etc/login.defs", "/etc/default/useradd")
"""Each before the one that overrides it; no name of login.defs(5) is one of useradd's too."""
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
NO_PASSWORD = "*"  # noqa: S105 - matches no password, and unlike "!" is no lock that sshd heeds (shadow(5))

_NUMBER = re.compile(r"[0-9]{1,10}")
_MOUNT_POINT = re.compile(r"(?m)^[ \t]*[^#\s]\S*[ \t]+(/\S*)(?!\S|.*\bnoauto\b)")
_NOBODY_AT_ALL = 2**32 - 1
"""To the kernel, -1: "leave it as it is" (chown(2), setresuid(2)). No account has it."""


class Accounts:
    """The accounts of one tree. What NSS says (or does not say in time) is remembered, the files are not."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._answers: dict[str, Any] = {}

    def find(self, name: str) -> Account | None:
        """The account of that name, or None; then `unknown` has the reason."""
        found = self.listed(name)
        if found or not self._tree.is_running_system:
            return found
        if name not in self._answers:
            self._answers[name] = nss("account", name)
        return Account(*self._answers[name]) if self._answers[name] else None

    def listed(self, name: str) -> Account | None:
        """The account of that name in passwd(5), or None. No directory service is waited for."""
        return next((account for account in self.all() if account.name == name), None)

    def unknown(self, name: str) -> FirstkeyError:
        """Why there is no such account."""
        if self._answers.get(name) is False:
            message = f"the name service did not answer within {NSS_SECONDS:g} s for {name}"
            return FirstkeyError(message, reason=reasons.TIMED_OUT)
        return FirstkeyError(f"there is no user {name}", reason=reasons.NO_SUCH_USER)

    def all(self) -> list[Account]:
        """Every account that passwd(5) lists; broken lines are passed over, as libc does."""
        return [
            Account(name, int(uid), int(gid), home, shell or "/bin/sh")
            for name, _, uid, gid, _, home, shell in self._lines("/etc/passwd", 7)
            if name and _is_id(uid) and _is_id(gid) and home.startswith("/")
        ]

    def groups(self) -> list[tuple[str, int, list[str]]]:
        """Every group that group(5) lists: its name, its number, and the names that it lists."""
        return [
            (name, int(number), members.split(","))
            for name, _, number, members in self._lines("/etc/group", 4)
            if _is_id(number)
        ]

    def group_id(self, name: str) -> int | None:
        """The number of the group of that name, or None."""
        return next((number for each, number, _ in self.groups() if each == name), None)

    def group_ids(self, account: Account) -> list[int]:
        """The account's groups as initgroups(3) would set them: the primary one and those that list it.

        Where NSS does not tell in time, the primary one alone: fewer rights than the user has, never more.
        """
        if self._tree.is_running_system and account not in self.all():
            found: list[int] = nss("groups", account.name, account.gid) or []
            return [group for group in found if _is_id(str(group))] or [account.gid]
        listed = [number for _, number, members in self.groups() if account.name in members]
        return list(dict.fromkeys([account.gid, *listed]))

    def group_names(self, account: Account) -> list[str]:
        """The names of the account's groups; one without a name has none to go by, for sshd too."""
        names = {number: name for name, number, _ in reversed(self.groups())}
        ask = self._tree.is_running_system
        found = [names.get(each) or (ask and nss("group", each)) for each in self.group_ids(account)]
        return [name for name in found if name]

    def has_group_alone(self, account: Account, group: int) -> bool:
        """Whether the account is in the group, and no other account is."""
        primary = {other.uid for other in self.all() if other.gid == group}
        lists = [members for _, number, members in self.groups() if number == group]
        members = {name for names in lists for name in names if name}
        alone = primary <= {account.uid} and members <= {account.name}
        return bool(lists) and alone and bool(primary or members)

    def may_share(self, account: Account, group: int) -> bool:
        """Whether sshd lets the group write the account's files: if lenient, and if no other is in it."""
        if not self.has_group_alone(account, group):
            return False
        found = (self._tree.read(path, limit=65536) for path in OS_RELEASE)
        return is_lenient(next(filter(None, found), b""))

    def _lines(self, path: str, width: int) -> Iterator[list[str]]:
        """The lines that libc takes: without comments and NIS's `+` and `-`; the last field may lack."""
        for line in io.BytesIO(self._tree.read(path, limit=LIMIT) or b""):
            # Lines are C strings to libc: it reads nothing behind a NUL.
            # So are the blanks before a name those of C, not those of Unicode.
            text = line.partition(b"\0")[0].rstrip(b"\n").lstrip().decode("utf-8", "surrogateescape")
            fields = text.split(":", width - 1)
            if width - 1 <= len(fields) and text[0] not in "#+-":
                yield [*fields, ""][:width]


def is_lenient(os_release: bytes) -> bool:
    """Whether the system's sshd lets a user's own group write, by os-release(5): Debian's and its kin do."""
    fields = release_fields(os_release)
    return "debian" in f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()


def release_fields(os_release: bytes) -> dict[str, str]:
    """What a file of os-release(5) says, by name."""
    lines = (line.partition("=") for line in os_release.decode("utf-8", "replace").split("\n"))
    return {name: value.strip().strip("\"'") for name, equals, value in lines if equals}


class Defaults:
    """What new accounts of a tree are like, by the names in login.defs(5) and useradd(8)."""

    def __init__(self, tree: Tree) -> None:
        self._settings: dict[str, str] = {}
        for path in DEFAULTS:
            for line in (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "replace").split("\n"):
                name, *value = line.replace("=", " ", 1).split(None, 1) or [""]
                self._settings[name] = "".join(value).strip().strip('"')

    def text(self, name: str, otherwise: str) -> str:
        """The setting; one that is empty is none."""
        return self._settings.get(name) or otherwise

    def path(self, name: str, otherwise: str) -> str:
        """A directory."""
        value = self.text(name, "").rstrip("/")
        return value if value.startswith("/") else otherwise

    def number(self, name: str, otherwise: int) -> int:
        """A number that is not negative, octal where it begins with a zero."""
        text = self.text(name, "")
        if not _NUMBER.fullmatch(text):
            return otherwise
        return int(text, 8) if re.fullmatch("0[0-7]+", text) else int(text)


def unmounted(tree: Tree, path: str) -> FirstkeyError | None:
    """Why what is written there will disappear, if it will: below a mount of fstab(5) that is yet to come."""
    if not tree.is_running_system:
        return None
    fstab = (tree.read("/etc/fstab", limit=LIMIT) or b"").decode("utf-8", "replace")
    mounted = (tree.read("/proc/self/mountinfo", limit=LIMIT) or b"").decode("utf-8", "replace")
    points = (point.rstrip("/") or "/" for point in _MOUNT_POINT.findall(fstab))
    for point in (each for each in points if f"{path}/".startswith(f"{each}/")):
        # It is mounted where its links lead. A mount itself is not touched: its server may be dead.
        if f" {point} r" not in mounted and f" {os.path.realpath(point)} r" not in mounted:
            message = f"{point} is not mounted yet, and will cover {path}"
            return FirstkeyError(message, reason=reasons.HOME_MISSING)
    return None


def nss(question: str, *values: Any) -> Any:  # noqa: ANN401 - each question has its own
    """What the name service says to one of QUESTIONS; False where it says nothing in time."""
    if command.ask_watcher:
        return command.ask_watcher("nss", question, *values)
    ask = QUESTIONS[question]
    try:
        return child.ask("the name service", lambda _: ask(*values), seconds=NSS_SECONDS)
    except FirstkeyError:
        return False


def _is_id(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and int(text) < _NOBODY_AT_ALL


def _entry(name: str) -> Account | None:
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    numbers = str(entry.pw_uid), str(entry.pw_gid)
    if not (entry.pw_dir.startswith("/") and all(map(_is_id, numbers))):
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _group(number: int) -> str | None:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return None


QUESTIONS: dict[str, Callable[..., Any]] = {"account": _entry, "group": _group, "groups": os.getgrouplist}
