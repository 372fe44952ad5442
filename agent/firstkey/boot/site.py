"""Where the main job works: the tree, its configuration, and whom to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.config import Config
    from firstkey.events import Entry
    from firstkey.system.accounts import Accounts
    from firstkey.system.tree import Tree

ASSET_TAG = "/sys/class/dmi/id/board_asset_tag"
LONGEST_TAG = 64
BOOT_ID = "/proc/sys/kernel/random/boot_id"


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

    def firmware_claim(self) -> str:
        """Which platform the firmware says this is: vendor and product, for the journal."""
        names = ("sys_vendor", "product_name")
        claims = [_first_line(self.tree, f"/sys/class/dmi/id/{name}") for name in names]
        return " ".join(claim for claim in claims if claim) or "unknown"


def _first_line(tree: Tree, path: str) -> str | None:
    try:
        content = tree.read(path, limit=4096)
    except FirstkeyError:
        return None  # what cannot be read tells nothing
    text = (content or b"").decode("ascii", "replace").strip()
    return text.split("\n")[0] or None
