"""Which of the image's services are started at boot: read from the links that systemctl enable makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.image.subject import Image

ADMINISTRATOR = "/etc/systemd/system"
# systemd.unit(5), UNIT FILE LOAD PATH; /lib is /usr/lib except on systems that are older.
PLACES = (ADMINISTRATOR, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def is_installed(image: Image, unit: str) -> bool:
    """Whether there is such a unit, or a template for it."""
    names = {unit, _template(unit)}
    return any(image.glob(f"{place}/{name}") for place in PLACES for name in names)


def is_masked(image: Image, unit: str) -> bool:
    """Whether an administrator made it impossible to start (systemctl(1): mask)."""
    path = f"{ADMINISTRATOR}/{unit}"
    return image.tree.exists(path) and image.tree.read(path, limit=1 << 20) == b""


def is_enabled(image: Image, unit: str) -> bool:
    """Whether some target or service wants it at boot, and it is not masked."""
    if is_masked(image, unit):
        return False
    kinds = ("wants", "requires", "upholds")
    return any(image.glob(f"{place}/*.{kind}/{unit}") for place in PLACES for kind in kinds)


def _template(unit: str) -> str:
    name, _, kind = unit.rpartition(".")
    return f"{name.partition('@')[0]}@.{kind}" if "@" in name else unit
