"""What new accounts are like by the tree's own /etc/login.defs and /etc/default/useradd."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

LIMIT = 65536
NO_PASSWORD = "*"  # noqa: S105 - matches no password, and unlike "!" is no lock that sshd heeds (shadow(5))
FILES = ("/usr/etc/login.defs", "/etc/login.defs", "/etc/default/useradd")
"""Each before the one that overrides it; no name of login.defs(5) is one of useradd's too."""


class Defaults:
    """The settings of one tree, by their names in login.defs(5) and useradd(8)."""

    def __init__(self, tree: Tree) -> None:
        self._settings: dict[str, str] = {}
        for path in FILES:
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
        if not re.fullmatch("[0-9]{1,10}", text):
            return otherwise
        return int(text, 8) if re.fullmatch("0[0-7]+", text) else int(text)
