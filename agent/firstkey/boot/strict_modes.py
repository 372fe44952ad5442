"""Whether sshd heeds a file of keys, by owner and mode of its path (sshd_config(5): StrictModes).

What firstkey made itself is mended; what somebody else made is theirs to mend, and reported.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from firstkey.boot import rights
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.model import Account
    from firstkey.system.accounts import Accounts
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree


class Place(NamedTuple):
    """Whose file of keys it is, and how firstkey makes such a file and its directory."""

    account: Account
    path: str
    as_root: bool
    """Whether root works on it, as no user may write there: then everybody may read it, so sshd may."""
    groups: tuple[int, ...]
    accounts: Accounts

    @property
    def file_mode(self) -> int:
        """The mode of a new file."""
        return 0o644 if self.as_root else 0o600

    @property
    def directory_mode(self) -> int:
        """The mode of a new directory."""
        return 0o755 if self.as_root else 0o700


class Mended(NamedTuple):
    """A mode that was set right."""

    path: str
    old: str
    new: str


def mend(directory: Directory, place: Place, made: Sequence[str]) -> list[Mended]:
    """Set right the modes of the file and its directory, where firstkey `made` them and others may write."""
    name = os.path.basename(place.path)
    mended = []
    for path, inside, mode in (
        (place.path, name, place.file_mode),
        (os.path.dirname(place.path), ".", place.directory_mode),
    ):
        found = directory.status(inside)
        if path in made and found and found.st_mode & rights.OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
            directory.set_mode(inside, mode)
            mended.append(Mended(path, _octal(found.st_mode), _octal(mode)))
    return mended


def flaws(tree: Tree, place: Place, directory: Directory) -> list[str]:
    """The parts of the path for which sshd ignores the file, each with its mode and owner.

    sshd goes by the real path: the file, and each directory above it up to the home, or up to the root
    outside of it (misc.c: safe_path). It reads the file as the user. No file, no flaw.
    """
    name = os.path.basename(place.path)
    if directory.status(name) is None:
        return []
    return [
        _described(path, found)
        for path, found in _parts(tree, place, directory)
        if _is_bad(tree, found, place)
    ]


def is_lenient(tree: Tree) -> bool:
    """Whether the tree's sshd lets a group write in which the user is alone, as Debian's and its kin do.

    They are known by os-release(5).
    """
    content = tree.read("/etc/os-release", limit=65536) or tree.read("/usr/lib/os-release", limit=65536)
    for line in (content or b"").decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        if key in ("ID", "ID_LIKE") and "debian" in value.strip("\"'").split():
            return True
    return False


def _parts(tree: Tree, place: Place, directory: Directory) -> Iterator[tuple[str, os.stat_result]]:
    name = os.path.basename(place.path)
    folder = rights.real_path(tree, directory)
    yield from _found(f"{folder.rstrip('/')}/{name}", directory.status(name))
    yield from _found(folder, directory.status())
    home = _home(tree, place.account)
    for path in () if folder == home else rights.above(folder):
        with tree.opened(path) as above:
            yield from _found(path, above.status())
        if path == home:
            return


def _found(path: str, status: os.stat_result | None) -> Iterator[tuple[str, os.stat_result]]:
    if status:
        yield path, status


def _home(tree: Tree, account: Account) -> str | None:
    """Where the home really is; sshd looks at nothing above it."""
    home = tree.open(account.home)
    if home is None:
        return None
    with home:
        return rights.real_path(tree, home)


def _is_bad(tree: Tree, found: os.stat_result, place: Place) -> bool:
    owners = (0, os.getuid(), place.account.uid)
    return (
        found.st_uid not in owners
        or _others_can_write(tree, found, place)
        or (place.as_root and not _may_use(found, place))
    )


def _others_can_write(tree: Tree, found: os.stat_result, place: Place) -> bool:
    writers = found.st_mode & rights.OTHERS_WRITE
    is_alone = writers == stat.S_IWGRP and place.accounts.has_group_alone(place.account, found.st_gid)
    return bool(writers) and not (is_alone and is_lenient(tree))


def _may_use(found: os.stat_result, place: Place) -> bool:
    """Whether the user may read the file, or pass the directory; what the user's own rights did, they may."""
    if place.account.uid == 0 or os.geteuid() != 0:
        return True
    needed = 0o1 if stat.S_ISDIR(found.st_mode) else 0o4
    shift = 6 if found.st_uid == place.account.uid else 3 if found.st_gid in place.groups else 0
    return bool(found.st_mode >> shift & needed)


def _described(path: str, found: os.stat_result) -> str:
    return f"{path} (mode {_octal(found.st_mode)}, owner {found.st_uid})"


def _octal(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"
