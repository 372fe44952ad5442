"""The image's services: which are started at boot, by the links that systemctl enable makes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.sshd import ADMINISTRATOR, LIMIT, PLACES, assignments, unit_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.image.subject import Image
    from firstkey.system.tree import Tree

__all__ = [
    "ADMINISTRATOR", "PLACES",
    "is_enabled", "is_installed", "is_masked", "may_run", "newly_enabled", "values", "waits",
]  # fmt: skip

STARTING = ("Wants", "Requires", "BindsTo", "Upholds")
"""The settings by which a unit has another one started with it (systemd.unit(5))."""


def values(tree: Tree, section: str, key: str, *names: str) -> list[str]:
    """What a setting of a unit (of any of these names) comes to with its drop-ins."""
    return unit_settings(tree, *names)[section, key]


def is_installed(tree: Tree, unit: str) -> bool:
    """Whether there is such a unit, or a template for it; a link that leads nowhere is none."""
    name, _, kind = unit.rpartition(".")
    names = {unit, f"{name.partition('@')[0]}@.{kind}"} if "@" in name else {unit}
    paths = (path for place in PLACES for name in names for path in _paths(tree, place, name))
    return any(tree.read(path, limit=LIMIT) is not None for path in paths)


def is_masked(tree: Tree, unit: str) -> bool:
    """Whether an administrator made it impossible to start (systemctl(1): mask)."""
    path = f"{ADMINISTRATOR}/{unit}"
    return tree.exists(path) and tree.read(path, limit=LIMIT) == b""


def is_enabled(tree: Tree, unit: str, *starters: str) -> bool:
    """Whether some target or service wants it at boot, it is there, and it is not masked.

    `starters` are units that may want it by a line of their own.
    """
    if is_masked(tree, unit) or not is_installed(tree, unit):
        return False
    lines = (line for name in starters for key in STARTING for line in values(tree, "Unit", key, name))
    if any(unit in line.split() for line in lines):
        return True
    kinds = ("wants", "requires", "upholds")
    wanting = (path for place in PLACES for kind in kinds for path in _paths(tree, place, f"*.{kind}"))
    # What the initial RAM disk wants, and only it, is not started by the system itself (bootup(7)).
    return any(True for path in wanting if "/initrd" not in path for _ in _paths(tree, path, unit))


def may_run(tree: Tree, unit: str, holds: Callable[[str, str], bool | None]) -> bool | None:
    """Whether the unit's conditions let it run (systemd.unit(5)); None where one of them decides, unknown.

    `holds` answers for one of them, by its kind (`PathExists`) and its value.
    """
    answers: list[tuple[bool, bool | None]] = []
    lines = [line[1:] for line in assignments(tree, unit) if line[0] == "Unit"]
    for name, value in lines:
        if name.startswith("Condition") and value:
            answer = holds(name.removeprefix("Condition"), value.lstrip("|!").strip())
            is_not = "!" in value[:2] and answer is not None
            answers.append((value.startswith("|"), not answer if is_not else answer))
        elif name.startswith("Condition"):
            answers.clear()
    needed = [answer for is_one_of, answer in answers if not is_one_of]
    any_of = [answer for is_one_of, answer in answers if is_one_of]
    if any_of:
        needed.append(True if True in any_of else None if None in any_of else False)
    return False if False in needed else None if None in needed else True


def _paths(tree: Tree, directory: str, pattern: str) -> Iterator[str]:
    """What is in the directory by such a name."""
    try:
        names = tree.names(directory)
    except FirstkeyError as error:
        if error.reason is not reasons.NOT_A_DIRECTORY:
            raise
        return
    yield from (f"{directory}/{name}" for name in sorted(names) if fnmatchcase(name, pattern))


# --- what systemd enables by itself at a first boot (systemd.preset(5)), whatever its builder left off ---

WANTED = ("WantedBy", "RequiredBy", "UpheldBy")


def newly_enabled(image: Image) -> list[str]:
    """The units that are off in the image, and that a first boot turns on: nothing is turned off there."""
    rules = list(_rules(image))
    tree = image.tree
    off = {unit for unit in _installable(image) if not (is_enabled(tree, unit) or is_masked(tree, unit))}
    # Whether the first rule that fits says so, or none does.
    named = {
        unit
        for unit in off
        if next((verb == "enable" for verb, pattern in rules if fnmatchcase(unit, pattern)), True)
    }
    lines = (line for unit in named for line in values(tree, "Install", "Also", unit))
    return sorted(named.union(unit for line in lines for unit in line.split() if unit in off))


HELD = {"network-online.target", "time-sync.target"}
"""What is not there before the network is (systemd.special(7))."""


def waits(tree: Tree, unit: str) -> bool:
    """Whether the unit holds up one of these until it has ended: a network's, or a clock's."""
    before = " ".join(values(tree, "Unit", "Before", unit)).split()
    return values(tree, "Service", "Type", unit)[-1:] == ["oneshot"] and not HELD.isdisjoint(before)


def _rules(image: Image) -> Iterator[tuple[str, str]]:
    """Verb and pattern of each line; of files with the same name the first place's counts."""
    places = [f"{place}-preset" for place in PLACES]
    files = {name: f"{place}/{name}" for place in reversed(places) for name in image.tree.names(place)}
    for name, path in sorted(files.items()):
        if name.endswith(".preset"):
            for line in (image.read(path) or b"").decode("utf-8", "surrogateescape").split("\n"):
                words = line.split()
                if len(words) > 1 and words[0] in ("enable", "disable", "ignore"):
                    yield words[0], words[1]


def _installable(image: Image) -> Iterator[str]:
    """The units that something would want if they were enabled; of a template, its instance by default."""
    for place in PLACES:
        for path in image.glob(f"{place}/*.*"):
            unit = path.rpartition("/")[2]
            if not image.is_file(path) or b"[Install]" not in (image.read(path) or b""):
                continue
            if not any(values(image.tree, "Install", key, unit) for key in WANTED):
                continue
            instance = values(image.tree, "Install", "DefaultInstance", unit)
            if "@." not in unit:
                yield unit
            elif instance:
                yield unit.replace("@.", f"@{instance[-1]}.")
