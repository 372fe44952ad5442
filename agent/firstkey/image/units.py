"""The image's services: which are started at boot, by the links that systemctl enable makes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system.units import ADMINISTRATOR, LIMIT, PLACES, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.system.tree import Tree

__all__ = ["ADMINISTRATOR", "PLACES", "is_enabled", "is_installed", "is_masked", "values"]


def is_installed(tree: Tree, unit: str) -> bool:
    """Whether there is such a unit, or a template for it; a link that leads nowhere is none."""
    names = {unit, _template(unit)}
    paths = (path for place in PLACES for name in names for path in _paths(tree, place, name))
    return any(tree.read(path, limit=LIMIT) is not None for path in paths)


def is_masked(tree: Tree, unit: str) -> bool:
    """Whether an administrator made it impossible to start (systemctl(1): mask)."""
    path = f"{ADMINISTRATOR}/{unit}"
    return tree.exists(path) and tree.read(path, limit=LIMIT) == b""


def is_enabled(tree: Tree, unit: str) -> bool:
    """Whether some target or service wants it at boot, it is there, and it is not masked."""
    if is_masked(tree, unit) or not is_installed(tree, unit):
        return False
    kinds = ("wants", "requires", "upholds")
    wanting = (path for place in PLACES for kind in kinds for path in _paths(tree, place, f"*.{kind}"))
    # What the initial RAM disk wants, and only it, is not started by the system itself (bootup(7)).
    return any(True for path in wanting if "/initrd" not in path for _ in _paths(tree, path, unit))


def _paths(tree: Tree, directory: str, pattern: str) -> Iterator[str]:
    """What is in the directory by such a name."""
    try:
        names = tree.names(directory)
    except FirstkeyError as error:
        if error.reason is not reasons.NOT_A_DIRECTORY:
            raise
        return
    yield from (f"{directory}/{name}" for name in sorted(names) if fnmatchcase(name, pattern))


def _template(unit: str) -> str:
    name, _, kind = unit.rpartition(".")
    return f"{name.partition('@')[0]}@.{kind}" if "@" in name else unit
