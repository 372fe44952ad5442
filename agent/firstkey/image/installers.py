"""Who installs launch keys and makes host keys when an instance of the image boots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import units
from firstkey.image.changes import Link, Remove

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

UNIT = "firstkey.service"
ENABLED = f"{units.ADMINISTRATOR}/multi-user.target.wants/{UNIT}"
"""What `systemctl enable` makes; the unit's [Install] says WantedBy=multi-user.target."""
DISABLED = "/etc/firstkey/disabled"

CLOUD_INIT_UNITS = ("cloud-init.service", "cloud-init-network.service", "cloud-init-main.service")
CLOUD_INIT_DISABLED = "/etc/cloud/cloud-init.disabled"
# It decides at boot, and starts cloud-init.target by itself (cloud-init: cloud-init-generator).
CLOUD_INIT_GENERATORS = (
    "/usr/lib/systemd/system-generators/cloud-init-generator",
    "/lib/systemd/system-generators/cloud-init-generator",
)
AFTERBURN = "afterburn-sshkeys@*.service"
SCRIPTS = ("/etc/rc.local", "/etc/rc.d/rc.local")
# Debian 13 and later; Fedora, Amazon Linux and RHEL; SUSE; Arch.
HOST_KEY_UNITS = ("sshd-keygen.service", "sshd-keygen.target", "sshdgenkeys.service", "ssh-keygen.service")
SERVERS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")


def is_installed(image: Image) -> bool:
    """Whether firstkey's unit is in the image."""
    return units.is_installed(image, UNIT)


def key_installers(image: Image) -> list[str]:
    """All that install launch keys at boot."""
    found = []
    if _is_firstkey_on(image):
        found.append("firstkey")
    if _is_cloud_init_on(image):
        found.append("cloud-init")
    if units.is_enabled(image, AFTERBURN):
        found.append("afterburn")
    found += [path for path in SCRIPTS if _is_guides_script(image, path)]
    return found


def host_key_maker(image: Image) -> str | None:
    """Something that makes host keys at boot, or None."""
    if _is_firstkey_on(image):
        return "firstkey"
    if _is_cloud_init_on(image):
        return "cloud-init"
    for unit in HOST_KEY_UNITS:
        # A server's own unit wants these, so they need not be enabled by themselves.
        if units.is_installed(image, unit) and not units.is_masked(image, unit) and _server_is_on(image):
            return unit
    return None


def enable(image: Image) -> list[Change]:
    """What `systemctl enable` would do for firstkey, where it is installed."""
    if not is_installed(image):
        return []
    made: list[Change] = []
    if image.tree.exists(DISABLED):
        made.append(Remove(DISABLED, "it switches firstkey off"))
    if units.is_masked(image, UNIT):
        made.append(Remove(f"{units.ADMINISTRATOR}/{UNIT}", "it masks firstkey"))
    place = next(path for path in units.PLACES[1:] if image.tree.exists(f"{path}/{UNIT}"))
    made.append(Link(ENABLED, f"{place}/{UNIT}", "firstkey is started at boot"))
    return made


def _is_firstkey_on(image: Image) -> bool:
    return units.is_enabled(image, UNIT) and not image.tree.exists(DISABLED)


def _is_cloud_init_on(image: Image) -> bool:
    if image.tree.exists(CLOUD_INIT_DISABLED):
        return False
    there = [unit for unit in CLOUD_INIT_UNITS if units.is_installed(image, unit)]
    if not there or any(units.is_masked(image, unit) for unit in there):
        return False
    by_generator = any(image.tree.exists(path) for path in CLOUD_INIT_GENERATORS)
    return by_generator or any(units.is_enabled(image, unit) for unit in there)


def _is_guides_script(image: Image, path: str) -> bool:
    status = image.status(path)
    return bool(status and status.st_mode & 0o111 and b"public-keys" in (image.read(path) or b""))


def _server_is_on(image: Image) -> bool:
    return any(units.is_enabled(image, unit) for unit in SERVERS)
