"""The ledger: what firstkey installed, where, and for which instance.

It is what makes a launch key be installed once per instance, and lets exactly those lines and host keys go
when the disk wakes up as another instance. It is written before a change (so that a power cut in between
cannot make firstkey forget that a line is its own) and again after it.
A ledger that is damaged, or not root's own, is not believed: it is set aside, and nothing is revoked by it.
"""

from __future__ import annotations

import json
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.reasons import Refusal
from firstkey.system.files import Looks

if TYPE_CHECKING:
    import os

    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

DIRECTORY = "/var/lib/firstkey"
NAME = "ledger.json"
PATH = f"{DIRECTORY}/{NAME}"
LIMIT = 4 * 1024 * 1024
VERSION = 1

PENDING = "pending"
"""The line is about to be added: whether it was is seen in the file."""
INSTALLED = "installed"
"""firstkey added the line; it is firstkey's to revoke."""
PRESENT = "present"
"""The key was there already; the line is a person's and stays."""


class InstalledKey(NamedTuple):
    """One launch key in one user's file."""

    user: str
    file: str
    fingerprint: str
    options: str
    instance: str
    state: str


class MadeHostKey(NamedTuple):
    """One host key that firstkey made, or found to be good.

    `instance` is None while no instance-id was known; `boot` is the kernel's boot id then, which lets the
    key be tied to the instance later in the same boot. `digest` tells a changed file without ssh-keygen.
    """

    file: str
    fingerprint: str
    digest: str
    instance: str | None
    boot: str | None
    made: bool


class Ledger(NamedTuple):
    """Everything remembered. A value: each change makes a new one, and `save` puts it on the disk."""

    instance: str | None = None
    served: tuple[str, ...] = ()
    keys: tuple[InstalledKey, ...] = ()
    host_keys: tuple[MadeHostKey, ...] = ()
    made_files: tuple[str, ...] = ()
    sshd_digest: str | None = None
    sshd_host_keys: tuple[str, ...] = ()

    def host_key(self, file: str) -> MadeHostKey | None:
        """What is remembered of the host key at `file`."""
        return next((key for key in self.host_keys if key.file == file), None)

    def with_host_key(self, key: MadeHostKey) -> Ledger:
        """The same, with this said of the host key's file."""
        others = tuple(other for other in self.host_keys if other.file != key.file)
        return self._replace(host_keys=(*others, key))

    def of(self, user: str, instance: str) -> dict[str, InstalledKey]:
        """What was installed for the user on that instance, by fingerprint."""
        return {key.fingerprint: key for key in self.keys if (key.user, key.instance) == (user, instance)}

    def of_other_instances(self, instance: str) -> list[InstalledKey]:
        """Lines that firstkey wrote for instances that are positively not this one."""
        return [key for key in self.keys if key.instance != instance and key.state != PRESENT]


class Loaded(NamedTuple):
    """A ledger, and why the one on the disk was not believed if it was not."""

    ledger: Ledger
    refusal: Refusal | None


def load(tree: Tree) -> Loaded:
    """Read the ledger: an empty one where there is none, one with a refusal where it cannot be trusted."""
    try:
        return _load(tree)
    except FirstkeyError as error:
        return Loaded(Ledger(), Refusal(reasons.LEDGER_DAMAGED, error.message))


def _load(tree: Tree) -> Loaded:
    directory = tree.open(DIRECTORY)
    if directory is None:
        return Loaded(Ledger(), None)
    with directory:
        found = directory.status(NAME)
        if found is None:
            return Loaded(Ledger(), None)
        distrust = _distrust(found, directory, privileged=tree.is_running_system)
        file = None if distrust else directory.read(NAME, limit=LIMIT)
        ledger = _parsed(file.content) if file else None
        if ledger is None:
            detail = distrust or f"{PATH} does not hold what firstkey wrote there"
            return Loaded(Ledger(), Refusal(reasons.LEDGER_DAMAGED, detail))
        return Loaded(ledger, None)


def set_aside(tree: Tree) -> str | None:
    """Move a ledger that is not believed out of the way, so that nothing is lost; returns its new path."""
    directory = tree.open(DIRECTORY)
    if directory is None:
        return None
    with directory:
        if directory.status(NAME) is None:
            return None
        new = f"{NAME}.damaged.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        directory.rename(NAME, new)
        return directory.join(new)


def save(tree: Tree, ledger: Ledger) -> None:
    """Put the ledger on the disk: durable when this returns, root only."""
    body = json.dumps(_as_json(ledger), sort_keys=True, separators=(",", ":"))
    content = f'{{"version":{VERSION},"check":{_check(body)},"ledger":{body}}}\n'
    with tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.replace(NAME, content.encode(), Looks(0o600))


def _distrust(found: os.stat_result, directory: Directory, *, privileged: bool) -> str | None:
    """Why the file's own looks forbid believing it: others could have written it."""
    if not stat.S_ISREG(found.st_mode):
        return f"{PATH} is not a regular file"
    above = directory.status()
    for path, status in ((PATH, found), (DIRECTORY, above)):
        if status is None or status.st_mode & 0o022:
            return f"{path} can be written by others than root"
        if privileged and status.st_uid != 0:
            return f"{path} belongs to user {status.st_uid}, not to root"
    return None


def _check(body: str) -> int:
    """A disk's mistakes are found by a checksum; a person who can write the ledger is root already."""
    return zlib.crc32(body.encode())


def _as_json(ledger: Ledger) -> dict[str, Any]:
    plain: dict[str, Any] = ledger._asdict()
    plain["keys"] = [key._asdict() for key in ledger.keys]
    plain["host_keys"] = [key._asdict() for key in ledger.host_keys]
    return plain


def _parsed(content: bytes) -> Ledger | None:
    """The ledger in `content`, or None where a byte of it is not as it was written."""
    try:
        whole = json.loads(content)
        plain = whole["ledger"]
        body = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        if whole["version"] != VERSION or whole["check"] != _check(body):
            return None
        return Ledger(
            instance=plain["instance"],
            served=tuple(plain["served"]),
            keys=tuple(InstalledKey(**key) for key in plain["keys"]),
            host_keys=tuple(MadeHostKey(**key) for key in plain["host_keys"]),
            made_files=tuple(plain["made_files"]),
            sshd_digest=plain["sshd_digest"],
            sshd_host_keys=tuple(plain["sshd_host_keys"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
