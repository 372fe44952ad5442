"""OpenSSH public keys: a line of text in, a key out, or the reason why not.

A key is taken where ssh-keygen(1) and sshd(8) take it. All formats of a key's data (RFC 4253 6.6,
RFC 5656 3.1, RFC 8709 4, OpenSSH PROTOCOL.u2f) are nothing but a sequence of strings, each led by its
length, so one reader serves them all. What the strings must be is checked by one function for a type.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

SIZE_LIMIT = 16 * 1024
"""Bytes of a launch key's text. The largest key there is, RSA with 16384 bits, takes under 6 KiB."""

# OpenSSH reads no smaller RSA key, whatever RequiredRSASize= says, and no larger number.
_RSA_LEAST_BITS = 1024
_NUMBER_LIMIT = 16384 // 8

Fields = tuple[bytes, ...]


def sha256(data: bytes = b"") -> Any:  # noqa: ANN401 - the hash object has no public type
    """As hashlib.sha256, without loading OpenSSL, which takes longer than all there is to hash.

    These are CPython's own modules beneath hashlib, which not every distribution has.
    """
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        with suppress(ImportError):
            return import_module(name).sha256(data)
    from hashlib import sha256 as by_openssl

    return by_openssl(data)


class PublicKey(NamedTuple):
    """A public key. `type` is OpenSSH's name ("ssh-ed25519"), `blob` the key's data, decoded.

    `comment` is UTF-8 where it can be (else surrogateescape). Out of `parse_launch_key` it has no
    control characters; out of `read_key` it has whatever stood in the file.
    """

    type: str
    blob: bytes
    comment: str = ""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: "SHA256:" and unpadded base64."""
        digest = b2a_base64(sha256(self.blob).digest(), newline=False)
        return "SHA256:" + digest.decode("ascii").rstrip("=")

    @property
    def line(self) -> str:
        """As it stands in a file, with single spaces and no newline."""
        data = b2a_base64(self.blob, newline=False).decode("ascii")
        return " ".join(filter(None, (self.type, data, self.comment)))

    @property
    def short_type(self) -> str:
        """What `ssh-keygen -t` calls it: "ed25519", "rsa", "ecdsa", "dsa", "ed25519-sk", "ecdsa-sk"."""
        return _FORMATS[self.type].short_type if self.type in _FORMATS else self.type

    @property
    def bits(self) -> int:
        """The size that `ssh-keygen -l` prints; 0 of a type that is not known here."""
        form = _FORMATS.get(self.type)
        if form is None:
            return 0
        return form.bits or _number(_fields(self.blob)[form.modulus]).bit_length()


def parse_launch_key(text: bytes) -> PublicKey:
    """The one public key that `text` is: one line, no options, taken by sshd for a login.

    Blank lines around it count for nothing, as with `ssh-keygen -l`. Raises
    FirstkeyError(not-a-public-key) with a sentence that shows little of what was there, escaped.
    """
    try:
        return _parse(text)
    except _Flaw as flaw:
        raise FirstkeyError(str(flaw), reason=reasons.NOT_A_PUBLIC_KEY) from None


def read_key(text: bytes) -> PublicKey | None:
    """The key at the start of a line of `authorized_keys` as sshd reads it, None where it reads none.

    Certificates are none: sshd lets nobody in for one in that file. DSA keys are keys here.
    """
    words = _BLANKS.split(text, 2)
    if len(words) == 1 or words[0] not in _TYPES:
        return None
    try:
        return _key(words)
    except _Flaw:
        return None


def read_host_key(text: bytes) -> PublicKey | None:
    """As `read_key`; a key of a type that is not known here is one too, if its data begins with its name."""
    words = _BLANKS.split(text, 2)
    if len(words) == 1 or words[0] in _TYPES:
        return read_key(text)
    try:
        blob = _from_base64(words[1])
    except _Flaw:
        return None
    if not blob.startswith(_field(words[0])):
        return None
    return PublicKey(words[0].decode("ascii", "replace"), blob, _comment(words))


class _Flaw(Exception):  # noqa: N818  what a text has is a flaw; the error is made of it at the door
    """A sentence that says why a text is not a public key."""


# --- the line -------------------------------------------------------------------------------------

_BLANKS = re.compile(rb"[ \t]+")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def _parse(text: bytes) -> PublicKey:
    line = _only_line(text)
    words = _BLANKS.split(line, 2)
    _refuse_other_types(words[0], line)
    if len(words) == 1:
        raise _Flaw(f"the line ends after the type {_excerpt(words[0])}; the key itself is missing")
    key = _key(words)
    if _CONTROL.search(key.comment):
        raise _Flaw("the comment contains a control character")
    return key


def _only_line(text: bytes) -> bytes:
    if len(text) > SIZE_LIMIT:
        raise _Flaw(f"it is {len(text)} bytes long; no public key is longer than {SIZE_LIMIT}")
    line = text.strip(b" \t\r\n")
    if not line:
        raise _Flaw("it is empty")
    _refuse_other_formats(line)
    if b"\n" in line:
        raise _Flaw(f"it has {line.count(10) + 1} lines; a public key is one line")
    # Tabs may stand between the words, as OpenSSH allows; _parse looks for them in the comment.
    control = _CONTROL.search(line.replace(b"\t", b" ").decode("ascii", "surrogateescape"))
    if control:
        raise _Flaw(f"it contains a control character ({ord(control[0]):#04x}, byte {control.start()})")
    return line


def _refuse_other_formats(line: bytes) -> None:
    """Things that people and services put where a public key belongs, each by its name."""
    armour = line.startswith((b"-----BEGIN", b"---- BEGIN"))
    if (armour and b"PRIVATE" in line.split(b"\n")[0]) or line.startswith(b"PuTTY-User-Key-File"):
        raise _Flaw("it is a private key, not a public key; whoever can read it should not have it")
    if armour:
        raise _Flaw("it is in PEM or RFC 4716 form; `ssh-keygen -i` makes the one line of it that sshd takes")
    if line.startswith(b"<"):
        raise _Flaw(f"it is a page of HTML or XML, not a public key: {_excerpt(line)}")


def _refuse_other_types(word: bytes, line: bytes) -> None:
    """The first word must be the type of a plain key that sshd lets in without being told to."""
    if word == b"ssh-dss":
        raise _Flaw("it is a DSA key; sshd has let nobody in with one since OpenSSH 7.0")
    if word.endswith((b"-cert-v01@openssh.com", b"-cert-v00@openssh.com")):
        raise _Flaw("it is a certificate; only plain public keys are launch keys")
    if word in _TYPES:
        return
    if any(other in _TYPES for other in _BLANKS.split(line)):
        raise _Flaw(f"options or a name stand before the key: {_excerpt(line)}; a launch key has none")
    raise _Flaw(f"it does not start with a type of key that OpenSSH has: {_excerpt(line)}")


def _excerpt(data: bytes) -> str:
    """The beginning of hostile content: short, quoted, and with nothing in it that acts on a terminal."""
    shown = ascii(data[:32].decode("utf-8", "replace"))
    return shown if len(data) <= 32 else shown + "..."


# --- the key's data -------------------------------------------------------------------------------


def _key(words: list[bytes]) -> PublicKey:
    """Out of a known type, base64 and perhaps a comment. Raises _Flaw where sshkey_read takes none."""
    kind = _TYPES[words[0]]
    fields = _fields(_from_base64(words[1]))
    if not fields or fields[0] != kind.encode("ascii"):
        raise _Flaw(f"its first word says {_excerpt(words[0])}, but its data is that of another type")
    return PublicKey(kind, b"".join(map(_field, _FORMATS[kind].checked(fields))), _comment(words))


def _comment(words: list[bytes]) -> str:
    return b"".join(words[2:]).rstrip(b" \t\r\n").decode("utf-8", "surrogateescape")


def _from_base64(text: bytes) -> bytes:
    text = text.translate(None, b"\n\v\f\r")  # which OpenSSH's decoder passes over
    try:
        data = a2b_base64(text)
    except NotBase64:
        data = b""
    # Python's decoder is laxer than OpenSSH's: foreign characters, and bits left over at the end.
    if b2a_base64(data, newline=False) != text:
        raise _Flaw("the key after its type is not base64, or is cut off")
    return data


def _fields(blob: bytes) -> Fields:
    fields, start = [], 0
    while start < len(blob):
        begin = start + 4
        start = begin + int.from_bytes(blob[start:begin], "big")
        if start > len(blob):
            raise _Flaw("its data is cut off, or something is appended to it")
        fields.append(blob[begin:start])
    return tuple(fields)


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


# --- what the data of each type must be -------------------------------------------------------------


def _count(fields: Fields, count: int) -> None:
    if len(fields) != count:
        raise _Flaw(f"its data has {len(fields)} parts; a key of this type has {count}")


def _number(field: bytes) -> int:
    if field[:1] >= b"\x80":
        raise _Flaw("a number in its data is negative")
    if len(field) > _NUMBER_LIMIT + field.startswith(b"\0"):
        raise _Flaw(f"a number in its data has over {_NUMBER_LIMIT * 8} bits; OpenSSH reads no larger one")
    return int.from_bytes(field, "big")


def _shortest(field: bytes) -> bytes:
    """OpenSSH passes over needless zeros before a number (RFC 4251 5: mpint), and means the same key."""
    number = _number(field)
    return number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b""


def _rsa(fields: Fields) -> Fields:
    _count(fields, 3)
    exponent, modulus = (_number(field) for field in fields[1:])
    if modulus.bit_length() < _RSA_LEAST_BITS:
        raise _Flaw(f"it has {modulus.bit_length()} bits; sshd takes no RSA key under {_RSA_LEAST_BITS}")
    # ssh-keygen prints such a key, but with 1 anybody could sign for it, and with the others nobody can.
    if not 2 < exponent < modulus:
        raise _Flaw("its RSA exponent is not one that a signature can be checked with")
    return (fields[0], *map(_shortest, fields[1:]))


def _dsa(fields: Fields) -> Fields:
    _count(fields, 5)
    return (fields[0], *map(_shortest, fields[1:]))


def _ed25519(fields: Fields) -> Fields:
    _count(fields, 2)
    if len(fields[1]) != 32:
        raise _Flaw(f"its Ed25519 key has {len(fields[1])} bytes, not 32")
    return fields


class Curve(NamedTuple):
    """A curve y^2 = x^3 - 3x + b over a prime field, and the order of its base point (FIPS 186-4, D.1.2)."""

    prime: int
    b: int
    order: int

    def has(self, point: bytes) -> bool:
        """Whether OpenSSH takes the encoded point: uncompressed (SEC 1, 2.3.3), on the curve, and no freak.

        Freaks (sshkey.c: sshkey_ec_validate_public) have a coordinate of no more than half the
        order's bits, or one that reaches the order less one. Honest keys never do.
        """
        size = (self.prime.bit_length() + 7) // 8
        if len(point) != 1 + 2 * size or point[0] != 4:
            return False
        x, y = int.from_bytes(point[1 : 1 + size], "big"), int.from_bytes(point[1 + size :], "big")
        small = min(x, y).bit_length() <= self.order.bit_length() // 2
        large = max(x, y) >= min(self.order - 1, self.prime)
        return not small and not large and (x**3 - 3 * x + self.b - y**2) % self.prime == 0


# ssh-keygen asks OpenSSL the same. To start it for each key would take a boot longer, and could fail.
CURVES = {
    b"nistp256": Curve(
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    ),
    b"nistp384": Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    ),
    b"nistp521": Curve(
        2**521 - 1,
        (0x51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1 << 256)
        + 0x56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
    ),
}
"""By the name that a key's data has for it (RFC 5656, 10.1)."""


