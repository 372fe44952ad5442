"""The system that the main job works on: its tree and configuration, which boot and which instance it is."""

from __future__ import annotations

import os.path
from contextlib import nullcontext

from firstkey import TYPE_CHECKING, NamedTuple
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.config import Config
    from firstkey.events import Entry
    from firstkey.system.accounts import Accounts
    from firstkey.system.tree import Tree

LONGEST_TAG = 64
BOOT_ID = "/proc/sys/kernel/random/boot_id"
CLOUD_INIT_ENABLED = "/run/cloud-init/enabled"
"""Made by cloud-init's generator before any unit starts, where cloud-init is to work in this boot."""


class Target(NamedTuple):
    """One system to work on."""

    tree: Tree
    accounts: Accounts
    config: Config
    log: Callable[[Entry], None]
    dry_run: bool = False
    force: bool = False

    def firmware_instance(self) -> str | None:
        """The instance-id that the firmware has (Nitro puts it into the asset tag), or None."""
        tag = self.firmware("board_asset_tag")
        return tag if tag.startswith("i-") and tag[2:].isalnum() and len(tag) <= LONGEST_TAG else None

    def firmware_claim(self) -> str:
        """Which platform the firmware says this is, for the journal: vendor and product, if it names any."""
        return " ".join(filter(None, map(self.firmware, ("sys_vendor", "product_name"))))

    def firmware(self, name: str) -> str:
        """What the firmware says under that name (SMBIOS); nothing where it says nothing."""
        return self.first_line(f"/sys/class/dmi/id/{name}") or ""

    def boot_id(self) -> str | None:
        """The kernel's name for this boot (random(4)), or None in an image."""
        return self.first_line(BOOT_ID)

    def cloud_init_began(self) -> int | None:
        """When cloud-init's generator ran in this boot (ns since the epoch), or None where it did not.

        What is younger in /etc/ssh, before sshd has started, is what cloud-init made for this instance.
        """
        with self.tree.open(os.path.dirname(CLOUD_INIT_ENABLED)) or nullcontext() as directory:
            status = directory.status(os.path.basename(CLOUD_INIT_ENABLED)) if directory else None
        return status.st_mtime_ns if status else None

    def first_line(self, path: str) -> str | None:
        """The first line of a file, in ASCII; None where it is empty, or cannot be read."""
        try:
            content = self.tree.read(path, limit=4096)
        except FirstkeyError:
            return None
        return (content or b"").decode("ascii", "replace").strip().split("\n")[0] or None
