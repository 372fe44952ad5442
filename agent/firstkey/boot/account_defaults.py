"""What new accounts are like by the tree's own /etc/login.defs and /etc/default/useradd."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.system.tree import Tree

LIMIT = 65536
LOGIN_DEFS = ("/etc/login.defs", "/usr/etc/login.defs")
"""Of two the first one: a distribution's own may lie under /usr (login.defs(5) of openSUSE)."""
USERADD = "/etc/default/useradd"


class Defaults:
    """The settings; those that are nowhere are what useradd(8) and login.defs(5) say of their absence."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        files = (tree.read(path, limit=LIMIT) for path in LOGIN_DEFS)
        self._login = dict(_settings(next((file for file in files if file is not None), b"")))
        self._useradd = dict(_settings(tree.read(USERADD, limit=LIMIT) or b""))

    @property
    def homes(self) -> str:
        """The directory of new homes."""
        return self._path("HOME", "/home")

    @property
    def skeletons(self) -> tuple[str, str]:
        """The directories that a new home is filled from; what is in the second goes before."""
        return self._path("USRSKEL", "/usr/etc/skel"), self._path("SKEL", "/etc/skel")

    @property
    def home_mode(self) -> int:
        """The mode of a new home."""
        return self.number("HOME_MODE", 0o777 & ~self.number("UMASK", 0o022)) & 0o777

    @property
    def has_own_groups(self) -> bool:
        """Whether a user gets a group of the own name."""
        return self._login.get("USERGROUPS_ENAB", "no").lower() == "yes"

    @property
    def group(self) -> str:
        """The group of everybody else: its name or number."""
        return self._useradd.get("GROUP") or "100"

    @property
    def end_of_accounts(self) -> tuple[str, str]:
        """Two fields of shadow(5): the days from a password's end to the account's, and the day of that."""
        inactive, expire = self._useradd.get("INACTIVE", ""), self._useradd.get("EXPIRE", "")
        return inactive if inactive.isdigit() else "", _day(expire) if expire else ""

    @property
    def shell(self) -> str:
        """The login shell; empty is /bin/sh (passwd(5))."""
        return self._useradd.get("SHELL") or ("/bin/bash" if self._tree.exists("/bin/bash") else "")

    def number(self, name: str, otherwise: int) -> int:
        """A number of login.defs, which may be written as C has it (strtol(3))."""
        text = self._login.get(name, "")
        if re.fullmatch("0[0-7]+", text):
            return int(text, 8)
        return int(text, 0) if re.fullmatch("[1-9][0-9]{0,9}|0(x[0-9a-fA-F]{1,8})?", text) else otherwise

    def field(self, name: str) -> str:
        """A number for a field of shadow(5), which is empty where it is not set."""
        number = self.number(name, -1)
        return "" if number < 0 else str(number)

    def _path(self, name: str, otherwise: str) -> str:
        value = self._useradd.get(name, "").rstrip("/")
        return value if value.startswith("/") else otherwise


def _settings(content: bytes) -> Iterator[tuple[str, str]]:
    """`NAME value` of login.defs, `NAME=value` of useradd's file."""
    for line in content.decode("utf-8", "replace").split("\n"):
        name, *value = line.replace("=", " ", 1).split(None, 1)[:2] or [""]
        yield name, "".join(value).strip().strip('"')


def _day(date: str) -> str:
    """The day of a date (YYYY-MM-DD), counted from 1970-01-01; nothing where it is none."""
    import calendar
    import time

    try:
        return str(int(calendar.timegm(time.strptime(date, "%Y-%m-%d"))) // 86400)
    except ValueError:
        return ""
