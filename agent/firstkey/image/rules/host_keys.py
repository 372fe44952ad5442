"""G4: no SSH host keys in the image."""

from __future__ import annotations

import binascii
import posixpath
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey.image.changes import Remove
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Finding, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system.sshd import public_half

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

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
    blob = _public_blob(content) or content  # dropbear's are as OpenSSH's blobs
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


def check(image: Image) -> Verdict:
    """Every file that is a host key, or half of one, and what sshd is told is one and does not look so."""
    return Verdict(tuple(_finding(image, path) for path in host_key_files(image)))


def _finding(image: Image, path: str) -> Finding:
    if not is_host_key(image, path):
        reason = "A HostKey line names this file, and there is no key in it."
        return Finding(path, reason, "Look at it, and at the HostKey lines of sshd's configuration")
    half = "the public half of a host key" if path.endswith(".pub") else "a host key"
    reason = f"This is {half}: every instance of the image would show the same."
    return Finding(path, reason)


def remedy(image: Image, _verdict: Verdict) -> list[Change]:
    """Overwrite and remove them, the private ones first. What is no key by name or content is left."""
    files = [path for path in host_key_files(image) if is_host_key(image, path)]
    files.sort(key=lambda path: (path.endswith(".pub"), path))
    return [Remove(path, "host key", wiping=True, blob=_blob(image, path)) for path in files]


def _blob(image: Image, path: str) -> bytes | None:
    """The public half, by which the key is remembered; dropbear's have a form of their own."""
    if path.startswith(DROPBEAR):
        return None
    public = path if path.endswith(".pub") else f"{path}.pub"
    blob = _public_blob(_content(image, public)) if image.is_file(public) else None
    if blob is None and not path.endswith(".pub"):
        line, _ = public_half(_content(image, path))
        blob = _public_blob(line)
    return blob


def _public_blob(content: bytes) -> bytes | None:
    """The blob of a public key file, or None where it is none."""
    words = content.split()
    try:
        return binascii.a2b_base64(words[1]) if len(words) > 1 else None
    except binascii.Error:
        return None


def _content(image: Image, path: str) -> bytes:
    """What is in it; of what cannot be a key, nothing."""
    try:
        return image.read(path, limit=LARGEST) or b""
    except FirstkeyError:
        return b""


RULES = (
    Rule(
        id="host-keys",
        title="There are no SSH host keys",
        guideline="G4",
        severity=ERROR,
        prose=(
            "Instances with the same host key can pretend to be one another, and every owner of the "
            "image can pretend to be any of them. AWS looks for host keys in public images, warns "
            "their users, and makes the image private after a while. The rule checks every file that "
            "a HostKey line names, in effect or not, all ssh_host_* files of every type with their "
            "copies and certificates, and dropbear's. seal overwrites and removes them (a file that "
            "only a setting names, if there is a key in it). It leaves salted hashes in "
            "/var/lib/firstkey/sealed-host-keys.json, by which a boot recognises a key that comes "
            "back; the instance generates keys of its own. Overwriting reaches the present blocks of "
            "the file system: journals, copy-on-write file systems, snapshots, RAID, flash disks and "
            "caches can keep older copies. An image made from a fresh disk has none."
        ),
        check=check,
        remedy=remedy,
        failing={
            "/etc/ssh/sshd_config": "HostKey /etc/keys/host\n",
            "/etc/keys/host": "-----BEGIN OPENSSH PRIVATE KEY-----\nbroken\n",
            "/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA root@builder\n",
        },
        passing={"/etc/ssh/sshd_config": "HostKey /etc/keys/host\n", "/etc/ssh/moduli": "# none\n"},
    ),
)
