"""Putting host keys in place: each half in one instant, and never beside the half of another key.

New files are written through the door in `system.files`; here is decided what goes first.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from firstkey.boot import host_key_survey, host_keys
from firstkey.named_tuple import NamedTuple
from firstkey.system import openssh, selinux
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.boot.host_keys import Action
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

PUBLIC_MODE = 0o644


class Pair(NamedTuple):
    """A new key pair that is not in place yet. `looks`: how the private half is to be."""

    action: Action
    private: bytes
    public_line: bytes
    public: PublicKey
    looks: Looks

    @property
    def digest(self) -> str:
        """The digest that the pair has once it is in place."""
        uid, gid = self.looks.owner or (os.geteuid(), 0)
        return host_key_survey.digest_of(self.private, self.public_line, (self.looks.mode, uid, gid))


def private_looks(site: Site, private: bytes, workshop: Directory) -> Looks:
    """0640 for the group ssh_keys where there is one and OpenSSH takes such a key, else 0600.

    Which of the two is right changed several times with OpenSSH's versions, so OpenSSH itself is the
    judge: of a copy of the key in `workshop`, a private directory.
    """
    if not openssh.is_root():
        return Looks(host_keys.PRIVATE_MODE)
    group = site.accounts.group_id(host_keys.KEY_GROUP)
    if group is not None:
        lent = Looks(host_keys.GROUP_MODE, (0, group))
        workshop.replace("judged", private, lent._replace(durable=False))
        if openssh.loads(f"{workshop.on_host}/judged"):
            return lent
    return Looks(host_keys.PRIVATE_MODE, (0, 0))


def prove_writable(tree: Tree, file: str) -> None:
    """Raise FirstkeyError where a new key could not be put in place, before the work of making one."""
    place = tree.locate(file)
    if place is None:
        return
    with place[0] as directory:
        directory.remove(directory.stage(place[1], b"", Looks(host_keys.PRIVATE_MODE, durable=False)))


def publish(site: Site, pair: Pair) -> str | None:
    """Put a new pair in place; returns where the old private half was moved to, if it was kept.

    The old public half goes first, the new one comes last: a private half alone is a host key to sshd,
    and at no instant do halves of different keys stand side by side.
    """
    file = pair.action.file
    aside = None
    directory, name = site.tree.place(file)
    with directory:
        directory.remove_stale()
        if pair.action.kind == host_keys.SET_ASIDE:
            aside = _set_aside(directory, name)
        _clear_public_half(site.tree, pair)
        directory.replace(name, pair.private, pair.looks._replace(label=_label(site, file)))
    _write_public_half(site, file, pair.public_line)
    return aside


def amend(site: Site, action: Action) -> None:
    """Mend the looks of a key that stays, and derive its public half if that is lost."""
    found = action.found
    if found.is_loose:
        directory, name = site.tree.place(action.file)
        with directory:
            if openssh.is_root():
                directory.set_owner(name, 0, 0)
            directory.set_mode(name, host_keys.PRIVATE_MODE)
    if action.kind == host_keys.DERIVE and found.public:
        _write_public_half(site, action.file, host_key_survey.public_line(found.public))


def _set_aside(directory: Directory, name: str) -> str | None:
    """Keep what is broken under another name, for whoever wants to look at it; for root alone."""
    if directory.status(name) is None:
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    free = directory.free_name(f"{name}.broken.{stamp}")
    directory.rename(name, free)
    directory.set_mode(free, host_keys.PRIVATE_MODE)
    return directory.join(free)


def _clear_public_half(tree: Tree, pair: Pair) -> None:
    """Out of the way with the old public half; one that belongs to what was set aside goes with it."""
    place = tree.locate(f"{pair.action.file}.pub")
    if place is None:
        return
    directory, name = place
    with directory:
        if pair.action.kind == host_keys.SET_ASIDE and directory.status(name):
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            directory.rename(name, directory.free_name(f"{name}.broken.{stamp}"))
        else:
            directory.remove(name, durable=True)


def _write_public_half(site: Site, file: str, line: bytes) -> None:
    path = f"{file}.pub"
    directory, name = site.tree.place(path)
    with directory:
        directory.remove_stale()
        directory.replace(name, line, Looks(PUBLIC_MODE, label=_label(site, path)))


def _label(site: Site, path: str) -> str | None:
    return selinux.default_label(site.tree, path, "file")
