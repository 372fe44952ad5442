"""What clients keep of host keys: lines of known_hosts (sshd(8)), SSHFP records (RFC 4255, 6594, 7479)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from firstkey.ssh.public_key import PublicKey

STANDARD_PORT = 22

_HOST = re.compile(r"(?!@)[^\s,*?!|#\[\]\0]+")
_ALGORITHMS = {"rsa": 1, "dsa": 2, "ecdsa": 3, "ed25519": 4}


def is_host(text: str) -> bool:
    """Whether that can stand for one host: no pattern, no list, nothing that begins another field."""
    return bool(_HOST.fullmatch(text)) and text.isprintable()


def name_of(host: str, port: int) -> str:
    """How known_hosts has the host: in lower case, and with the port where it is another than ssh's own."""
    return host.lower() if port == STANDARD_PORT else f"[{host.lower()}]:{port}"


def lines(names: Sequence[str], key: PublicKey) -> list[str]:
    """One line, for all names."""
    return [" ".join([",".join(names), *_words(key)])]


def sshfp(host: str, key: PublicKey) -> list[str]:
    """The records for DNS, with SHA-1 and SHA-256, as `ssh-keygen -r` prints them; none for other types."""
    import hashlib

    number = _ALGORITHMS.get(key.short_type)
    if number is None:
        return []
    # SHA-1 for the clients that know no other; it is no secret and no signature.
    digests = (hashlib.sha1(key.blob).hexdigest(), hashlib.sha256(key.blob).hexdigest())  # noqa: S324
    return [f"{host} IN SSHFP {number} {kind} {digest}" for kind, digest in enumerate(digests, start=1)]


def _words(key: PublicKey) -> list[str]:
    return key.line.split(" ")[:2]
