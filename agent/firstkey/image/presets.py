"""What systemd enables by itself at a first boot (systemd.preset(5)), whatever its builder left off."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey.image import units

if TYPE_CHECKING:
    from firstkey.image.subject import Image

WANTED = ("WantedBy", "RequiredBy", "UpheldBy")


def newly_enabled(image: Image) -> list[str]:
    """The units that are off in the image, and that a first boot turns on: nothing is turned off there."""
    rules = list(_rules(image))
    off = {unit for unit in _installable(image) if not _is_enabled_or_masked(image, unit)}
    named = {unit for unit in off if _is_on(unit, rules)}
    lines = (line for unit in named for line in units.values(image.tree, "Install", "Also", unit))
    return sorted(named.union(unit for line in lines for unit in line.split() if unit in off))


def _is_enabled_or_masked(image: Image, unit: str) -> bool:
    return units.is_enabled(image.tree, unit) or units.is_masked(image.tree, unit)


def _is_on(unit: str, rules: list[tuple[str, str]]) -> bool:
    """Whether the first rule that fits says so, or none does."""
    return next((verb == "enable" for verb, pattern in rules if fnmatchcase(unit, pattern)), True)


def _rules(image: Image) -> Iterator[tuple[str, str]]:
    """Verb and pattern of each line; of files with the same name the first place's counts."""
    places = [f"{place}-preset" for place in units.PLACES]
    files = {name: f"{place}/{name}" for place in reversed(places) for name in image.tree.names(place)}
    for name, path in sorted(files.items()):
        if name.endswith(".preset"):
            for line in (image.read(path) or b"").decode("utf-8", "surrogateescape").split("\n"):
                words = line.split()
                if len(words) > 1 and words[0] in ("enable", "disable", "ignore"):
                    yield words[0], words[1]


def _installable(image: Image) -> Iterator[str]:
    """The units that something would want if they were enabled; of a template, its instance by default."""
    for place in units.PLACES:
        for path in image.glob(f"{place}/*.*"):
            unit = path.rpartition("/")[2]
            if not image.is_file(path) or b"[Install]" not in (image.read(path) or b""):
                continue
            if not any(units.values(image.tree, "Install", key, unit) for key in WANTED):
                continue
            instance = units.values(image.tree, "Install", "DefaultInstance", unit)
            if "@." not in unit:
                yield unit
            elif instance:
                yield unit.replace("@.", f"@{instance[-1]}.")
