"""G4: no SSH host keys in the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import changes
from firstkey.image.changes import RemoveHostKey
from firstkey.image.host_key_files import (
    DROPBEAR,
    LARGEST,
    blob_of_private,
    blob_of_public,
    host_key_files,
    is_host_key,
)
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Finding, Verdict
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """Every file that is a host key, or half of one, and what sshd is told is one and does not look so."""
    return Verdict(tuple(_finding(image, path) for path in host_key_files(image)))


def _finding(image: Image, path: str) -> Finding:
    if not is_host_key(image, path):
        reason = "sshd is told that this is a host key, and there is no key in it."
        return Finding(path, reason, "Look at it, and at the HostKey lines of sshd's configuration")
    half = "the public half of a host key" if path.endswith(".pub") else "a host key"
    reason = f"This is {half}: every instance of the image would show the same."
    return Finding(path, reason, f"shred -u -- {changes.quoted(path)}")


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove them, the private ones first. What is no key by name or content is left."""
    files = [path for path in host_key_files(image) if is_host_key(image, path)]
    files.sort(key=lambda path: (path.endswith(".pub"), path))
    return [RemoveHostKey(path, _blob(image, path)) for path in files]


def _blob(image: Image, path: str) -> bytes | None:
    """The public half, by which the key is remembered; dropbear's have a form of their own."""
    if path.startswith(DROPBEAR):
        return None
    public = path if path.endswith(".pub") else f"{path}.pub"
    blob = blob_of_public(_content(image, public)) if image.is_file(public) else None
    if blob is None and not path.endswith(".pub"):
        blob = blob_of_private(_content(image, path))
    return blob


def _content(image: Image, path: str) -> bytes:
    """What is in it; of what cannot be a key, nothing."""
    try:
        return image.read(path, limit=LARGEST) or b""
    except FirstkeyError:
        return b""


def _failing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "HostKey /etc/keys/host\n")
    tree.file("/etc/keys/host", "-----BEGIN OPENSSH PRIVATE KEY-----\nbroken\n", mode=0o600)
    tree.file("/etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA root@builder\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "HostKey /etc/keys/host\n")
    tree.file("/etc/ssh/moduli", "# none\n")


RULE = Rule(
    id="host-keys",
    title="There are no SSH host keys",
    guideline="G4",
    severity=ERROR,
    prose=(
        "Instances with the same host key can pretend to be one another, and whoever has the image can "
        "pretend to be any of them. AWS looks for host keys in public images, warns their users, and "
        "makes the image private after a while. Checked is every file that a HostKey line names, in "
        "effect or not, all ssh_host_* files of every type with their copies and certificates, and "
        "dropbear's. seal overwrites and removes them (what only a setting names, if there is a key in it), "
        "and leaves salted hashes in "
        "/var/lib/firstkey/sealed-host-keys.json, by which a boot knows a key that comes back; the "
        "instance makes keys of its own. Overwriting reaches the blocks that the file system gives now: "
        "journals, copy-on-write file systems, snapshots, RAID, flash disks and caches can keep older "
        "copies. An image made from a fresh disk has none."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
