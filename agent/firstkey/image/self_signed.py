"""Keys that a package made when it was installed, with a certificate that nobody trusts."""

from __future__ import annotations

import binascii
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.image.subject import Image

LIMIT = 1024 * 1024
_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]*-----\s([A-Za-z0-9+/=\s]+)-----END ", re.DOTALL)
_VERSION = 0xA0
_SHARED = 32
"""So many bytes of a public key (RSA's modulus, a point of a curve) are in its private key too, and none are
in both by chance. Every stretch of twice as many has one that begins at a multiple of its half.
"""

# Key, certificate, and how to make both anew: ssl-cert of Debian; mod_ssl of Fedora and its kin; dovecot.
PAIRS = (
    (
        "/etc/ssl/private/ssl-cert-snakeoil.key",
        "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        "make-ssl-cert generate-default-snakeoil --force-overwrite",
    ),
    ("/etc/pki/tls/private/localhost.key", "/etc/pki/tls/certs/localhost.crt", "sscg"),
    ("/etc/pki/dovecot/private/dovecot.pem", "/etc/pki/dovecot/certs/dovecot.pem", "mkcert.sh"),
)


def self_signed_keys(image: Image) -> dict[str, str]:
    """Such keys, each with the command that makes a new one, where the certificate proves it."""
    return {
        key: command
        for key, certificate, command in PAIRS
        if is_self_signed_pair(_content(image, certificate), _content(image, key))
    }


def _content(image: Image, path: str) -> bytes:
    """What cannot be read proves nothing, so the key is then nobody's own."""
    with suppress(FirstkeyError):
        return image.read(path, limit=LIMIT) or b""
    return b""


def is_self_signed_pair(certificate: bytes, key: bytes) -> bool:
    """Whether the certificate (PEM) names its own subject as its issuer, and the key (PEM) is its key."""
    outer, private = _der(certificate), _der(key)
    try:
        # RFC 5280, 4.1: version, serial number, algorithm, issuer, validity, subject, public key
        body = next(_values(next(_values(outer))[1]))[1]
        fields = [field for tag, field in _values(body) if tag != _VERSION]
        issuer, subject, public = fields[2], fields[4], fields[5]
    except (IndexError, ValueError, StopIteration):
        return False
    places = range(0, len(private) - _SHARED + 1, _SHARED // 2)
    return issuer == subject and any(private[place : place + _SHARED] in public for place in places)


def _der(pem: bytes) -> bytes:
    """The content of the first PEM block; nothing where there is none."""
    match = _BLOCK.search(pem)
    with suppress(binascii.Error):
        return binascii.a2b_base64(match[1]) if match else b""
    return b""


def _values(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each value, as DER has them (X.690). Raises ValueError where one is cut off."""
    place = 0
    while place + 2 <= len(content):
        tag, length = content[place], content[place + 1]
        place += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(content[place : place + octets], "big")
            place += octets
        if place + length > len(content):
            raise ValueError("cut off")
        yield tag, content[place : place + length]
        place += length
