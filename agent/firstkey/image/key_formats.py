"""What a private key looks like, in each of the formats that people keep: pure, from bytes to a name or None.

A mention is no key: documentation and programs are full of `-----BEGIN ... PRIVATE KEY-----`. So what follows
must be what such a key holds.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from itertools import takewhile

from firstkey.image.scan import Headed, Needle

KIND = "private-key"
STORE = "key-store"
CERTIFICATE = "certificate"
KINDS = (KIND, STORE)

_BEGIN = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY(?: BLOCK)?-----(?=\\+[nru\r\n]|&#|[\s\"'])")
# What stands between the lines of a key that is embedded in JSON, YAML, a shell script or a source file.
_GAP = re.compile(
    rb"(?:[\s\"',>|#*;]|(?<![A-Za-z0-9+/=])(?:\+|//)(?=[\s\"'])|(?<!\\)\\+(?:[nrt]|\r?\n|u000[adAD]|(?=/))"
    rb"|&#x?[0-9A-Fa-f]{1,5};|<br {0,9}/?>)+"
)
_HEADER = re.compile(rb"(?<![A-Za-z-])[A-Za-z-]{1,30}:[^\r\n\\]{0,200}(?=\\+[nr]|[\r\n])")
_FIRST, _MORE = re.compile(rb"[A-Za-z0-9+/=]{24,}"), re.compile(rb"[A-Za-z0-9+/]*=*")  # no =checksum of PGP
_SHORTEST, _SHORTEST_BARE, _SHORTEST_OPENSSH, _SHORTEST_PGP = 52, 43, 200, 100
"""Letters of base64: of an EC key with nothing but its number, of that number alone, of ed25519 keys."""
_CUT = 500
"""As many without an end are a key of which only the start was seen."""
_WHOLE = 16 * 1024
"""Bytes of the longest key, with what may stand between its lines."""
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]{32,2048}")
_SSH2 = b"---- BEGIN SSH2 ENCRYPTED "
_SSH1 = b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0"
_OPENSSH_MAGIC = b"openssh-key-v1"

_AGE = re.compile(rb"AGE-SECRET-KEY-(?:PQ-)?1([02-9AC-HJ-NP-Z]{58})")
_NEAR = 1024
"""Bytes before and behind in which a key's other parts stand."""
_BODY = re.compile(rb"^[A-Za-z0-9+/=]{60,}$", re.MULTILINE)


def pem(content: bytes, place: int) -> str | None:
    """Judge `PRIVATE KEY` in a text: PEM of every kind, PGP, and SSH.com's format."""
    start = content.rfind(b"---- BEGIN ", 0, place)
    if start >= 0 and content.startswith(_SSH2, start) and _BODY.search(content[place : place + _NEAR]):
        return "a private key in SSH.com's format"
    start = content.rfind(b"-----BEGIN ", 0, place)
    begin = _BEGIN.match(content, start) if start >= 0 else None
    if begin is None or not _is_plausible(begin[1], *_parts(content, begin.end())):
        return None
    kind = begin[1].decode().strip()
    return f"a private key ({kind + ', ' if kind else ''}PEM)"


def pem_bodies(content: bytes) -> list[bytes]:
    """How the base64 of each private key starts that is in the content."""
    return [line for begin in _BEGIN.finditer(content) for line in _parts(content, begin.end())[1][:1]]


def _parts(content: bytes, place: int) -> tuple[bytes, list[bytes], bool]:
    """What is behind the line that begins a key: its headers (RFC 1421, 4.6), the lines of its base64, and
    whether the content ends before the key does.
    """
    text, end, _ = content[place : place + _WHOLE].partition(b"-----")
    for mark in (b"\n+", b"\n-"):  # of each line, in a diff
        if text.startswith(mark) and text.count(mark) >= text.count(b"\n") - 1:
            text = text.replace(mark, b"\n")
    headers = _HEADER.findall(text)  # a word of one may look like base64, as a fingerprint does
    words = list(filter(None, _GAP.sub(b"\n", _HEADER.sub(b"", text)).split(b"\n")))
    start = next((number for number, word in enumerate(words) if _FIRST.fullmatch(word)), len(words))
    if start and not re.fullmatch(rb"[A-Za-z-]{1,30}:", words[0]):  # of a header that goes on in its line
        return b"", [], False
    lines = list(takewhile(_MORE.fullmatch, words[start:]))
    is_cut = not end and start + len(lines) == len(words)
    return b"\n".join((*headers, *words[:start])), lines, is_cut


