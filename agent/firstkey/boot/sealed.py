"""The salted hashes of the host keys that `firstkey seal` removed: how a boot knows one that comes back.

A hash tells a key that one has again, and tells nobody which key it was; the salt keeps two images that were
sealed with the same key from being linked.
"""

from __future__ import annotations

import binascii
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.system import keygen
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

DIRECTORY = "/var/lib/firstkey"
NAME = "sealed-host-keys.json"
PATH = f"{DIRECTORY}/{NAME}"
LIMIT = 1024 * 1024
VERSION = 1
SALT_BYTES = 16
ORIGIN = "an instance whose image was sealed"
"""What stands for the instance of a key that came back: which one it was is not kept."""


class Sealed(NamedTuple):
    """Which host keys were removed, each by its hash, and on which instance, by its hash too."""

    salt: bytes
    hashes: frozenset[str]
    instances: frozenset[str] = frozenset()

    def knows(self, blob: bytes, instance: str | None) -> bool:
        """Whether the key of that public half was removed, and positively not on this very instance."""
        return (
            instance is not None
            and bool(self.hashes)
            and self.digest(blob) in self.hashes
            and self.digest(instance.encode()) not in self.instances
        )

    def digest(self, content: bytes) -> str:
        """The salted hash."""
        from firstkey.ssh.public_key import sha256

        digest: str = sha256(self.salt + content).hexdigest()
        return digest


NOTHING = Sealed(b"", frozenset())


def load(tree: Tree) -> Sealed:
    """What seal left; nothing where there is no such file, or one that seal did not write so."""
    with suppress(FirstkeyError):
        content = tree.read(PATH, limit=LIMIT)
        return _parsed(content) if content else NOTHING
    return NOTHING


def remember(tree: Tree, blob: bytes, *, instance: str | None) -> None:
    """Add a removed key. Raises FirstkeyError where the file cannot be written."""
    before = load(tree)
    sealed = before if before.salt else Sealed(os.urandom(SALT_BYTES), frozenset())
    instances = {sealed.digest(instance.encode())} if instance else set()
    sealed = sealed._replace(
        hashes=sealed.hashes | {sealed.digest(blob)}, instances=sealed.instances | instances
    )
    if sealed == before:
        return
    with tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        directory.replace(NAME, _written(sealed), Looks(0o600))


def blob_of_public(content: bytes) -> bytes | None:
    """The blob of a public key file, or None where it is none."""
    words = content.split()
    try:
        return binascii.a2b_base64(words[1]) if len(words) > 1 else None
    except binascii.Error:
        return None


def blob_of_private(content: bytes) -> bytes | None:
    """The public blob of a private key that ssh-keygen can load, or None."""
    line = keygen.public_half(content)
    return blob_of_public(line) if line else None


def _written(sealed: Sealed) -> bytes:
    plain: dict[str, Any] = {
        "version": VERSION,
        "salt": sealed.salt.hex(),
        "hashes": sorted(sealed.hashes),
        "instances": sorted(sealed.instances),
    }
    return json.dumps(plain, indent=1).encode() + b"\n"


def _parsed(content: bytes) -> Sealed:
    try:
        plain = json.loads(content)
        if plain["version"] != VERSION:
            return NOTHING
        return Sealed(bytes.fromhex(plain["salt"]), frozenset(plain["hashes"]), frozenset(plain["instances"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return NOTHING
