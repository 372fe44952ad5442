"""The door through which seal changes a tree: by descriptors, through no link, and only what was seen before.

A path that comes here has no link in it. It is entered name by name from the root. Where a link is on the way
by now, or another file at its end than the one that was looked at, nothing is done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import shadow
from firstkey.reasons import FirstkeyError
from firstkey.system import erase, mounts, walk
from firstkey.system.files import ANYTHING, Changed, Directory, File, Looks
from firstkey.system.mounts import Mount, is_at_or_below
from firstkey.system.tree import Tree

LIMIT = 16 * 1024 * 1024
"""The largest file that is rewritten; all of them are configuration."""

WIPED = "overwritten and removed"
ONLY_REMOVED = "removed, but not overwritten: it is large, no plain file, or has other names"

NEEDED = frozenset({
    *shadow.FIELDS, "/etc/subuid", "/etc/subgid", "/etc/nsswitch.conf", "/etc/pam.d", "/etc/pam.conf",
    "/etc/sudoers", "/etc/login.defs", "/etc/shells", "/etc/hosts", "/etc/fstab", "/etc/crypttab",
    "/etc/ld.so.conf", "/etc/ld.so.cache", "/etc/os-release", "/etc/ssh/sshd_config", "/etc/systemd",
    "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/lib/os-release", "/bin", "/lib", "/sbin", "/boot", "/var/lib",
    "/home", "/root",
})  # fmt: skip
"""What no system does without: neither these nor what holds them is ever removed or emptied."""


class Seen(NamedTuple):
    """Which file it was when it was looked at. `kind` as stat(2) has it; `single`: it had no other name."""

    device: int
    inode: int
    kind: int
    uid: int
    single: bool

    def require(self, found: os.stat_result, path: str) -> None:
        """Raise FirstkeyError where this is another file, or has got another name since."""
        now = seen(found)
        if now[:-1] != self[:-1] or (self.single and not now.single):
            raise changed(path)


def seen(found: os.stat_result) -> Seen:
    """What is to be known again of a file that has that status."""
    kind = stat.S_IFMT(found.st_mode)
    single = kind != stat.S_IFREG or found.st_nlink == 1
    return Seen(found.st_dev, found.st_ino, kind, found.st_uid, single)


def needed(tree: Tree, foreign: Sequence[Mount]) -> frozenset[str]:
    """NEEDED in this tree: with what a link of such a name leads to, and the links on the way.

    What is mounted from elsewhere stays in any case, and is not looked at: its server may be gone.
    """
    own = (path for path in NEEDED if mounts.over(foreign, tree.root, path) is None)
    ends = filter(None, (walk.end_of(tree, path) for path in own))
    return NEEDED.union(*((end.path, *end.links) for end in ends))


def changed(path: str) -> FirstkeyError:
    """That something else is there now."""
    message = f"{path} was exchanged after the audit; it was not changed"
    return FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)


class Context(NamedTuple):
    """What a change is applied with.

    `holds` asks sshd whether the setting of that keyword is as it should be, with some files replaced.
    `instance` is the one that the image is made on: its own host keys may come back there. `foreign`: what
    is mounted in the tree from elsewhere now. `needed`: what is never removed or emptied in this tree.
    """

    tree: Tree
    holds: Callable[[str, Mapping[str, bytes]], bool]
    instance: str | None = None
    foreign: tuple[Mount, ...] = ()
    needed: frozenset[str] = NEEDED

    def require_own(self, path: str) -> None:
        """Raise FirstkeyError where a path without links leads to what is mounted from elsewhere."""
        mount = mounts.over(self.foreign, self.tree.root, path)
        if mount:
            raise mounted(path, mount)

    @contextmanager
    def door(self, path: str, *, make: bool = False) -> Iterator[tuple[Directory | None, str]]:
        """The open directory of a path that has no link in it, and the name; None where it is not there.

        With `make`, it is made. Raises FirstkeyError where a link is on the way by now, or a mount from
        elsewhere.
        """
        self.require_own(path)
        *above, name = path.split("/")[1:]
        here = self.tree.opened("/")
        for part in above:
            with here, _unexchanged(here, part):
                below = here.child(part) or (here.make(part, Looks(0o755)) if make else None)
            if below is None:
                yield None, name
                return
            here = below
        with here:
            yield here, name


def mounted(path: str, mount: Mount) -> FirstkeyError:
    """That the path is no part of the image."""
    message = f"{path} was left alone: {mount.path} ({mount.kind}) is mounted there from elsewhere"
    return FirstkeyError(message, reason=image_reasons.MOUNTED)


@contextmanager
def _unexchanged(directory: Directory, name: str) -> Iterator[None]:
    """Where there is a link, or a file for a directory, it is something else than what was looked at."""
    try:
        yield
    except FirstkeyError as error:
        if error.reason in (reasons.SYMLINK_REFUSED, reasons.NOT_A_DIRECTORY):
            raise changed(directory.join(name)) from error
        raise


def checked(path: str, known: Seen | None, needed: frozenset[str]) -> Callable[[os.stat_result], None]:
    """What the door asks of the file that is there. Raises FirstkeyError at once for what may never go."""
    if any(is_at_or_below(each, path) for each in needed):
        raise FirstkeyError(f"{path} is the system's", reason=image_reasons.NEEDED)
    if known is None:
        raise changed(path)
    return lambda found: known.require(found, path)


def read(directory: Directory, name: str) -> File | None:
    """The regular file as it is."""
    with _unexchanged(directory, name):
        return directory.read(name, limit=LIMIT)


def put(
    directory: Directory, name: str, content: bytes, old: File | None, *, mode: int, over_link: bool = False
) -> None:
    """Replace the file in one instant; owner, mode and SELinux label stay what they were.

    A new file takes the label of one beside it, since the image's own policy cannot be asked here.
    """
    directory.remove_stale()
    if old is None:
        looks = Looks(mode, label=erase.label_for_new(directory))
    else:
        owner = (old.uid, old.gid) if os.geteuid() == 0 else None
        looks = Looks(old.mode, owner, erase.label(directory, name), attributes=old.attributes)
    try:
        directory.replace(name, content, looks, expected=ANYTHING if over_link else old)
    except Changed as error:
        message = f"{directory.join(name)} changed while it was written"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE) from error
