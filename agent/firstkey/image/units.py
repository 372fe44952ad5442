"""The image's services: which are started at boot, by the links that systemctl enable makes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

from firstkey.image.subject import Image
from firstkey.settings import ADMINISTRATOR, PLACES, UNIT_LIMIT, assignments, by_name, unit_settings

STARTING = ("Wants", "Requires", "BindsTo", "Upholds")
"""The settings by which a unit has another one started with it (systemd.unit(5))."""


def values(image: Image, section: str, key: str, *names: str) -> list[str]:
    """What a setting of a unit (of any of these names) comes to with its drop-ins."""
    return unit_settings(image.tree, *names)[section, key]


def is_installed(image: Image, unit: str) -> bool:
    """Whether there is such a unit, or a template for it; a link that leads nowhere is none."""
    template = f"{unit.partition('@')[0]}@.{unit.rpartition('.')[2]}"
    names = {unit, template} if "@" in unit else {unit}
    paths = (path for place in PLACES for name in names for path in image.glob(f"{place}/{name}"))
    return any(image.read(path, limit=UNIT_LIMIT) is not None for path in paths)


def is_masked(image: Image, unit: str) -> bool:
    """Whether an administrator made it impossible to start (systemctl(1): mask)."""
    return image.read(f"{ADMINISTRATOR}/{unit}", limit=UNIT_LIMIT) == b""


def is_enabled(image: Image, unit: str, *starters: str) -> bool:
    """Whether some target or service wants it at boot, it is there, and it is not masked.

    `starters` are units that may want it by a line of their own.
    """
    if is_masked(image, unit) or not is_installed(image, unit):
        return False
    lines = (line for name in starters for key in STARTING for line in values(image, "Unit", key, name))
    if any(unit in line.split() for line in lines):
        return True
    kinds = ("wants", "requires", "upholds")
    wanting = (path for place in PLACES for kind in kinds for path in image.glob(f"{place}/*.{kind}/{unit}"))
    # What the initial RAM disk wants, and only it, is not started by the system itself (bootup(7)).
    return any("/initrd" not in posixpath.dirname(path) for path in wanting)


def may_run(image: Image, unit: str, holds: Callable[[str, str], bool | None]) -> bool | None:
    """Whether the unit's conditions let it run (systemd.unit(5)); None where one of them decides, unknown.

    `holds` answers for one of them, by its kind (`PathExists`) and its value.
    """
    needed: list[bool | None] = []
    any_of: list[bool | None] = []
    for section, name, value in assignments(image.tree, unit):
        if section != "Unit" or not name.startswith("Condition"):
            continue
        if not value:
            needed, any_of = [], []
            continue
        answer = holds(name.removeprefix("Condition"), value.lstrip("|!").strip())
        is_not = "!" in value[:2] and answer is not None
        (any_of if value.startswith("|") else needed).append(not answer if is_not else answer)
    certainty = (False, None, True).index
    if any_of:
        needed.append(max(any_of, key=certainty))
    return min(needed, key=certainty, default=True)


# --- what systemd enables by itself at a first boot (systemd.preset(5)), whatever its builder left off ---

WANTED = ("WantedBy", "RequiredBy", "UpheldBy")
_PRESET = re.compile(r"^[ \t]*(enable|disable|ignore)[ \t]+(\S+)", re.MULTILINE)


@lru_cache(maxsize=1)  # it reads every unit, and several checks ask
def newly_enabled(image: Image) -> list[str]:
    """The units that are off in the image, and that a first boot turns on: nothing is turned off there."""
    paths = by_name(image.tree.names, (f"{place}-preset" for place in PLACES), ".preset")
    text = b"\n".join(image.read(path) or b"" for path in paths)
    rules = _PRESET.findall(text.decode("utf-8", "surrogateescape"))
    units = _installable(image)
    off = {unit for unit in units if not (is_enabled(image, unit) or is_masked(image, unit))}
    verbs = {unit: [verb for verb, pattern in rules if fnmatchcase(unit, pattern)] for unit in off}
    # The first rule that fits counts; where none does, a unit is enabled.
    named = {unit for unit, found in verbs.items() if [*found, "enable"][0] == "enable"}
    lines = (line for unit in named for line in values(image, "Install", "Also", unit))
    return sorted(named.union(unit for line in lines for unit in line.split() if unit in off))


def _installable(image: Image) -> Iterator[str]:
    """The units that something would want if they were enabled; of a template, its instance by default."""
    for path in (path for place in PLACES for path in image.glob(f"{place}/*.*")):
        unit = posixpath.basename(path)
        is_known = image.is_file(path) and b"[Install]" in (image.read(path) or b"")
        if is_known and any(values(image, "Install", key, unit) for key in WANTED):
            instances = values(image, "Install", "DefaultInstance", unit)[-1:]
            yield from [unit.replace("@.", f"@{name}.") for name in instances] if "@." in unit else [unit]