def _ecdsa(fields: Fields) -> Fields:
    _count(fields, 3)
    curve = CURVES.get(fields[1])
    if curve is None or not fields[0].split(b"@")[0].endswith(b"-" + fields[1]):
        raise _Flaw("its elliptic curve is not the one that its type names")
    if not curve.has(fields[2]):
        raise _Flaw("its point is not on the elliptic curve")
    return fields


def _security_key(plain: Callable[[Fields], Fields]) -> Callable[[Fields], Fields]:
    """Keys on hardware (types with -sk): the plain key, and the name of an application at the end."""

    def checked(fields: Fields) -> Fields:
        plain(fields[:-1])
        if b"\0" in fields[-1]:
            raise _Flaw("its application contains a NUL")
        return fields

    return checked


class _Format(NamedTuple):
    """`checked` gives the fields as OpenSSH writes them; `modulus` is the one whose size counts, if any."""

    short_type: str
    checked: Callable[[Fields], Fields]
    bits: int = 0
    modulus: int = 0


_FORMATS = {
    "ssh-ed25519": _Format("ed25519", _ed25519, bits=256),
    "ssh-rsa": _Format("rsa", _rsa, modulus=2),
    "ecdsa-sha2-nistp256": _Format("ecdsa", _ecdsa, bits=256),
    "ecdsa-sha2-nistp384": _Format("ecdsa", _ecdsa, bits=384),
    "ecdsa-sha2-nistp521": _Format("ecdsa", _ecdsa, bits=521),
    "sk-ssh-ed25519@openssh.com": _Format("ed25519-sk", _security_key(_ed25519), bits=256),
    "sk-ecdsa-sha2-nistp256@openssh.com": _Format("ecdsa-sk", _security_key(_ecdsa), bits=256),
    "ssh-dss": _Format("dsa", _dsa, modulus=1),
}

# OpenSSH takes the names of signatures for the types that they belong to (sshkey.c: sigonly).
_TYPES = {name.encode("ascii"): name for name in _FORMATS}
_TYPES[b"rsa-sha2-256"] = _TYPES[b"rsa-sha2-512"] = "ssh-rsa"
_TYPES[b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com"] = "sk-ecdsa-sha2-nistp256@openssh.com"
