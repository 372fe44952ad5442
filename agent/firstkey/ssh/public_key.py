"""OpenSSH public keys: a line of text in, a key out, or the reason why not.

A key is taken where ssh-keygen(1) and sshd(8) take it. All formats of a key's data (RFC 4253 6.6,
RFC 5656 3.1, RFC 8709 4, OpenSSH PROTOCOL.u2f) are nothing but a sequence of strings, each led by its
length, so one reader serves them all. What the strings must be is known here of the two types that EC2 has;
about the others, ssh-keygen is to be asked.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from contextlib import suppress

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    import hashlib

    sha256 = hashlib.sha256
else:
    # Without OpenSSL, which takes longer to load than all there is to hash: CPython's own modules beneath
    # hashlib (one since 3.12, one before), which not every distribution has.
    for _name in ("_sha2", "_sha256", "hashlib"):
        with suppress(ImportError):
            sha256 = __import__(_name).sha256
            break

SIZE_LIMIT = 16 * 1024
"""Bytes of a launch key's text. The largest key there is, RSA with 16384 bits, takes under 6 KiB."""
JUDGED_HERE = ("ssh-ed25519", "ssh-rsa")
"""Types of which all is known that OpenSSH looks at."""
RSA_BITS = range(1024, 16384 + 1)
"""OpenSSH reads no smaller RSA key, whatever RequiredRSASize= says, and no larger number."""


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
    words = _BLANKS.split(line, 2)
    if words[0] not in _TYPES:
        # How it begins tells what it is: a certificate, options, a page of HTML.
        begin = repr(line.split(b"\n")[0][:40])[1:]  # nothing in it acts on a terminal
        raise _flaw(f"it does not begin with a type of key that sshd takes for a login, but with {begin}")
    # Tabs may stand between the words, as OpenSSH allows; in a comment they are control characters.
    if _CONTROL.search(b" ".join(words).decode("utf-8", "surrogateescape")):
        raise _flaw("it has a second line or a control character; a public key is one line of text")
    if (key := _key(words)) is None:
        raise _flaw(f"what follows is not the data of an {words[0].decode()} key, or is cut off")
    return key


def read_key(text: bytes) -> PublicKey | None:
    """The key at the start of a line of `authorized_keys` as sshd reads it, None where it reads none.

    Certificates and DSA keys are none: sshd takes no login by one in that file.
    """
    words = _BLANKS.split(text, 2)
    return _key(words) if words[0] in _TYPES else None


def read_host_key(text: bytes) -> PublicKey | None:
    """As `read_key`; a key of a type that is not known here is one too, if its data begins with its name."""
    return _key(_BLANKS.split(text, 2))


def _flaw(sentence: str) -> FirstkeyError:
    return FirstkeyError(sentence, reason=reasons.NOT_A_PUBLIC_KEY)


_BLANKS = re.compile(rb"[ \t]+")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


def _key(words: list[bytes]) -> PublicKey | None:
    """The key out of a type, base64 and perhaps a comment; None where sshkey_read takes none."""
    kind = _TYPES.get(words[0]) or words[0].decode("ascii", "replace")
    text = b"".join(words[1:2]).translate(None, b"\n\v\f\r")  # which OpenSSH's decoder passes over
    name, blob = kind.encode(), b""
    with suppress(NotBase64):
        blob = a2b_base64(text)
    # Python's decoder is laxer than OpenSSH's: foreign characters, and bits left over at the end.
    is_exact = b2a_base64(blob, newline=False) == text
    if not (is_exact and blob.startswith(len(name).to_bytes(4, "big") + name) and _is_whole(kind, blob)):
        return None
    if kind == "ssh-rsa":
        # OpenSSH passes over needless zeros before a number (RFC 4251 5: mpint), and means the same key.
        numbers = [int.from_bytes(field, "big") for field in _fields(blob)[1:]]
        fields = [name, *(number.to_bytes(number.bit_length() // 8 + 1, "big") for number in numbers)]
        blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    comment = b"".join(words[2:]).rstrip(b" \t\r\n").decode("utf-8", "surrogateescape")
    return PublicKey(kind, blob, comment)


def _is_whole(kind: str, blob: bytes) -> bool:
    """Whether nothing is missing or too much, as far as that is known here of the type."""
    fields = _fields(blob)[1:]
    if kind == "ssh-ed25519":
        return [len(field) for field in fields] == [32]
    if kind == "ssh-rsa":
        exponent, modulus = ([int.from_bytes(field, "big") for field in fields] + [0, 0])[:2]
        # With the exponent 1 everyone could sign for it, with 0 or 2 no one can; ssh-keygen does not look.
        is_sane = len(fields) == 2 and exponent > 2 and modulus.bit_length() in RSA_BITS
        # OpenSSH reads no negative number, and none that is longer than the largest with its zero.
        return is_sane and all(field[0] < 0x80 and len(field) <= 16384 // 8 + 1 for field in fields)
    if kind.startswith("sk-"):
        return bool(fields) and b"\0" not in fields[-1]  # where the application ends for OpenSSH
    return bool(fields) or kind not in _KNOWN


def _fields(blob: bytes) -> list[bytes]:
    """The strings that it consists of; none where one is cut off."""
    fields, start = [], 0
    while start < len(blob):
        begin = start + 4
        start = begin + int.from_bytes(blob[start:begin], "big")
        if start > len(blob):
            return []
        fields.append(blob[begin:start])
    return fields


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
