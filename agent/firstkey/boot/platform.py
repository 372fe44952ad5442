"""Whether this is plainly another platform than EC2: there, sshd does not wait for the metadata service."""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firstkey.boot.target import Target

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


def is_elsewhere(target: Target) -> bool:
    """Whether this is plainly not EC2, and no other service was named to be asked.

    A container shows its host's firmware, which says nothing of the container.
    """
    if target.config.imds.endpoints != settings.SECTIONS["IMDS"]["Endpoints"].default:
        return False
    if target.firmware_instance() or any(map(target.tree.exists, CONTAINERS)):
        return False
    words = {name: target.firmware(name) for name in NAMES}
    return is_another_platform({**words, "hypervisor": target.first_line("/sys/hypervisor/uuid") or ""})


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
