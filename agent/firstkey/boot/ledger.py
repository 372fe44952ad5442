"""The ledger: what firstkey installed, where, and for which instance.

It is what makes a launch key be installed once per instance, and lets exactly those lines and host keys go
when the disk wakes up as another instance. It is written before a change (so that a power cut in between
cannot make firstkey forget that a line is its own) and again after it.
A ledger that is damaged, or not root's own, is not believed: it is set aside, and nothing is revoked by it.
Each line is remembered with its options and comment, so that no line which only has the same key is taken
for firstkey's.
"""

from __future__ import annotations

import json
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.system.files import Looks

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from firstkey.ssh.authorized_keys import Written
    from firstkey.system.files import Directory
    from firstkey.system.tree import Tree

DIRECTORY = "/var/lib/firstkey"
NAME = "ledger.json"
PATH = f"{DIRECTORY}/{NAME}"
LIMIT = 4 * 1024 * 1024
VERSION = 1
HOST_KEYS_KEPT = 64
"""How many host keys are remembered. Earlier ones too: an image may bring any of them back."""

PENDING = "pending"
"""The line is about to be added: whether it was is seen in the file."""
INSTALLED = "installed"
"""firstkey added the line; it is firstkey's to revoke."""
PRESENT = "present"
"""The key was there already; the line is a person's and stays."""
TAKEN_OUT = "taken-out"
"""A person had taken the key out of another file before sshd read this one, so it was not added here."""
OWN = (PENDING, INSTALLED)


class InstalledKey(NamedTuple):
    """One launch key in one user's file."""

    user: str
    file: str
    fingerprint: str
    options: str
    comment: str
    instance: str
    state: str

    @property
    def written(self) -> Written:
        """The line, as it is found again in the file."""
        # A run with nothing to do looks at no line.
        from firstkey.ssh.authorized_keys import Written

        return Written(self.fingerprint, self.options, self.comment)

    @property
    def is_own(self) -> bool:
        """Whether the line is firstkey's to revoke."""
        return self.state in OWN


class Served(NamedTuple):
    """A user for whom everything is done, in which file, and under which conditions that was so.

    Where a condition has changed (sshd's configuration, the home, the settings), the user is looked at again.
    """

    name: str
    file: str | None
    conditions: str


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
    firmware: str | None = None
    """What the firmware called the instance when the metadata service named it `instance`."""
    served: tuple[Served, ...] = ()
    keys: tuple[InstalledKey, ...] = ()
    host_keys: tuple[MadeHostKey, ...] = ()
    made_files: tuple[str, ...] = ()
    sshd_digest: str | None = None
    sshd_host_keys: tuple[str, ...] = ()
    sshd_has_key_agent: bool = False

    def host_key_at(self, file: str) -> MadeHostKey | None:
        """What is remembered of the host key that was put in place at `file`, or seen there, last."""
        return next((key for key in reversed(self.host_keys) if key.file == file), None)

    def host_key(self, fingerprint: str) -> MadeHostKey | None:
        """What is remembered of the host key with that fingerprint, wherever it was."""
        return next((key for key in reversed(self.host_keys) if key.fingerprint == fingerprint), None)

    def with_host_key(self, key: MadeHostKey) -> Ledger:
        """The same, with this said of the key in that file. What was said of the file's earlier keys stays.

        A power cut may come before the new key is in place, and an image may bring the old one back.
        """
        same = (key.file, key.fingerprint)
        others = [other for other in self.host_keys if (other.file, other.fingerprint) != same]
        return self._replace(host_keys=(*others, key)[-HOST_KEYS_KEPT:])

    def of(self, user: str, instance: str) -> list[InstalledKey]:
        """What is remembered of the user's launch keys on that instance, in whatever file."""
        return [key for key in self.keys if (key.user, key.instance) == (user, instance)]

    def in_file(self, user: str, file: str) -> list[InstalledKey]:
        """What is remembered of one file, for whatever instance."""
        return [key for key in self.keys if (key.user, key.file) == (user, file)]

    def with_key(self, key: InstalledKey) -> Ledger:
        """The same, with this said of that key in that file on that instance."""
        others = tuple(other for other in self.keys if _place(other) != _place(key))
        return self._replace(keys=(*others, key))

    def without(self, gone: Sequence[InstalledKey]) -> Ledger:
        """The same without these."""
        return self._replace(keys=tuple(key for key in self.keys if key not in gone))

    def of_other_instances(self, instance: str) -> list[InstalledKey]:
        """Lines that firstkey wrote for instances that are positively not this one."""
        return [key for key in self.keys if key.instance != instance and key.is_own]

    def serving(self, user: str) -> Served | None:
        """What is remembered of the user as served on the ledger's instance."""
        return next((served for served in self.served if served.name == user), None)


