"""The ledger: what firstkey installed, where, and for which instance.

By it a launch key is installed once per instance, and exactly those lines and host keys are revoked when an
AMI is launched as another instance. It is written before a change (so that a power cut in between cannot make
firstkey forget that a line is its own) and again after it.
A ledger that is damaged, or not root's own, is not believed: it is kept as a backup, and revokes nothing.
Each line is remembered with its options and comment, so that no line which only has the same key is taken
for firstkey's.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import nullcontext, suppress

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh.public_key import sha256
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from typing import Any

    from firstkey.boot.target import Target
    from firstkey.ssh.authorized_keys import Owned
    from firstkey.system.tree import Tree

DIRECTORY = "/var/lib/firstkey"
NAME = "ledger.json"
PATH = f"{DIRECTORY}/{NAME}"
SEALED = f"{DIRECTORY}/sealed-host-keys.json"
LIMIT = 4 * 1024 * 1024
VERSION = 1
SEALED_ORIGIN = "an instance whose image was sealed"
"""What stands for the instance of a key that seal removed: which one it was is not kept."""
HOST_KEYS_KEPT = 64
"""How many host keys are remembered. Earlier ones too: an image may bring any of them back."""

PENDING = "pending"
"""The line is about to be added: whether it was is seen in the file."""
INSTALLED = "installed"
"""firstkey added the line; it is firstkey's to revoke."""
PRESENT = "present"
"""Not firstkey's: the key was there already, or a person had taken it out before sshd read this file."""


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
    def written(self) -> Owned:
        """The line, as it is found again in the file."""
        return self.fingerprint, self.options, self.comment

    @property
    def is_own(self) -> bool:
        """Whether the line is firstkey's to revoke."""
        return self.state in (PENDING, INSTALLED)


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
    key be tied to the instance later in the same boot. `digest` shows a changed file without ssh-keygen.
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
    sshd_is_strict: bool = True

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

    def with_key(self, key: InstalledKey) -> Ledger:
        """The same, with this said of that key in that file on that instance."""
        place = (*key[:3], key.instance)
        others = [other for other in self.keys if (*other[:3], other.instance) != place]
        return self if key in self.keys else self._replace(keys=(*others, key))

    def of_other_instances(self, instance: str) -> list[InstalledKey]:
        """Lines that firstkey wrote for instances that are positively not this one, and for these alone."""
        own = [key for key in self.keys if key.is_own]
        mine = {key[:5] for key in own if key.instance == instance}
        return [key for key in own if key.instance != instance and key[:5] not in mine]


class LedgerStore:
    """The ledger in the hands of one run: read once, changed as a value, saved where it says anything new.

    `warnings` is what went wrong with it, which costs no user the login. `sshd_digest` is of sshd's whole
    configuration; None: it is unknown.
    """

    def __init__(self, target: Target, sshd_digest: str | None) -> None:
        self.sshd_digest = sshd_digest
        self._target = target
        self.ledger, refusal = load(target.tree)
        self._saved = self.ledger
        self.warnings = [refusal] if refusal else []
        if refusal and refusal.reason is reasons.LEDGER_DAMAGED:
            target.log(events.LEDGER_DAMAGED(file=PATH, detail=refusal.detail))
            if not target.dry_run:
                # Where that fails, so will `save`, which reports it.
                with suppress(FirstkeyError), target.tree.opened(DIRECTORY) as directory:
                    directory.back_up(NAME, "damaged")

    def save(self, new: Ledger | None = None) -> None:
        """Put the ledger (or a newer one) on the disk, if it says anything new. Nothing else saves it.

        What failed once may succeed at the end of the run, and it is worth much to know one's own keys.
        """
        self.ledger = new or self.ledger
        if self._target.dry_run or self.ledger == self._saved:
            return
        try:
            save(self._target.tree, self.ledger)
            self._saved = self.ledger
        except FirstkeyError as error:
            if error.refusal not in self.warnings:
                self.warnings.append(error.refusal)
                self._target.log(events.STATE_NOT_SAVED(file=PATH, **error.refusal.fields))

    # --- what is up to date: nothing of it need be looked at again, and no service asked -------------

    def is_current(self, instance: str) -> bool:
        """Whether everything is done for everybody on this instance."""
        names = self._target.config.keys.holders
        return (
            all(self.serving(name, instance) for name in names)
            and not any(key.state == PENDING for key in self.ledger.keys if key.user in names)
            and not any(self._target.accounts.listed(key.user) for key in self.stale(instance))
        )

    def stale(self, instance: str) -> list[InstalledKey]:
        """What firstkey wrote for other instances, if such lines are to go."""
        keeps = self._target.config.keys.revoke == "never"
        return [] if keeps else self.ledger.of_other_instances(instance)

    def serving(self, name: str, instance: str) -> Served | None:
        """How the user is served on this instance, if nothing about that has changed since."""
        found = next((each for each in self.ledger.served if each.name == name), None)
        is_current = self.ledger.instance == instance and found and found.conditions == self.conditions(name)
        return found if is_current else None

    def conditions(self, name: str) -> str | None:
        """All that decides where and how this user is served, in one line; None where it cannot be known.

        Only the files are asked, not a directory service: the network may be far from being there.
        """
        if self.sshd_digest is None:
            return None
        account = self._target.accounts.listed(name)
        groups = self._target.accounts.group_ids(account) if account else []
        own = self._target.config.user(name).authorized_keys_file
        return repr((self.sshd_digest, own, account and account[:-1], groups))


