"""Who installs launch keys and makes host keys when an instance of the image boots."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.image import kernel_words, units
from firstkey.image.changes import Link, Remove
from firstkey.image.verdict import Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

UNIT = "firstkey.service"
ENABLED = f"{units.ADMINISTRATOR}/multi-user.target.wants/{UNIT}"
"""What `systemctl enable` makes; the unit's [Install] says WantedBy=multi-user.target."""
RUNLEVELS = "/etc/runlevels"
"""What `rc-update add` of OpenRC makes is below; the script for firstkey is in docs/platforms.md."""
DISABLED = "/etc/firstkey/disabled"
PARTS = ("/usr/bin/firstkey", "/usr/lib/firstkey/firstkey/cli/main.py")
"""The command that the unit starts, and the code that is its work."""
OFF = "firstkey=off"
"""A word of the kernel command line (the unit's ConditionKernelCommandLine=)."""

CLOUD_INIT_UNITS = ("cloud-init.service", "cloud-init-network.service", "cloud-init-main.service")
CLOUD_INIT_DISABLED = "/etc/cloud/cloud-init.disabled"
# It decides at boot, and starts cloud-init.target by itself (cloud-init: cloud-init-generator).
CLOUD_INIT_GENERATORS = (
    "/usr/lib/systemd/system-generators/cloud-init-generator",
    "/lib/systemd/system-generators/cloud-init-generator",
)
CLOUD_CONFIG = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg")
_DATASOURCES = re.compile(rb"^datasource_list:[ \t]*(\[[^\]]*\]|(?:\n[ \t]*-[^\n]*)+)", re.MULTILINE)
AFTERBURN = "afterburn-sshkeys@*.service"
SCRIPTS = ("/etc/rc.local", "/etc/rc.d/rc.local")
# Debian 13 and later; Fedora, Amazon Linux and RHEL; SUSE; Arch.
HOST_KEY_UNITS = ("sshd-keygen.service", "sshd-keygen.target", "sshdgenkeys.service", "ssh-keygen.service")
SERVICES = ("ssh.service", "sshd.service")
SERVERS = (*SERVICES, "ssh.socket", "sshd.socket")


class Off(NamedTuple):
    """Why firstkey does nothing at boot: where that is seen, and what to do about it."""

    path: str
    remedy: str
    by_hand: bool = True


def off(image: Image) -> Off | None:
    """What keeps firstkey from its work, or None: what only a person can mend comes first."""
    has_openrc = image.tree.exists(RUNLEVELS)
    if has_openrc and not _is_in_runlevel(image, "firstkey"):
        return Off(RUNLEVELS, "Have OpenRC start firstkey, by the script of docs/platforms.md")
    if not has_openrc and not units.is_installed(image.tree, UNIT):
        return Off(ENABLED, "Install the package firstkey; its unit is enabled with it.")
    missing = next((path for path in PARTS if image.read(path) is None), None)
    if missing:
        return Off(missing, "Install the package firstkey again: a part of it is missing.")
    told = kernel_words.where(image, OFF)
    if told:
        return Off(told, f"Take {OFF} out of this file, and have the boot loader's files written anew")
    if image.tree.exists(DISABLED):
        return Off(ENABLED, f"rm {DISABLED}", by_hand=False)
    if not has_openrc and not units.is_enabled(image.tree, UNIT):
        return Off(ENABLED, f"systemctl enable {UNIT}", by_hand=False)
    return None


def key_installers(image: Image) -> list[str]:
    """All that install launch keys at boot."""
    found = []
    if not off(image):
        found.append("firstkey")
    if _is_cloud_init_on(image) and _has_datasource(image):
        found.append("cloud-init")
    if units.is_enabled(image.tree, AFTERBURN):
        found.append("afterburn")
    found += [path for path in SCRIPTS if _is_guides_script(image, path)]
    return found