def _place(key: InstalledKey) -> tuple[str, str, str, str]:
    return (key.user, key.file, key.fingerprint, key.instance)


class Loaded(NamedTuple):
    """A ledger, and why the one on the disk was not believed if it was not."""

    ledger: Ledger
    refusal: Refusal | None


def load(tree: Tree) -> Loaded:
    """Read the ledger: an empty one where there is none, one with a refusal where it cannot be trusted."""
    try:
        return _load(tree)
    except FirstkeyError as error:
        # Who may not read it (a dry run of somebody's) can say nothing about it.
        hidden = error.reason is reasons.PERMISSION_DENIED
        return Loaded(Ledger(), Refusal(error.reason if hidden else reasons.LEDGER_DAMAGED, error.message))


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
        ledger = parsed(file.content) if file else None
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
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        new = directory.free_name(f"{NAME}.damaged.{stamp}")
        directory.rename(NAME, new)
        return directory.join(new)


def save(tree: Tree, ledger: Ledger) -> None:
    """Put the ledger on the disk: durable when this returns, root only."""
    with tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        directory.replace(NAME, rendered(ledger), Looks(0o600))


def rendered(ledger: Ledger) -> bytes:
    """The file's content, which `parsed` reads as the very same ledger."""
    body = json.dumps(_as_json(ledger), sort_keys=True, separators=(",", ":"))
    return f'{{"version":{VERSION},"check":{_check(body)},"ledger":{body}}}\n'.encode()


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
    for name in _PARTS:
        plain[name] = [part._asdict() for part in plain[name]]
    return plain


_PARTS: dict[str, Any] = {"served": Served, "keys": InstalledKey, "host_keys": MadeHostKey}
_OPTIONAL = {"instance", "firmware", "sshd_digest", "served.file", "host_keys.instance", "host_keys.boot"}


def parsed(content: bytes) -> Ledger | None:
    """The ledger in `content`, or None where a byte of it is not as it was written."""
    try:
        whole = json.loads(content)
        plain = whole["ledger"]
        body = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        if whole["version"] != VERSION or whole["check"] != _check(body):
            return None
        return Ledger(**{name: _value(name, plain[name]) for name in Ledger._fields})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _value(name: str, found: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """One field, of the type that it must have; anything else is a TypeError or ValueError."""
    if name in _PARTS:
        return tuple(_part(name, each) for each in found)
    if name in ("made_files", "sshd_host_keys"):
        return tuple(_text(each) for each in found)
    if name in ("host_keys.made", "sshd_has_key_agent"):
        return bool(found)
    return None if found is None and name in _OPTIONAL else _text(found)


def _part(name: str, found: Any) -> Any:  # noqa: ANN401 - as above
    kind = _PARTS[name]
    return kind(**{field: _value(f"{name}.{field}", found[field]) for field in kind._fields})


def _text(found: object) -> str:
    if not isinstance(found, str):
        raise ValueError("not a text")  # noqa: TRY004 - what is wrong is the file, not the program
    return found