def load(tree: Tree) -> tuple[Ledger, Refusal | None]:
    """Read the ledger: an empty one where there is none, or with the reason why that is not believed."""
    try:
        with tree.open(DIRECTORY) or nullcontext() as directory:
            file = directory.read(NAME, limit=LIMIT) if directory else None
            if directory is None or file is None:
                return Ledger(), None
            above = os.fstat(directory.fd)
    except FirstkeyError as error:
        # A dry run by a user who may not read it can say nothing about it.
        hidden = error.reason is reasons.PERMISSION_DENIED
        return Ledger(), Refusal(error.reason if hidden else reasons.LEDGER_DAMAGED, error.message)
    ledger, damage = parsed(file.content), f"{PATH} does not hold what firstkey wrote there"
    for path, mode, uid in ((PATH, file.mode, file.uid), (DIRECTORY, above.st_mode, above.st_uid)):
        if mode & 0o022 or (uid and tree.is_running_system):
            ledger, damage = None, f"{path} can be written by others than root"
    return (ledger, None) if ledger else (Ledger(), Refusal(reasons.LEDGER_DAMAGED, damage))


def save(tree: Tree, ledger: Ledger) -> None:
    """Put the ledger on the disk: durable when this returns, root only."""
    with tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        directory.replace(NAME, rendered(ledger), Looks(0o600))


_PARTS: dict[str, Any] = {"served": Served, "keys": InstalledKey, "host_keys": MadeHostKey}


def rendered(ledger: Ledger) -> bytes:
    """The file's content, which `parsed` reads as the very same ledger. Its checksum is for a bad disk."""
    parts = {name: [part._asdict() for part in getattr(ledger, name)] for name in _PARTS}
    body = json.dumps({**ledger._asdict(), **parts}, sort_keys=True, separators=(",", ":"))
    return f'{{"version":{VERSION},"check":{zlib.crc32(body.encode())},"ledger":{body}}}\n'.encode()


def parsed(content: bytes) -> Ledger | None:
    """The ledger in `content`, or None where a byte of it is not as it was written.

    What a version before or after this one did not know of has its default, or is passed over.
    """
    try:
        whole = json.loads(content)
        plain = whole["ledger"]
        body = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        if whole["version"] != VERSION or whole["check"] != zlib.crc32(body.encode()):
            return None
        known = {name: plain[name] for name in Ledger._fields if name in plain}
        for name, found in known.items():
            if kind := _PARTS.get(name):
                known[name] = tuple(kind(**{field: part[field] for field in kind._fields}) for part in found)
            elif isinstance(Ledger._field_defaults[name], tuple):
                known[name] = tuple(found)
        return Ledger(**known)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Sealed(NamedTuple):
    """Which host keys `firstkey seal` removed, each by its hash, and on which instance, by its hash too.

    By its hash a key is known when it is there again, and cannot be guessed; the salt keeps two images that
    were sealed with the same key from being linked.
    """

    salt: bytes = b""
    hashes: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()

    def knows(self, blob: bytes, instance: str | None) -> bool:
        """Whether the key of that public half was removed, and positively not on this very instance."""
        if not (instance and self.hashes):
            return False
        return self.digest(blob) in self.hashes and self.digest(instance.encode()) not in self.instances

    def digest(self, content: bytes) -> str:
        """The salted hash."""
        return sha256(self.salt + content).hexdigest()


def load_sealed(tree: Tree) -> Sealed:
    """What seal left; nothing where there is no such file, or one that seal did not write so."""
    with suppress(FirstkeyError, ValueError, KeyError, TypeError, RecursionError):
        plain = json.loads(tree.read(SEALED, limit=LIMIT) or b"")
        if plain["version"] == VERSION:
            parts = frozenset(map(str, plain["hashes"])), frozenset(map(str, plain["instances"]))
            return Sealed(bytes.fromhex(plain["salt"]), *parts)
    return Sealed()
