"""A missing home: made beside its name, filled from the skeleton, given to its user, and only then put there.

So a home is there with all that belongs into it or not at all, whatever cuts its making off.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.system import erase, selinux
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.boot.account_defaults import Defaults
    from firstkey.model import Account
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
"""The largest file of a skeleton."""
DEEPEST = 20
"""Deeper than anybody's skeleton, and far from what Python's own stack could not take."""
FSTAB = "/etc/fstab"
NO_HOME = "/nonexistent"
"""The home of accounts that are to have none (Debian's policy, 9.2.3); many share it, so it is never made."""


def is_missing(tree: Tree, account: Account) -> bool:
    """Whether the account is to have a home, and has none."""
    return account.home != NO_HOME and not tree.exists(account.home)


def make(tree: Tree, account: Account, defaults: Defaults) -> None:
    """Make the home. Raises FirstkeyError; then there is none, as before.

    It is not made where a file system is to be mounted first: it would disappear below that.
    """
    point = _unmounted(tree, account.home)
    if point:
        message = f"{point} is not mounted yet, so {account.home} was not made"
        raise FirstkeyError(message, reason=reasons.HOME_MISSING)
    parent, name = os.path.split(account.home.rstrip("/"))
    with tree.ensure(parent, mode=0o755) as above:
        for stale in above.stale_names():
            erase.remove(above, stale)
        temporary = above.temporary_name(name)
        try:
            _make(tree, above, temporary, account, defaults)
            above.rename(temporary, name)
        except BaseException:
            erase.remove(above, temporary)
            raise


def _make(tree: Tree, above: Directory, temporary: str, account: Account, defaults: Defaults) -> None:
    copy = _Copy(tree, (account.uid, account.gid))
    with above.make(temporary, Looks(0o700, durable=False)) as home:
        for skeleton in defaults.skeletons:
            source = tree.open(skeleton)
            if source:
                with source:
                    copy.all(source, home, account.home, DEEPEST)
        home.dress(copy.looks(defaults.home_mode, account.home, "dir"))


class _Copy:
    """Copies what a skeleton holds: files, directories and links as links; nothing else belongs there."""

    def __init__(self, tree: Tree, owner: tuple[int, int]) -> None:
        self._tree = tree
        self._owner = owner if os.geteuid() == 0 else None

    def all(self, source: Directory, target: Directory, path: str, depth: int) -> None:
        """Copy what is in `source`; `path` is where `target` will be in the end, for its SELinux labels."""
        for name in source.names():
            found, place = source.status(name), f"{path}/{name}"
            if found is None:
                continue
            if stat.S_ISLNK(found.st_mode):
                target.link(name, os.readlink(name, dir_fd=source.fd), self._owner)
            elif stat.S_ISDIR(found.st_mode) and depth:
                self._directory(source, target, place, stat.S_IMODE(found.st_mode), depth - 1)
            elif stat.S_ISREG(found.st_mode):
                self._file(source, target, place)

    def looks(self, mode: int, place: str, kind: str) -> Looks:
        """How a part of the home is to look."""
        return Looks(mode, self._owner, selinux.default_label(self._tree, place, kind))

    def _directory(self, source: Directory, target: Directory, place: str, mode: int, depth: int) -> None:
        name = os.path.basename(place)
        inner = source.child(name)
        if inner:
            with inner, target.make(name, self.looks(mode, place, "dir")) as made:
                self.all(inner, made, place, depth)

    def _file(self, source: Directory, target: Directory, place: str) -> None:
        name = os.path.basename(place)
        file = source.read(name, limit=LIMIT)
        if file:
            looks = self.looks(file.mode, place, "file")._replace(attributes=source.attributes(name))
            target.replace(name, file.content, looks)


def _unmounted(tree: Tree, home: str) -> str | None:
    """Where a file system of fstab(5) is to be mounted, at the home or above it, and is not yet."""
    if not tree.is_running_system:
        return None
    text = (tree.read(FSTAB, limit=LIMIT) or b"").decode("utf-8", "replace")
    entries = (line.split() for line in text.split("\n"))
    points = (entry[1].rstrip("/") for entry in entries if entry[1:] and not entry[0].startswith("#"))
    above = (point for point in points if point.startswith("/") and f"{home}/".startswith(f"{point}/"))
    return next((point for point in above if not os.path.ismount(point)), None)
