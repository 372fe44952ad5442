"""A missing home: made beside its name, filled from the skeleton, given to its user, and only then put there.

So a home is there with all that belongs into it or not at all, whatever cuts its making off.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.boot.account_defaults import Defaults
from firstkey.errors import FirstkeyError
from firstkey.system import erase, selinux
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.model import Account
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
"""The largest file of a skeleton."""
DEEPEST = 20
"""Deeper than anybody's skeleton, and far from what Python's own stack could not take."""
NO_HOME = "/nonexistent"
"""The home of accounts that are to have none (Debian's policy, 9.2.3); many share it, so it is never made."""


def is_missing(tree: Tree, account: Account) -> bool:
    """Whether the account is to have a home, and has none."""
    return account.home != NO_HOME and not tree.exists(account.home)


def make(tree: Tree, account: Account) -> None:
    """Make the home as useradd(8) would. Raises FirstkeyError; then there is none, as before.

    It is not made where a file system is to be mounted first: it would disappear below that.
    """
    point = _unmounted(tree, account.home)
    if point:
        message = f"{point} is not mounted yet, so {account.home} was not made"
        raise FirstkeyError(message, reason=reasons.HOME_MISSING)
    defaults = Defaults(tree)
    mode = defaults.number("HOME_MODE", 0o777 & ~defaults.number("UMASK", 0o022))
    skeletons = (defaults.path("USRSKEL", "/usr/etc/skel"), defaults.path("SKEL", "/etc/skel"))
    parent, name = os.path.split(account.home.rstrip("/"))
    with tree.ensure(parent, mode=0o755) as above:
        for stale in above.stale_names():
            erase.remove(above, stale)
        temporary = above.temporary_name(name)
        try:
            with above.make(temporary, Looks(0o700, durable=False)) as home:
                for skeleton in skeletons:
                    source = tree.open(skeleton)
                    if source:
                        with source:
                            _copy(tree, source, home, account, account.home)
                home.dress(_looks(tree, account, mode, account.home, "dir"))
            above.rename(temporary, name)
        except BaseException:
            erase.remove(above, temporary)
            raise


def _copy(
    tree: Tree, source: Directory, target: Directory, account: Account, place: str, depth: int = DEEPEST
) -> None:
    """Copy files, directories, and links as links; `place` is where `target` will be in the end."""
    for name in source.names():
        found, path = source.status(name), f"{place}/{name}"
        if found and stat.S_ISLNK(found.st_mode):
            target.link(name, os.readlink(name, dir_fd=source.fd), (account.uid, account.gid))
        elif found and stat.S_ISREG(found.st_mode):
            file = source.read(name, limit=LIMIT)
            looks = _looks(tree, account, stat.S_IMODE(found.st_mode), path, "file")
            if file:
                target.replace(name, file.content, looks._replace(attributes=source.attributes(name)))
        elif found and stat.S_ISDIR(found.st_mode) and depth:
            inner = source.child(name)
            looks = _looks(tree, account, stat.S_IMODE(found.st_mode), path, "dir")
            if inner:
                with inner, target.make(name, looks) as made:
                    _copy(tree, inner, made, account, path, depth - 1)


def _looks(tree: Tree, account: Account, mode: int, path: str, kind: str) -> Looks:
    return Looks(mode, (account.uid, account.gid), selinux.default_label(tree, path, kind))


def _unmounted(tree: Tree, home: str) -> str | None:
    """Where a file system of fstab(5) is to be mounted, at the home or above it, and is not yet."""
    if not tree.is_running_system:
        return None
    text = (tree.read("/etc/fstab", limit=LIMIT) or b"").decode("utf-8", "replace")
    entries = (line.split() for line in text.split("\n"))
    points = [entry[1].rstrip("/") for entry in entries if len(entry) > 1 and entry[0][0] != "#"]
    above = (point for point in points if point.startswith("/") and f"{home}/".startswith(f"{point}/"))
    return next((point for point in above if not os.path.ismount(point)), None)
