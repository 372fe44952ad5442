"""What the units of a tree say: systemd.unit(5), systemd.syntax(7)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

ADMINISTRATOR = "/etc/systemd/system"
# systemd.unit(5), UNIT FILE LOAD PATH; /lib is /usr/lib except on systems that are older.
PLACES = (ADMINISTRATOR, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
LIMIT = 1024 * 1024


def values(tree: Tree, section: str, key: str, unit: str, *aliases: str) -> list[str]:
    """What a setting of a unit comes to with its drop-ins: an empty value takes back those before it."""
    found: list[str] = []
    for text in _texts(tree, (unit, *aliases)):
        current = ""
        for line in re.sub(rb"\\\n", b" ", text).decode("utf-8", "surrogateescape").split("\n"):
            name, equals, value = line.strip().partition("=")
            if line.startswith("["):
                current = line.strip()
            elif equals and current == f"[{section}]" and name.rstrip() == key:
                found = [*found, value.strip()] if value.strip() else []
    return found


def _texts(tree: Tree, names: tuple[str, ...]) -> Iterator[bytes]:
    """The first of the unit's files that there is, then its drop-ins by name, each from the first place."""
    files = (tree.read(f"{place}/{name}", limit=LIMIT) for name in names for place in PLACES)
    yield next((content for content in files if content is not None), b"")
    directories = [f"{place}/{name}.d" for place in PLACES for name in names]
    drop_ins = {file: f"{where}/{file}" for where in reversed(directories) for file in tree.names(where)}
    for file, path in sorted(drop_ins.items()):
        if file.endswith(".conf"):
            yield tree.read(path, limit=LIMIT) or b""
