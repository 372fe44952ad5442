"""G4: no SSH host keys in the image."""

from __future__ import annotations

import binascii
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from firstkey.image.changes import Remove
from firstkey.image.places import unbraced
from firstkey.image.rule import Rule
from firstkey.image.secrets import content_of
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, Finding, Part, Unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system.sshd import public_half

DROPBEAR, TINYSSH = "/etc/dropbear", "/etc/tinyssh/sshkeydir"
# sshd(8), FILES, with the dsa keys and the protocol-1 key of old versions; copies and set-aside ones too.
# Some distributions had them right in /etc; ALT Linux has them in /etc/openssh.
PATTERNS = unbraced(
    "/etc/{ssh/,,openssh/}ssh_host_*key*", "/etc/ssh/ssh_host_key*",
    f"{DROPBEAR}{{/,/initramfs/,-initramfs/}}dropbear_*_host_key*", f"{TINYSSH}/{{.*.sk,*.pk}}",
)  # fmt: skip
_PRIVATE = re.compile(rb"SSH PRIVATE KEY FILE FORMAT|-----BEGIN [^\n]*PRIVATE KEY")
KINDS = (b"ssh-", b"ecdsa-", b"sk-", b"rsa-")
"""What the names of all types begin with, behind their length (RFC 4253, 6.6)."""
LARGEST = 1024 * 1024
"""No key is larger, in bytes."""


def host_key_files(image: Image) -> list[str]:
    """Every file of a host key: private and public halves and certificates, in use or not, sorted.

    And links to one: they may lead to the next key that is put there.
    """
    named = list(DEFAULTS.host_keys)
    with suppress(FirstkeyError):
        # In effect or not; relative paths are not allowed there.
        named += [*image.sshd.written("HostKey"), *image.sshd.written("HostCertificate")]
        named += image.sshd.effective("root").host_keys
    bases = (*named, *_ends(image, named))
    halves = (f"{path}{end}" for path in bases for end in ("", ".pub", "-cert.pub"))
    found = {path for path in halves if path.startswith("/")}.union(*map(image.glob, PATTERNS))
    seen = ((path, image.status(path)) for path in found)
    links = {path for path, status in seen if status and stat.S_ISLNK(status.st_mode)}
    return sorted(links | _ends(image, found))


def _ends(image: Image, paths: Iterable[str]) -> set[str]:
    """The files that the paths lead to."""
    return {file.path for path in paths for file in [image.file(path, [])] if file}


def is_host_key(image: Image, path: str) -> bool:
    """Whether the file is one by its name or its content, or a link that leads to one.

    A HostKey line alone is no proof: it may name any file of the system.
    """
    if any(path in image.glob(pattern) for pattern in PATTERNS):
        return True
    file = image.file(path, [])
    content = (image.read(file.path) if file and file.status.st_size <= LARGEST else None) or b""
    blob = _public_blob(content) or content  # dropbear's are as OpenSSH's blobs
    return bool(_PRIVATE.match(content)) or blob[4:].startswith(KINDS)


def _check(image: Image) -> Iterator[Part]:
    for path in host_key_files(image):  # a private half before its public one
        if not is_host_key(image, path):
            reason = "A HostKey line names this file, and there is no key in it."
            yield Finding(path, reason, "Look at it, and at the HostKey lines of sshd's configuration")
            continue
        half = "the public half of a host key" if path.endswith(".pub") else "a host key"
        found = Finding(path, f"This is {half}: every instance of the image would show the same.")
        try:
            found = found._replace(changes=(Remove(path, "host key", wiping=True, blob=_blob(image, path)),))
        except FirstkeyError as error:  # a boot could not recognise it
            yield Unknown(path, error.refusal)
        yield found
    image.sshd.written("HostKey")  # where that cannot be read, there may be others


def _blob(image: Image, path: str) -> bytes | None:
    """The public half, by which the key is remembered; dropbear's and tinyssh's have forms of their own."""
    if path.startswith((DROPBEAR, TINYSSH)):
        return None
    public = f"{path.removesuffix('.pub')}.pub"
    found = content_of(image, public, limit=LARGEST) if image.is_file(public) else None
    blob = _public_blob(found or b"")
    if blob or path == public:
        return blob
    return _public_blob(public_half(content_of(image, path, limit=LARGEST) or b"")[0])


def _public_blob(content: bytes) -> bytes | None:
    """The blob of a public key file, or None where it is none."""
    words = content.split()
    try:
        return binascii.a2b_base64(words[1]) if len(words) > 1 else None
    except binascii.Error:
        return None


RULES = (
    Rule(
        id="host-keys",
        title="There are no SSH host keys",
        guideline="G4",
        severity=ERROR,
        prose="""Instances with the same host key can pretend to be one another, and every owner of the image
        can pretend to be any of them. AWS looks for host keys in public images, warns their users, and makes
        the image private after a while. The rule checks every file that a HostKey line names, in effect or
        not, all ssh_host_* files with their copies and certificates, dropbear's and tinyssh's. seal
        overwrites and removes them (one that only a setting names, if there is a key in it), and leaves
        salted hashes in /var/lib/firstkey/sealed-host-keys.json, by which a boot recognises a key that comes
        back. Overwriting can leave older copies on the disk; an image made from a fresh disk has none.""",
        check=_check,
        finds_files=True,
        failing={
            "/etc/ssh/sshd_config": "HostKey /etc/keys/host\n",
            "/etc/keys/host": "-----BEGIN OPENSSH PRIVATE KEY-----\nbroken\n",
            "/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA root@builder\n",
        },
        passing={"/etc/ssh/sshd_config": "HostKey /etc/keys/host\n", "/etc/ssh/moduli": "# none\n"},
    ),
)