def host_key_maker(image: Image) -> str | None:
    """Something that makes host keys at boot, or None."""
    if not off(image):
        return "firstkey"
    if _is_cloud_init_on(image):
        return "cloud-init"
    for unit in HOST_KEY_UNITS:
        # A server's own unit wants these, so they need not be enabled by themselves.
        is_off = units.is_masked(image.tree, unit) or _waits_for_first_boot(image, unit)
        if units.is_installed(image.tree, unit) and not is_off and server_is_on(image):
            return unit
    # The units of openSUSE and ALT Linux; the script of OpenRC's sshd.
    before = " ".join(units.values(image.tree, "Service", "ExecStartPre", *SERVICES))
    by_unit = re.search("ssh-keygen|sshd-gen-keys", before) and server_is_on(image)
    if by_unit or _is_in_runlevel(image, "sshd"):
        return "what starts sshd"
    return None


def _is_in_runlevel(image: Image, name: str) -> bool:
    return bool(image.glob(f"{RUNLEVELS}/*/{name}"))


def _waits_for_first_boot(image: Image, unit: str) -> bool:
    """Whether the unit runs at a first boot only, and the image's is none to systemd (machine-id(5)).

    An empty machine-id makes none either, but a missing one does, and "uninitialized".
    """
    conditions = units.values(image.tree, "Unit", "ConditionFirstBoot", unit)
    content = image.read("/etc/machine-id") if conditions else None
    is_first = content is None or content.strip() == b"uninitialized"
    return bool(conditions) and conditions[-1].lstrip("|") in ("yes", "true", "on", "1") and not is_first


def without(image: Image, reason: str) -> Verdict:
    """The verdict where nobody does it: what to do so that firstkey does."""
    found = off(image)
    return Verdict((Finding(found.path, reason, found.remedy),)) if found else Verdict()


def enable(image: Image) -> list[Change]:
    """What `systemctl enable` would do for firstkey, where that is all it takes."""
    found = off(image)
    if found is None or found.by_hand:
        return []
    made: list[Change] = []
    if image.tree.exists(DISABLED):
        made.append(Remove(DISABLED, "it switches firstkey off"))
    if units.is_masked(image.tree, UNIT):
        made.append(Remove(f"{units.ADMINISTRATOR}/{UNIT}", "it masks firstkey"))
    place = next(path for path in units.PLACES[1:] if image.tree.exists(f"{path}/{UNIT}"))
    made.append(Link(ENABLED, f"{place}/{UNIT}", "firstkey is started at boot"))
    return made


def server_is_on(image: Image) -> bool:
    """Whether something starts sshd at boot, or when somebody comes."""
    return any(units.is_enabled(image.tree, unit) for unit in SERVERS)


def example(tree: Builder) -> None:
    """Firstkey, installed and not enabled."""
    tree.file(f"/usr/lib/systemd/system/{UNIT}", "[Service]\nExecStart=/usr/bin/firstkey daemon\n")
    for path in PARTS:
        tree.file(path, "", mode=0o755)


def _is_cloud_init_on(image: Image) -> bool:
    if image.tree.exists(CLOUD_INIT_DISABLED):
        return False
    there = [unit for unit in CLOUD_INIT_UNITS if units.is_installed(image.tree, unit)]
    if not there or any(units.is_masked(image.tree, unit) for unit in there):
        return False
    by_generator = any(image.tree.exists(path) for path in CLOUD_INIT_GENERATORS)
    return by_generator or any(units.is_enabled(image.tree, unit) for unit in there)


def _has_datasource(image: Image) -> bool:
    """Whether it asks anybody for keys; the last file that lists its sources wins."""
    texts = [image.read(path) or b"" for pattern in CLOUD_CONFIG for path in image.glob(pattern)]
    lists = [found for text in texts for found in _DATASOURCES.findall(text)]
    return not lists or not set(re.findall(rb"\w+", lists[-1])) <= {b"None"}


def _is_guides_script(image: Image, path: str) -> bool:
    status = image.status(path)
    return bool(status and status.st_mode & 0o111 and b"public-keys" in (image.read(path) or b""))
