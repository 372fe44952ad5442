"""Who else gives this system its first SSH access: cloud-init.

The two do not fight, since firstkey.service is ordered behind cloud-init's stage for users and SSH: what
cloud-init makes is found, and kept. That both are there is said, so that nobody has to find out.
"""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

# Its generator leaves one of the first two before any unit starts; the third switches it off (cloud-init's
# documentation, "How to disable cloud-init").
ENABLED = "/run/cloud-init/enabled"
DISABLED = ("/run/cloud-init/disabled", "/etc/cloud/cloud-init.disabled")

# In an image nothing has run yet. The stage for users and SSH was renamed in cloud-init 24.3.
WANTED = tuple(
    f"/etc/systemd/system/cloud-init.target.wants/{unit}"
    for unit in ("cloud-init-network.service", "cloud-init.service")
)


def cloud_init(tree: Tree) -> str | None:
    """The path that shows that cloud-init works on this system too, or will at its first boot; or None."""
    if any(tree.exists(path) for path in DISABLED):
        return None
    if tree.exists(ENABLED):
        return ENABLED
    if tree.is_running_system:
        return None
    return next((path for path in WANTED if tree.exists(path)), None)


def began(tree: Tree) -> int | None:
    """When cloud-init's generator ran in this boot (ns since the epoch), or None where it did not.

    What is younger in /etc/ssh, before sshd has started, is what cloud-init made for this instance.
    """
    directory = tree.open(os.path.dirname(ENABLED))
    if directory is None:
        return None
    with directory:
        status = directory.status(os.path.basename(ENABLED))
        return status.st_mtime_ns if status else None
