"""SELinux labels: what the policy says a path should have, asked of libselinux's own program.

The label is put on the open file before it gets its name, so there is no moment with a wrong one,
and no path that a user could exchange.
"""

from __future__ import annotations

import errno
import os

from firstkey.errors import FirstkeyError
from firstkey.system import command
from firstkey.system.files import open_quietly, translated
from firstkey.system.tree import Tree


def default_label(tree: Tree, path: str, kind: str) -> str | None:
    """The label for `path` (`kind`: "file" or "dir"), or None where SELinux is off or has nothing to say.

    selinux(8): the policy is loaded where /sys/fs/selinux/enforce exists.
    """
    if not tree.exists("/sys/fs/selinux/enforce"):
        return None
    program = command.find("matchpathcon")
    if program is None:
        return None
    try:
        outcome = command.run([program, "-n", "-m", kind, path])
    except FirstkeyError:
        # Without a label of its own a file has the one that its directory hands down; that is no login lost.
        return None
    label = outcome.stdout.decode("ascii", "replace").strip()
    return label if outcome.status == 0 and label.count(":") >= 2 else None


def label(tree: Tree, path: str) -> str | None:
    """The label that `path` has, links in the last place followed, or None where it has none."""
    place = tree.locate(path)
    if place is None:
        return None
    directory, name = place
    with directory, translated(f"read the SELinux label of {path}"):
        fd = open_quietly(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, directory.fd)
        try:
            return os.getxattr(fd, "security.selinux").decode("ascii", "replace").rstrip("\0")
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return None
            raise
        finally:
            os.close(fd)


def is_enforcing(tree: Tree) -> bool:
    """Whether the policy is enforced, not only written about (selinux(8))."""
    return (tree.read("/sys/fs/selinux/enforce", limit=16) or b"").strip() == b"1"