def _is_plausible(kind: bytes, headers: bytes, lines: list[bytes], is_cut: bool) -> bool:  # noqa: FBT001 - of `_parts`
    """Whether it is a key: ASN.1 of its full length, the start of another format, or (encrypted) anything.

    An example that was shortened is none.
    """
    body, is_bare = b"".join(lines), kind.endswith(b"25519 ")  # tinc's and Nebula's are no ASN.1
    if len(body) < (_SHORTEST_BARE if is_bare else _SHORTEST) or len(set(body)) < 16 or b"EXAMPLE" in body:
        return False
    if is_bare or b"ENCRYPTED" in headers:
        return True
    try:
        key = binascii.a2b_base64(body[: len(body) // 4 * 4])
    except binascii.Error:
        return False
    if kind.startswith(b"OPENSSH"):
        return key.startswith(_OPENSSH_MAGIC) and len(body) >= _SHORTEST_OPENSSH
    if kind.startswith(b"PGP"):
        return bool(key[0] & 0x80) and len(body) >= _SHORTEST_PGP
    if key[:1] == b"{":
        return len(body) >= _SHORTEST_OPENSSH
    return key[:1] == b"\x30" and (len(key) >= length(key) or (is_cut and len(body) >= _CUT))


def length(der: bytes) -> int:
    """How long the value is by its own words, its tag and length included (X.690, 8.1.3)."""
    octets = der[1] & 0x7F if der[1] & 0x80 else 0
    return 2 + octets + (int.from_bytes(der[2 : 2 + octets], "big") if octets else der[1])


def base64_pem(content: bytes, place: int) -> str | None:
    """Judge `-----BEGIN ` in base64: Kubernetes and cloud-init carry keys so, on one line or many."""
    match = _BASE64.match(content, place)
    text = re.sub(rb"\s", b"", match[0])[:1024] if match else b""
    try:
        decoded = binascii.a2b_base64(text[: len(text) // 4 * 4])
    except binascii.Error:
        return None
    found = decoded.find(b"PRIVATE KEY")
    what = pem(decoded, found) if found >= 0 else None
    return f"{what}, in base64" if what else None


def age(content: bytes, place: int) -> str | None:
    """Judge `AGE-SECRET-KEY-`: what age-keygen writes."""
    found = _AGE.match(content, place)
    return "a private key (age)" if found and len(set(found[1])) > 8 else None


def _near(what: str, shape: re.Pattern[bytes], before: int, behind: int) -> Callable[..., str | None]:
    """A judge by what stands not far from the needle, or behind the start of a file."""

    def judge(content: bytes, place: int = 0) -> str | None:
        return what if shape.search(content[max(0, place - before) : place + behind]) else None

    return judge


def member(content: bytes, place: int) -> str | None:
    """Judge `ustar`, in the header of a file in a tar archive (tar(5)), by how that file starts."""
    head = content[place + 255 :]
    for watch in HEADS:
        what = watch.judge(head) if head.startswith(watch.starts) else None
        if what:
            return f"{what}, in an archive"
    return None


# --- files by their start -------------------------------------------------------------------------


def _shaped(kind: str, starts: tuple[bytes, ...], shapes: dict[str, bytes]) -> Headed:
    """A watch for files that start so, and go on as one of the expressions says, which are named."""
    compiled = {what: re.compile(rb"\A" + shape, re.DOTALL) for what, shape in shapes.items()}

    def judge(head: bytes) -> str | None:
        return next((what for what, shape in compiled.items() if shape.search(head)), None)

    return Headed(kind, starts, judge)


# ASN.1, in DER (X.690). PKCS#12 (RFC 7292, appendix D) names its bags with keys in the clear; a store of
# certificates alone has none. PKCS#5 (RFC 8018, appendix C) has the identifiers of what encrypts a key.
_SEQUENCE = rb"\x30(?:[\0-\x7e\x80]|\x81.|\x82..|\x83...|\x84....)"
_RSADSI = rb"\x2a\x86\x48\x86\xf7\x0d\x01"
_DER = {
    "a key store (PKCS#12)": rb"\x02\x01\x03\x30(?=.{0,26}?\x06\x09%b\x07).*?%b\x0c\x0a\x01[\x01\x02]"
    % (_RSADSI, _RSADSI),
    "a private key (PKCS#8, DER)": rb"\x02\x01[\x00\x01]\x30.\x06",
    "an RSA private key (DER)": rb"\x02\x01[\x00\x01]\x02[\x81\x82]",
    "an EC private key (DER)": rb"\x02\x01\x01\x04[\x18-\x42].{24}",
    "an encrypted private key (PKCS#8, DER)": rb"\x30.{1,6}\x06(?:\x09%b\x05|\x0a%b\x0c\x01)"
    % (_RSADSI, _RSADSI),
}
# What encrypts an entry of a Java key store: an identifier of Sun's, or a class of Java's for secret keys. A
# store of certificates alone has neither.
_JAVAS = rb".*?(?:\x2b\x06\x01\x04\x01\x2a\x02|SealedObject)"
# A secret-key packet (RFC 9580, 4.2, 5.5): its tag and length, version, date, algorithm (from version 5 on
# also a length), and how its numbers start: an integer's bits, a curve's identifier, bare bytes.
_OPENPGP = (
    rb"(?:\x94.|\x95..|\x96....|\xc5(?:[\x00-\xbf]|[\xc0-\xdf].|\xff....))"
    rb"(?:\x04....(?:[\x01-\x03\x10\x11\x14][\x02-\x40].|[\x12\x13\x16][\x03-\x0a][\x2a\x2b])"
    rb"|[\x05\x06]....[\x01-\x1c]\0\0[\0-\x20].)"
)
# A file of GnuPG's private-keys-v1.d, canonical or extended; a shadowed key is on a card.
_GNUPG = rb"(?=.{0,4085}?private-key)(?!.*shadowed-private)"

# RFC 7518, 6: certbot keeps its account's key so.
_JWK = re.compile(rb"\"(?:d|qi)\"\s*:\s*\"[\w+/=-]{40,}\"")
_is_jwk = _near("a private key (JSON Web Key)", _JWK, _NEAR, _NEAR)
_is_openvpn = _near("a private key (OpenVPN)", re.compile(rb"\A[^\n]*?-----\s+[0-9A-Za-z+/]{32}"), 0, 200)
_PUTTY = re.compile(rb"Private-Lines: \d{1,4}(?:\\+[nr]|[\r\n]){1,9}[A-Za-z0-9+/=]{32}")
_is_putty = _near("a private key (PuTTY)", _PUTTY, 0, 1 << 20)

HEADS = (
    # The protocol-1 format (ssh-keygen of before 2017) starts with a line of its own.
    _shaped(KIND, (_SSH1,), {"an SSH protocol-1 private key": b""}),
    _shaped(KIND, (b"\x30",), {what: _SEQUENCE + shape for what, shape in _DER.items()}),
    _shaped(KIND, (b"(", b"Created: ", b"Key: (", b"Description: "), {"a private key (GnuPG)": _GNUPG}),
    _shaped(KIND, (b"\x94", b"\x95", b"\x96", b"\xc5"), {"a private key (OpenPGP)": _OPENPGP}),
    _shaped(STORE, (b"\xfe\xed\xfe\xed",), {"a key store (Java, JKS)": _JAVAS}),
    _shaped(STORE, (b"\xce\xce\xce\xce",), {"a key store (Java, JCEKS)": _JAVAS}),
    _shaped(STORE, (b"\x03\xd9\xa2\x9a",), {"a password database (KeePass)": rb"....[\x65\x67]\xfb\x4b\xb5"}),
)
KEYS = (
    *HEADS,
    Needle(KIND, b"PRIVATE KEY", pem, everywhere=True),
    Needle(KIND, b"LS0tLS1CRUdJTi", base64_pem),
    Needle(KIND, b"AGE-SECRET-KEY-", age),
    Needle(KIND, b"BEGIN OpenVPN ", _is_openvpn),
    Needle(KIND, b'"crv"', _is_jwk),
    Needle(KIND, b'"qi"', _is_jwk),
    Needle(KIND, b"PuTTY-User-Key-File-", _is_putty),
    Headed(KIND, (b"PuTTY-User-Key-File-",), _is_putty),
    Needle(KIND, b"ustar", member),
)
CERTIFICATES = (Needle(CERTIFICATE, b"-----BEGIN CERTIFICATE-----", _near("a certificate", _BODY, 0, 300)),)
