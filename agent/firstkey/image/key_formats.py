"""What a private key looks like, in each of the formats that people keep: pure, from bytes to a name or None.

A mention is no key: documentation and programs are full of `-----BEGIN ... PRIVATE KEY-----`. So what follows
must be what such a key holds.
"""

from __future__ import annotations

import binascii
import re

from firstkey.image.watches import Headed, Needle

KIND = "private-key"
STORE = "key-store"
CERTIFICATE = "certificate"
KINDS = (KIND, STORE)

# The parts of a key, each looked for where the one before it ends: in one expression, a text that fits in
# many ways would be read anew for each of them. Between the parts of one that is embedded in JSON, YAML, a
# shell script or a source file there are gaps.
_BEGIN = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY(?: BLOCK)?-----(?=\\+[nru\r\n]|&#|[\s\"'])")
_GAP = re.compile(
    rb"(?:[\s\"',>|#*;]+|(?:\+|//)(?=[\s\"'])|\\+(?:[nrt]|\r?\n|u000[adAD]|(?=/))"
    rb"|&#x?[0-9A-Fa-f]{1,5};|<br {0,9}/?>){0,99}"
)
_HEADER = re.compile(rb"[A-Za-z-]{1,30}: [^\r\n\\]{0,200}(?:\\+[nr]|[\r\n])")
_MOST_HEADERS = 16
_BODY = re.compile(rb"[A-Za-z0-9+/=]{24,}")
_MORE = re.compile(rb"[A-Za-z0-9+/=]+")
_SHORTEST, _SHORTEST_OPENSSH, _SHORTEST_PGP = 52, 200, 100
"""Letters of base64: of an EC key with nothing but its number, of ed25519 keys."""
_CUT = 500
"""As many without an end are a key of which only the start was seen."""
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]{32,2048}")
_SSH2 = b"---- BEGIN SSH2 ENCRYPTED "
_SSH1 = b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0"
_KEEPASS = (b"\x03\xd9\xa2\x9a\x65\xfb\x4b\xb5", b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5")
_OPENSSH_MAGIC = b"openssh-key-v1"

# A secret-key packet (RFC 9580, 4.2, 5.5): its tag and length, version, date, algorithm (from version 5 on
# also a length), and how its numbers start: an integer's bits, a curve's identifier, bare bytes.
_OPENPGP = re.compile(
    rb"(?:\x94.|\x95..|\x96....|\xc5(?:[\x00-\xbf]|[\xc0-\xdf].|\xff....))"
    rb"(?:\x04....(?:[\x01-\x03\x10\x11\x14][\x02-\x40].|[\x12\x13\x16][\x03-\x0a][\x2a\x2b])"
    rb"|[\x05\x06]....[\x01-\x1c]\0\0[\0-\x20].)",
    re.DOTALL,
)
_PUTTY = re.compile(rb"Private-Lines: \d{1,4}(?:\\+[nr]|[\r\n]){1,9}[A-Za-z0-9+/=]{32}")
_AGE = re.compile(rb"AGE-SECRET-KEY-(?:PQ-)?1([02-9AC-HJ-NP-Z]{58})")
_NEAR = 1024
"""Bytes before and behind in which a key's other parts stand."""
_JWK = re.compile(rb"\"(?:d|qi)\"\s*:\s*\"[\w+/=-]{40,}\"")

# The object identifiers of PKCS#12 (RFC 7292, appendix D) and PKCS#5 (RFC 8018, appendix C), in DER.
_PKCS7 = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"
_KEY_BAGS = (b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01", b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02")
_PBES = (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05", b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01")

# What encrypts an entry of a Java key store: an identifier of Sun's, or a class of Java's for secret keys.
_JAVAS = (b"\x2b\x06\x01\x04\x01\x2a\x02", b"SealedObject")


def pem(content: bytes, place: int) -> str | None:
    """Judge `PRIVATE KEY` in a text: PEM of every kind, PGP, and SSH.com's format."""
    start = content.rfind(b"---- BEGIN ", 0, place)
    if start >= 0 and content.startswith(_SSH2, start) and _has_body(content[place : place + _NEAR]):
        return "a private key in SSH.com's format"
    start = content.rfind(b"-----BEGIN ", 0, place)
    begin = _BEGIN.match(content, start) if start >= 0 else None
    if begin is None:
        return None
    headers, body, place = _parts(content, begin.end())
    if not _is_plausible(begin[1], headers, *_whole(content, place, body)):
        return None
    kind = begin[1].decode().strip()
    return f"a private key ({kind + ', ' if kind else ''}PEM)"


def pem_bodies(content: bytes) -> list[bytes]:
    """How the base64 of each private key starts that is in the content."""
    bodies = (_parts(content, begin.end())[1] for begin in _BEGIN.finditer(content))
    return [body for body in bodies if body]


def _parts(content: bytes, place: int) -> tuple[bytes, bytes, int]:
    """The headers behind the line that begins a key (RFC 1421, 4.6), its first base64, where that ends."""
    start = place = _end(_GAP, content, place)
    for _ in range(_MOST_HEADERS):
        header = _HEADER.match(content, place)
        if header is None:
            break
        place = _end(_GAP, content, header.end())
    body = _BODY.match(content, place)
    return content[start:place], body[0] if body else b"", body.end() if body else place


def _whole(content: bytes, place: int, start: bytes) -> tuple[bytes, bool]:
    """The base64 that starts so, with all lines that follow, and whether the content ends before it does."""
    lines = [start]
    while True:
        gap = _end(_GAP, content, place)
        line = _MORE.match(content, gap) if gap > place else None
        if line is None:
            return b"".join(lines), gap == len(content)
        lines.append(line[0])
        place = line.end()


def _end(pattern: re.Pattern[bytes], content: bytes, place: int) -> int:
    found = pattern.match(content, place)
    return found.end() if found else place


def _is_plausible(kind: bytes, headers: bytes, body: bytes, is_cut: bool) -> bool:  # noqa: FBT001 - of _whole
    """Whether it is a key: ASN.1 of its full length, the start of another format, or (encrypted) anything.

    An example that was shortened is none.
    """
    if len(body) < _SHORTEST or len(set(body)) < 16:
        return False
    if b"ENCRYPTED" in headers:
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


def _has_body(content: bytes) -> bool:
    return bool(re.search(rb"^[A-Za-z0-9+/=]{60,}$", content, re.MULTILINE))


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


def der(head: bytes) -> str | None:
    """Judge a file that starts like an ASN.1 sequence: PKCS#1, #8 and #12, and SEC1."""
    inside = _contents(head)
    if inside is None:
        return None
    if inside.startswith(b"\x02\x01\x03\x30") and _PKCS7 in inside[:40]:
        # The bags with keys are named in the clear; a store of certificates alone has none.
        return "a key store (PKCS#12)" if any(bag in head for bag in _KEY_BAGS) else None
    if re.match(rb"\x02\x01[\x00\x01]\x30.\x06", inside, re.DOTALL):
        return "a private key (PKCS#8, DER)"
    if re.match(rb"\x02\x01[\x00\x01]\x02[\x81\x82]", inside):
        return "an RSA private key (DER)"
    if re.match(rb"\x02\x01\x01\x04[\x18-\x42]", inside):
        return "an EC private key (DER)"
    if inside[:1] == b"\x30" and any(inside[2:16].startswith(oid) or oid in inside[:18] for oid in _PBES):
        return "an encrypted private key (PKCS#8, DER)"
    return None


def _contents(head: bytes) -> bytes | None:
    """What is inside the sequence, or None where its length has no sense."""
    if len(head) < 16 or head[1] == 0x7F:
        return None
    if head[1] < 0x80:
        return head[2:]
    octets = head[1] & 0x7F
    return head[2 + octets :] if octets <= 4 else None


def java(head: bytes) -> str | None:
    """Judge a Java key store (JKS, JCEKS): one of certificates alone names no protection of Java's own."""
    kind = "JKS" if head[:1] == b"\xfe" else "JCEKS"
    return f"a key store (Java, {kind})" if any(mark in head for mark in _JAVAS) else None


def putty(content: bytes, place: int = 0) -> str | None:
    """Judge `PuTTY-User-Key-File-`, at the start of a file or within one."""
    return "a private key (PuTTY)" if _PUTTY.search(content, place) else None


def gnupg(head: bytes) -> str | None:
    """Judge a file of GnuPG's private-keys-v1.d, canonical or extended; a shadowed key is on a card."""
    return (
        "a private key (GnuPG)" if b"private-key" in head[:4096] and b"shadowed-private" not in head else None
    )


def openpgp(head: bytes) -> str | None:
    """Judge a file that starts with the tag of a secret key, as `gpg --export-secret-keys` writes one."""
    return "a private key (OpenPGP)" if _OPENPGP.match(head) else None


def age(content: bytes, place: int) -> str | None:
    """Judge `AGE-SECRET-KEY-`: what age-keygen writes."""
    found = _AGE.match(content, place)
    return "a private key (age)" if found and len(set(found[1])) > 8 else None


def jwk(content: bytes, place: int) -> str | None:
    """Judge `"crv"` and `"qi"` of a JSON Web Key (RFC 7518, 6): certbot keeps its account's key so."""
    near = _JWK.search(content, max(0, place - _NEAR), place + _NEAR)
    return "a private key (JSON Web Key)" if near else None


def certificate(content: bytes, place: int) -> str | None:
    """Judge `-----BEGIN CERTIFICATE-----`."""
    return "a certificate" if _has_body(content[place : place + 300]) else None


def member(content: bytes, place: int) -> str | None:
    """Judge `ustar`, in the header of a file in a tar archive (tar(5)), by how that file starts."""
    head = content[place + 255 :]
    for watch in HEADS:
        what = watch.judge(head) if head.startswith(watch.starts) else None
        if what:
            return f"{what}, in an archive"
    return None


HEADS = (
    # The protocol-1 format (ssh-keygen of before 2017) starts with a line of its own.
    Headed(KIND, (_SSH1,), lambda _: "an SSH protocol-1 private key"),
    Headed(KIND, (b"\x30",), der),
    Headed(KIND, (b"(", b"Created: ", b"Key: (", b"Description: "), gnupg),
    Headed(KIND, (b"\x94", b"\x95", b"\x96", b"\xc5"), openpgp),
    Headed(STORE, (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce"), java),
    Headed(STORE, _KEEPASS, lambda _: "a password database (KeePass)"),
)
KEYS = (
    *HEADS,
    Needle(KIND, b"PRIVATE KEY", pem, everywhere=True),
    Needle(KIND, b"LS0tLS1CRUdJTi", base64_pem),
    Needle(KIND, b"AGE-SECRET-KEY-", age),
    Needle(KIND, b'"crv"', jwk),
    Needle(KIND, b'"qi"', jwk),
    Needle(KIND, b"PuTTY-User-Key-File-", putty),
    Headed(KIND, (b"PuTTY-User-Key-File-",), putty),
    Needle(KIND, b"ustar", member),
)
CERTIFICATES = (Needle(CERTIFICATE, b"-----BEGIN CERTIFICATE-----", certificate),)
