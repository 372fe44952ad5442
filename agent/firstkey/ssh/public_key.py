"""OpenSSH public keys: a line of text in, a key out, or the reason why not.

A key is taken where ssh-keygen(1) and sshd(8) take it. All formats of a key's data (RFC 4253 6.6,
RFC 5656 3.1, RFC 8709 4, OpenSSH PROTOCOL.u2f) are nothing but a sequence of strings, each led by its
length, so one reader serves them all. What the strings must be is known here of the two types that EC2 has;
about the others, ssh-keygen is to be asked.
"""

from __future__ import annotations

import re
import sys
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from contextlib import suppress
from importlib import import_module

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from typing import Any

SIZE_LIMIT = 16 * 1024
"""Bytes of a launch key's text. The largest key there is, RSA with 16384 bits, takes under 6 KiB."""
JUDGED_HERE = ("ssh-ed25519", "ssh-rsa")
"""Types of which all is known that OpenSSH looks at."""

# OpenSSH reads no smaller RSA key, whatever RequiredRSASize= says, and no larger number.
_RSA_LEAST_BITS = 1024
_NUMBER_LIMIT = 16384 // 8


def sha256(data: bytes = b"") -> Any:  # noqa: ANN401 - the hash object has no public type
    """As hashlib.sha256, without loading OpenSSL, which takes longer than all there is to hash.

    These are CPython's own modules beneath hashlib, which not every distribution has.
    """
    with suppress(ImportError):
        return import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256(data)
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
        return _KNOWN[self.type][0] if self.type in _KNOWN else self.type

    @property
    def bits(self) -> int:
        """The size that `ssh-keygen -l` prints; 0 of a type that is not known here."""
        if self.type == "ssh-rsa":
            return int.from_bytes(_fields(self.blob)[2], "big").bit_length()
        return _KNOWN[self.type][1] if self.type in _KNOWN else 0


def parse_launch_key(text: bytes) -> PublicKey:
    """The one public key that `text` is: one line, no options, of a type that sshd takes for a login.

    Blank lines around it count for nothing, as with `ssh-keygen -l`. Raises
    FirstkeyError(not-a-public-key) with a sentence that shows little of what was there, escaped.
    """
    if len(text) > SIZE_LIMIT:
        raise _flaw(f"it is {len(text)} bytes long; no public key is longer than {SIZE_LIMIT}")
    line = text.strip(b" \t\r\n")
    if not line:
        raise _flaw("it is empty")
    for beginnings, sentence in _OTHER_THINGS.items():
        if line.startswith(beginnings):
            raise _flaw(sentence)
    if b"\n" in line:
        raise _flaw(f"it has {line.count(10) + 1} lines; a public key is one line")
    # Tabs may stand between the words, as OpenSSH allows; in a comment they are control characters.
    control = _CONTROL.search(line.replace(b"\t", b" ").decode("ascii", "surrogateescape"))
    if control:
        raise _flaw(f"it contains a control character ({ord(control[0]):#04x}, byte {control.start()})")
    words = _BLANKS.split(line, 2)
    if words[0].endswith(_CERTIFICATE):
        raise _flaw("it is a certificate; only plain public keys are launch keys")
    if words[0] not in _TYPES:
        if any(other in _TYPES for other in _BLANKS.split(line)):
            raise _flaw(f"options or a name are before the key: {_excerpt(line)}; a launch key has none")
        raise _flaw(f"it does not start with a type of key that OpenSSH has: {_excerpt(line)}")
    if len(words) == 1:
        raise _flaw(f"the line ends after the type {_excerpt(words[0])}; the key itself is missing")
    key = _key(words)
    if _CONTROL.search(key.comment):
        raise _flaw("the comment contains a control character")
    return key


def read_key(text: bytes) -> PublicKey | None:
    """The key at the start of a line of `authorized_keys` as sshd reads it, None where it reads none.

    Certificates and DSA keys are none: sshd lets nobody in for one in that file.
    """
    words = _BLANKS.split(text, 2)
    if len(words) == 1 or words[0] not in _TYPES:
        return None
    try:
        return _key(words)
    except FirstkeyError:
        return None


def read_host_key(text: bytes) -> PublicKey | None:
    """As `read_key`; a key of a type that is not known here is one too, if its data begins with its name."""
    words = _BLANKS.split(text, 2)
    if len(words) == 1 or words[0] in _TYPES:
        return read_key(text)
    try:
        blob = _from_base64(words[1])
    except FirstkeyError:
        return None
    if not blob.startswith(_field(words[0])):
        return None
    return PublicKey(words[0].decode("ascii", "replace"), blob, _comment(words))


def _flaw(sentence: str) -> FirstkeyError:
    return FirstkeyError(sentence, reason=reasons.NOT_A_PUBLIC_KEY)


