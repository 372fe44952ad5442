"""G4: no SSH host keys in the image."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from firstkey.boot import sealed
from firstkey.errors import FirstkeyError
from firstkey.image import changes
from firstkey.image.host_key_files import DROPBEAR, host_key_files
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Finding, Verdict
from firstkey.named_tuple import NamedTuple
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """Every file that is a host key, or half of one."""
    return Verdict(tuple(_finding(path) for path in host_key_files(image)))


def _finding(path: str) -> Finding:
    half = "the public half of a host key" if path.endswith(".pub") else "a host key"
    reason = f"This is {half}: every instance of the image would show the same."
    return Finding(path, reason, f"shred -u -- {changes.quoted(path)}")


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove them; the private ones first, while what they are can be remembered."""
    files = host_key_files(image)
    return [RemoveHostKey(path) for path in sorted(files, key=lambda path: (path.endswith(".pub"), path))]


class RemoveHostKey(NamedTuple):
    """Overwrite and remove one file of a host key, and remember by a salted hash which key it was."""

    path: str

    def describe(self) -> str:
        """One line."""
        return f"overwrite and remove {visible(self.path)} (host key), and leave a salted hash of it"

    def apply(self, image: Image) -> str:
        """The hash first: what is gone can no longer be told from a stranger's."""
        if not self.path.startswith(DROPBEAR):
            _remember(image, self.path)
        return changes.Remove(self.path, "host key", wiping=True).apply(image)


def _remember(image: Image, path: str) -> None:
    public = path if path.endswith(".pub") else f"{path}.pub"
    status = image.status(public)
    blob = None
    if status and stat.S_ISREG(status.st_mode):
        blob = sealed.blob_of_public(image.read(public, limit=changes.LIMIT) or b"")
    if blob is None and not path.endswith(".pub"):
        blob = sealed.blob_of_private(image.read(path, limit=changes.LIMIT) or b"")
    if blob is not None:
        try:
            sealed.remember(image.tree, blob, instance=_instance(image))
        except FirstkeyError as error:
            message = (
                f"the host key {path} was not removed, since it could not be remembered: {error.message}"
            )
            raise FirstkeyError(message, reason=error.reason) from error


def _instance(image: Image) -> str | None:
    """The instance that the image is made on: its own keys may come back there."""
    return image.site.firmware_instance() if image.tree.is_running_system else None


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
        "dropbear's. seal overwrites and removes them, and leaves salted hashes in "
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
