"""Just enough of X.509 to know a certificate that a machine signed for itself, and its key."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]*-----\s([A-Za-z0-9+/=\s]+)-----END ", re.DOTALL)
_SEQUENCE, _BIT_STRING, _INTEGER, _VERSION = 0x30, 0x03, 0x02, 0xA0
_SHORTEST = 32
"""Bytes of a public key or of its modulus: nothing so long is in a private key by chance."""


def der_of(pem: bytes) -> bytes | None:
    """The content of the first PEM block, or None."""
    match = _BLOCK.search(pem)
    try:
        return binascii.a2b_base64(match[1]) if match else None
    except binascii.Error:
        return None


def is_self_signed_pair(certificate: bytes, key: bytes) -> bool:
    """Whether the certificate (PEM) names its own subject as its issuer, and the key (PEM) is its key."""
    outer, private = der_of(certificate), der_of(key)
    if outer is None or private is None:
        return False
    try:
        # RFC 5280, 4.1: version, serial number, algorithm, issuer, validity, subject, public key
        fields = [field for tag, field in _children(_first(_first(outer))) if tag != _VERSION]
        issuer, subject, public = fields[2], fields[4], fields[5]
        return issuer == subject and _essence(public) in private
    except (IndexError, ValueError):
        return False


def _essence(public: bytes) -> bytes:
    """What of the public key is in the private one too: RSA's modulus, or the point of a curve."""
    bits = _of_kind(_BIT_STRING, public)[1:]
    if bits[:1] == b"\x30":
        bits = _of_kind(_INTEGER, _first(bits))
    if len(bits) < _SHORTEST:
        raise ValueError("there is no such short key")
    return bits


def _of_kind(wanted: int, content: bytes) -> bytes:
    for tag, field in _children(content):
        if tag == wanted:
            return field
    raise ValueError("no such value is in it")


def _first(content: bytes) -> bytes:
    for _, field in _children(content):
        return field
    raise ValueError("nothing is in it")


def _children(content: bytes) -> Iterator[tuple[int, bytes]]:
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
