"""Which files of an image are host keys: several rules must know, and none may claim another's."""

from __future__ import annotations

import binascii
import json
import os
import posixpath
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey.boot import ledger
from firstkey.boot.ledger import Sealed
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system.files import Looks
from firstkey.system.sshd import public_half

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.image.subject import Image
    from firstkey.system.tree import Tree

# sshd(8), FILES, with the dsa keys and the protocol-1 key of old versions; copies and set-aside ones too.
# Some distributions had them right in /etc; ALT Linux has them in /etc/openssh.
PATTERNS = (
    "/etc/ssh/ssh_host_*key*",
    "/etc/ssh_host_*key*",
    "/etc/ssh/ssh_host_key*",
    "/etc/openssh/ssh_host_*key*",
)
PRIVATE = (b"-----BEGIN ", b"SSH PRIVATE KEY FILE FORMAT")
KINDS = (b"ssh-", b"ecdsa-", b"sk-", b"rsa-")
"""What the names of all types begin with, behind their length (RFC 4253, 6.6)."""
LARGEST = 1024 * 1024
"""No key is larger, in bytes."""
SALT_BYTES = 16
DROPBEAR = "/etc/dropbear/"
DROPBEAR_PATTERN = f"{DROPBEAR}dropbear_*_host_key*"


def host_key_files(image: Image) -> list[str]:
    """Every file of a host key: private and public halves and certificates, in use or not, sorted."""
    named = (*_configured(image), *DEFAULTS.host_keys)
    really = [file.path for path in named for file in [image.file(path, [])] if file]
    halves = (f"{path}{end}" for path in (*named, *really) for end in ("", ".pub", "-cert.pub"))
    found = {path for path in halves if path.startswith("/") and image.status(path)}
    for pattern in (*PATTERNS, DROPBEAR_PATTERN):
        found.update(image.glob(pattern))
    return sorted({file for path in found for file in _files(image, path)})


def is_host_key(image: Image, path: str) -> bool:
    """Whether the file is one by its name or its content, or a link that leads to one.

    A HostKey line alone is no proof: it may name any file of the system.
    """
    place = posixpath.split(path)
    for directory, pattern in map(posixpath.split, (*PATTERNS, DROPBEAR_PATTERN)):
        if place[0] == directory and fnmatchcase(place[1], pattern):
            return True
    file = image.file(path, [])
    content = (image.read(file.path) if file and file.status.st_size <= LARGEST else None) or b""
    first = content.partition(b"\n")[0]
    if first.startswith(PRIVATE) and b"PRIVATE KEY" in first:
        return True
    blob = blob_of_public(content) or content  # dropbear's are as OpenSSH's blobs
    return blob[4:].startswith(KINDS)


def _configured(image: Image) -> list[str]:
    """What HostKey and HostCertificate lines name, in effect or not; relative paths are not allowed there."""
    written = [*image.sshd.written("HostKey"), *image.sshd.written("HostCertificate")]
    try:
        return [*written, *image.sshd.effective("root").host_keys]
    except FirstkeyError:
        return written


def _files(image: Image, path: str) -> Iterator[str]:
    """The file that the path leads to, and a link itself: it may lead to the next key that is put there."""
    status = image.status(path)
    if status and stat.S_ISLNK(status.st_mode):
        yield path
    file = image.file(path, [])
    if file:
        yield file.path


def remember(tree: Tree, blob: bytes, *, instance: str | None) -> None:
    """Add a removed key to the salted hashes by which a boot knows one that comes back.

    Raises FirstkeyError where the file cannot be written.
    """
    before = ledger.load_sealed(tree)
    sealed = before if before.salt else Sealed(os.urandom(SALT_BYTES))
    instances = {sealed.digest(instance.encode())} if instance else set()
    sealed = Sealed(sealed.salt, sealed.hashes | {sealed.digest(blob)}, sealed.instances | instances)
    if sealed == before:
        return
    plain = {
        "version": ledger.VERSION,
        "salt": sealed.salt.hex(),
        "hashes": sorted(sealed.hashes),
        "instances": sorted(sealed.instances),
    }
    with tree.ensure(ledger.DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        content = json.dumps(plain, indent=1).encode() + b"\n"
        directory.replace(posixpath.basename(ledger.SEALED), content, Looks(0o600))


def blob_of_public(content: bytes) -> bytes | None:
    """The blob of a public key file, or None where it is none."""
    words = content.split()
    try:
        return binascii.a2b_base64(words[1]) if len(words) > 1 else None
    except binascii.Error:
        return None


def blob_of_private(content: bytes) -> bytes | None:
    """The public blob of a private key that ssh-keygen can load, or None."""
    line = public_half(content)
    return blob_of_public(line) if line else None
