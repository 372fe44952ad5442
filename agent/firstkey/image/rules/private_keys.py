"""G9: no private keys, by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import examples, key_formats, secrets
from firstkey.image.host_key_files import host_key_files, is_host_key
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.secrets import Sorted
from firstkey.image.self_signed import self_signed_keys
from firstkey.image.verdict import ERROR, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

# RFC 8032, 7.1, TEST 1, as a PKCS#8 file: a private key that is public anyway.
EXAMPLE = examples.pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g")
EXAMPLE_MD5 = "58d03e064e669c2e8df3929ea22567b0"


def private_keys(image: Image) -> Sorted:
    """Every private key that is nobody else's business."""
    seen = (*image.sightings(key_formats.KIND), *image.sightings(key_formats.STORE))
    host_keys = (path for path in host_key_files(image) if is_host_key(image, path))
    claimed = {*host_keys, *self_signed_keys(image)}
    return secrets.sorted_out(image, seen, claimed=claimed)


def check(image: Image) -> Verdict:
    """A finding for each file that holds one."""
    return secrets.verdict(private_keys(image))


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove the file, and the public half beside it."""
    paths = [sighting.path for sighting in private_keys(image).secrets]
    halves = [
        f"{path}{end}" for path in paths for end in (".pub", "-cert.pub") if image.is_file(f"{path}{end}")
    ]
    return secrets.removals(image, [*paths, *halves], "private key")


def _failing(tree: Builder) -> None:
    tree.file("/srv/deploy/notes.txt", f"the key is\n{EXAMPLE}", mode=0o600)
    tree.file("/srv/deploy/notes.txt.pub", "ssh-ed25519 AAAA\n")
    tree.file("/usr/share/doc/tls/test.pem", EXAMPLE)
    tree.file("/var/lib/dpkg/info/tls.md5sums", f"{'0' * 32}  usr/share/doc/tls/test.pem\n")


def _passing(tree: Builder) -> None:
    tree.file("/srv/deploy/notes.txt", examples.pem("PRIVATE KEY", "(your key here)"))
    tree.file("/usr/share/doc/tls/test.pem", EXAMPLE)
    tree.file("/var/lib/dpkg/info/tls.md5sums", f"{EXAMPLE_MD5}  usr/share/doc/tls/test.pem\n")


RULE = Rule(
    id="private-keys",
    title="There are no private keys",
    guideline="G9",
    severity=ERROR,
    prose=(
        "Every file is looked into, whatever its name: PEM and OpenSSH keys also inside of other files and "
        "in base64, DER, PuTTY, PGP and GnuPG (armoured or not), SSH.com, age, JSON Web Keys, PKCS#12, Java "
        "key stores and KeePass databases. Keys that a package brought (test keys, examples) are left out "
        "only if the file is byte for byte what the records of the package manager (a Python package's too, "
        "if it came from an index) say; a key in a package's place is found, and an example that was "
        "shortened is no key. Host keys and keys that the system made for itself have rules of their own. "
        "What is inside tar, gzip, bzip2, xz and zip files that no package brought, and in text in UTF-16, "
        "is looked at too; what is encrypted, or packed otherwise, is not seen. seal overwrites and removes "
        "the files only with --remove-credentials."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=key_formats.KEYS,
    option=CREDENTIALS,
)