# --- the line -------------------------------------------------------------------------------------

_BLANKS = re.compile(rb"[ \t]+")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
_PRIVATE = tuple(
    b"-----BEGIN %bPRIVATE" % kind for kind in (b"", b"OPENSSH ", b"RSA ", b"EC ", b"ENCRYPTED ")
)
_OTHER_THINGS = {
    (
        *_PRIVATE,
        b"PuTTY-User-Key-File",
    ): "it is a private key, not a public key; a private key must not be published",
    (
        b"-----BEGIN",
        b"---- BEGIN",
    ): "it is in PEM or RFC 4716 form; `ssh-keygen -i` makes the one line of it that sshd takes",
    (b"<",): "it is a page of HTML or XML, not a public key",
    (b"ssh-dss ", b"ssh-dss\t"): "it is a DSA key; sshd has accepted none since OpenSSH 7.0",
}
"""What people and services put where a public key belongs, by how it begins."""
_CERTIFICATE = (b"-cert-v01@openssh.com", b"-cert-v00@openssh.com")


def _excerpt(data: bytes) -> str:
    """The beginning of hostile content: short, quoted, and with nothing in it that acts on a terminal."""
    shown = ascii(data[:32].decode("utf-8", "replace"))
    return shown if len(data) <= 32 else shown + "..."


# --- the key's data -------------------------------------------------------------------------------


def _key(words: list[bytes]) -> PublicKey:
    """Out of a known type, base64 and perhaps a comment; FirstkeyError where sshkey_read takes none."""
    kind = _TYPES[words[0]]
    blob = _from_base64(words[1])
    name, *fields = _fields(blob) or (b"",)
    if name != kind.encode("ascii"):
        raise _flaw(f"its first word says {_excerpt(words[0])}, but its data is that of another type")
    if kind == "ssh-ed25519" and [len(field) for field in fields] != [32]:
        raise _flaw("its data is not the 32 bytes that a key of this type has")
    if kind == "ssh-rsa":
        if len(fields) != 2:
            raise _flaw(f"its data has {len(fields)} numbers; a key of this type has 2")
        exponent, modulus = map(_number, fields)
        # ssh-keygen prints such a key, but with 1 anybody could sign for it, and with 0 or 2 nobody can.
        if exponent <= 2:
            raise _flaw("its RSA exponent is not one that a signature can be checked with")
        if modulus.bit_length() < _RSA_LEAST_BITS:
            raise _flaw(f"it has {modulus.bit_length()} bits; sshd takes no RSA key under {_RSA_LEAST_BITS}")
        # OpenSSH passes over needless zeros before a number (RFC 4251 5: mpint), and means the same key.
        numbers = (number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (exponent, modulus))
        blob = b"".join(map(_field, (name, *numbers)))
    if kind.startswith("sk-") and b"\0" in b"".join(fields[-1:]):
        raise _flaw("its application contains a NUL")
    return PublicKey(kind, blob, _comment(words))


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
        raise _flaw("the key after its type is not base64, or is cut off")
    return data


def _fields(blob: bytes) -> tuple[bytes, ...]:
    fields, start = [], 0
    while start < len(blob):
        begin = start + 4
        start = begin + int.from_bytes(blob[start:begin], "big")
        if start > len(blob):
            raise _flaw("its data is cut off, or something is appended to it")
        fields.append(blob[begin:start])
    return tuple(fields)


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _number(field: bytes) -> int:
    if field[:1] >= b"\x80":
        raise _flaw("a number in its data is negative")
    if len(field) > _NUMBER_LIMIT + field.startswith(b"\0"):
        raise _flaw(f"a number in its data has over {_NUMBER_LIMIT * 8} bits; OpenSSH reads no larger one")
    return int.from_bytes(field, "big")


_KNOWN = {
    "ssh-ed25519": ("ed25519", 256),
    "ssh-rsa": ("rsa", 0),
    "ecdsa-sha2-nistp256": ("ecdsa", 256),
    "ecdsa-sha2-nistp384": ("ecdsa", 384),
    "ecdsa-sha2-nistp521": ("ecdsa", 521),
    "sk-ssh-ed25519@openssh.com": ("ed25519-sk", 256),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("ecdsa-sk", 256),
    "ssh-dss": ("dsa", 1024),
}
"""What `ssh-keygen -t` calls each type, and its size; each RSA key has its own."""

# OpenSSH takes the names of signatures for the types that they belong to (sshkey.c: sigonly).
_TYPES = {name.encode("ascii"): name for name in _KNOWN if name != "ssh-dss"}
_TYPES[b"rsa-sha2-256"] = _TYPES[b"rsa-sha2-512"] = "ssh-rsa"
_TYPES[b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com"] = "sk-ecdsa-sha2-nistp256@openssh.com"
