"""The system that the main job works on: its tree, configuration, firmware and platform."""

from __future__ import annotations

import os.path
import re

from firstkey import TYPE_CHECKING, NamedTuple, settings
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from firstkey.config import Config
    from firstkey.events import Entry
    from firstkey.system.accounts import Accounts
    from firstkey.system.tree import Tree

ASSET_TAG = "/sys/class/dmi/id/board_asset_tag"
LONGEST_TAG = 64
NAMES = (
    "sys_vendor", "product_name", "product_serial", "product_uuid", "board_vendor", "bios_vendor",
    "bios_version", "chassis_asset_tag",
)  # fmt: skip
CONTAINERS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")
"""One of these is in a container (systemd's "Container Interface", podman, Docker)."""
UUID = re.compile(r"ec2|[0-9a-f]{4}2[0-9a-f]ec-")
"""How those of EC2 begin, in either order of bytes (AWS EC2 User Guide, "Identify EC2 instances")."""
AZURE = "7783-7084-3265-9085-8269-3286-77"
"""The chassis asset tag of every machine on Azure; Hyper-V elsewhere may run OpenStack."""
HYPERVISORS = {"qemu": "standard pc", "vmware, inc.": "vmware", "innotek gmbh": "virtualbox"}
"""By vendor, how the product's name begins that is the hypervisor's own alone."""
NOTHING = ("", "not specified", "no asset tag", "none", "0")
MAKERS = (
    "acer", "asustek computer inc.", "dell inc.", "framework", "hp", "lenovo", "system76",
)  # fmt: skip
"""Makers of laptops and desktops, and of servers, on which OpenStack Ironic may run. EC2 has Apple's."""
SERVERS = ("poweredge", "proliant", "synergy", "thinksystem", "thinkserver", "system x", "flex system")
BOOT_ID = "/proc/sys/kernel/random/boot_id"

# cloud-init's generator leaves one of the first two before any unit starts; the third switches it off
# (cloud-init's documentation, "How to disable cloud-init").
CLOUD_INIT_ENABLED = "/run/cloud-init/enabled"
CLOUD_INIT_DISABLED = ("/run/cloud-init/disabled", "/etc/cloud/cloud-init.disabled")
# In an image nothing has run yet. The stage for users and SSH was renamed in cloud-init 24.3.
CLOUD_INIT_WANTED = tuple(
    f"/etc/systemd/system/cloud-init.target.wants/{unit}"
    for unit in ("cloud-init-network.service", "cloud-init.service")
)


class Site(NamedTuple):
    """One system to work on."""

    tree: Tree
    accounts: Accounts
    config: Config
    say: Callable[[Entry], None]
    dry_run: bool = False
    force: bool = False

    def firmware_instance(self) -> str | None:
        """The instance-id that the firmware tells (Nitro puts it into the asset tag), or None."""
        tag = _first_line(self.tree, ASSET_TAG) or ""
        return tag if tag.startswith("i-") and tag[2:].isalnum() and len(tag) <= LONGEST_TAG else None

    def boot_id(self) -> str | None:
        """The kernel's name for this boot (random(4)), or None in an image."""
        return _first_line(self.tree, BOOT_ID)

    def hostname(self) -> str | None:
        """The tree's own name (hostname(5)), or None."""
        return _first_line(self.tree, "/etc/hostname")

    def cloud_init(self) -> str | None:
        """The path that shows that cloud-init works on this system too, or will at its first boot; or None.

        The two do not fight, since firstkey.service is ordered behind cloud-init's stage for users and SSH:
        what that makes is found, and kept.
        """
        shows = (CLOUD_INIT_ENABLED, *(() if self.tree.is_running_system else CLOUD_INIT_WANTED))
        is_off = any(self.tree.exists(path) for path in CLOUD_INIT_DISABLED)
        return None if is_off else next((path for path in shows if self.tree.exists(path)), None)

    def cloud_init_began(self) -> int | None:
        """When cloud-init's generator ran in this boot (ns since the epoch), or None where it did not.

        What is younger in /etc/ssh, before sshd has started, is what cloud-init made for this instance.
        """
        directory = self.tree.open(os.path.dirname(CLOUD_INIT_ENABLED))
        if directory is None:
            return None
        with directory:
            status = directory.status(os.path.basename(CLOUD_INIT_ENABLED))
            return status.st_mtime_ns if status else None

    def firmware_claim(self) -> str:
        """Which platform the firmware says this is: vendor and product, for the journal."""
        firmware = self._firmware("sys_vendor", "product_name")
        return " ".join(claim for claim in firmware.values() if claim) or "unknown"

    def is_elsewhere(self) -> bool:
        """Whether this is plainly not EC2, and no other service was named to be asked.

        A container shows its host's firmware, which says nothing of the container.
        """
        if self.config.imds.endpoints != settings.SECTIONS["IMDS"]["Endpoints"].default:
            return False
        if self.firmware_instance() or any(self.tree.exists(path) for path in CONTAINERS):
            return False
        hypervisor = _first_line(self.tree, "/sys/hypervisor/uuid") or ""
        return is_another_platform({**self._firmware(*NAMES), "hypervisor": hypervisor})

    def _firmware(self, *names: str) -> dict[str, str]:
        return {name: _first_line(self.tree, f"/sys/class/dmi/id/{name}") or "" for name in names}


def is_another_platform(firmware: Mapping[str, str]) -> bool:
    """Whether the firmware's words are plainly those of a platform without EC2's metadata service.

    What is not known for that may be EC2 (`Amazon EC2`, Xen) or speak as EC2 does (OpenStack, CloudStack,
    Eucalyptus, Exoscale and others, of which some only add a tag to the words of QEMU or VMware).
    """
    said = {name: text.strip().lower() for name, text in firmware.items()}
    vendor, tag = said.get("sys_vendor", ""), said.get("chassis_asset_tag", "")
    if any("amazon" in text or UUID.match(text) for text in said.values()):
        return False
    if vendor == "microsoft corporation":
        return tag == AZURE
    if vendor in HYPERVISORS:
        serial = said.get("product_serial", "") if vendor == "qemu" else ""
        product = said.get("product_name", "").startswith(HYPERVISORS[vendor])
        return product and tag in NOTHING and serial in NOTHING
    return vendor == "google" or (vendor in MAKERS and not said.get("product_name", "").startswith(SERVERS))


def _first_line(tree: Tree, path: str) -> str | None:
    try:
        content = tree.read(path, limit=4096)
    except FirstkeyError:
        return None  # what cannot be read tells nothing
    text = (content or b"").decode("ascii", "replace").strip()
    return text.split("\n")[0] or None
