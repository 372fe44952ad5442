"""G9: no private keys, by content, and no certificates beside them."""

from __future__ import annotations

import binascii
import posixpath
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey.image import examples, key_formats, secrets
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.rules.host_keys import host_key_files, is_host_key
from firstkey.image.secrets import Sorted, content_of
from firstkey.image.verdict import ERROR, NOTE, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.subject import Image

# --- keys that packages made for themselves -------------------------------------------------------

_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]*-----\s([A-Za-z0-9+/=\s]+)-----END ", re.DOTALL)
# RFC 5280, 4.1: the issuer stands before the validity, two points in time, and the subject behind it.
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22](?:\x17\x0d[0-9]{12}Z|\x18\x0f[0-9]{14}Z){2}")
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
        if is_self_signed_pair(content_of(image, certificate) or b"", content_of(image, key) or b"")
    }


def is_self_signed_pair(certificate: bytes, key: bytes) -> bool:
    """Whether the certificate (PEM) names its own subject as its issuer, and the key (PEM) is its key."""
    outer, private = _der(certificate), _der(key)
    validity = _VALIDITY.search(outer)
    if validity is None:
        return False
    before, behind = outer[: validity.start()], outer[validity.end() :]
    length = key_formats.length(behind) if len(behind) > 1 else 0
    subject, public = behind[:length], behind[length:]
    places = range(0, len(private) - _SHARED + 1, _SHARED // 2)
    shares = any(private[place : place + _SHARED] in public for place in places)
    return bool(subject) and before.endswith(subject) and shares


def _der(pem: bytes) -> bytes:
    """The content of the first PEM block; nothing where there is none."""
    match = _BLOCK.search(pem)
    with suppress(binascii.Error):
        return binascii.a2b_base64(match[1]) if match else b""
    return b""


def check_own(image: Image) -> Verdict:
    """A note for each."""
    reason = "A package made this key for its own (snake-oil) certificate; all instances will share it."
    remedy = "Have each instance make its own at its first boot: "
    keys = self_signed_keys(image)
    return Verdict(tuple(Finding(path, reason, remedy + command) for path, command in keys.items()))


# --- others ---------------------------------------------------------------------------------------


def private_keys(image: Image) -> Sorted:
    """Every private key that is nobody else's business."""
    seen = (*image.sightings(key_formats.KIND), *image.sightings(key_formats.STORE))
    host_keys = (path for path in host_key_files(image) if is_host_key(image, path))
    claimed = {*host_keys, *self_signed_keys(image)}
    return secrets.sorted_out(image, seen, claimed=claimed)


def check_keys(image: Image) -> Verdict:
    """A finding for each file that holds one; the public halves beside it go with it."""
    verdict = secrets.verdict(image, private_keys(image), "private key")
    return verdict._replace(findings=tuple(_with_halves(image, found) for found in verdict.findings))


def _with_halves(image: Image, found: Finding) -> Finding:
    halves = (f"{found.path}{end}" for end in (".pub", "-cert.pub"))
    more = (secrets.removal(image, path, "private key") for path in halves if image.is_file(path))
    return found._replace(changes=(*found.changes, *more))


SIGNING = ("cert-", ".pem")
"""What the guide calls a signing certificate: cert-....pem, beside pk-....pem."""


def check_certificates(image: Image) -> Verdict:
    """A finding for each beside a private key, and for those that have such a name."""
    keys = {sighting.path for sighting in private_keys(image).secrets}
    beside = {posixpath.dirname(path) for path in keys}
    wanted = []
    for seen in image.sightings(key_formats.CERTIFICATE):
        directory, name = posixpath.split(seen.path)
        if directory in beside or (name.startswith(SIGNING[0]) and name.endswith(SIGNING[1])):
            wanted.append(seen)
    found = secrets.sorted_out(image, wanted, claimed=keys)
    return secrets.verdict(image, found, "certificate of a private key")


# RFC 8032, 7.1, TEST 1, as a PKCS#8 file: a private key that is public anyway.
EXAMPLE = examples.pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g")
EXAMPLE_MD5 = "58d03e064e669c2e8df3929ea22567b0"
# A pair that was made for this example, and is used nowhere.
_KEY = examples.pem(
    "EC PRIVATE KEY",
    "MHcCAQEEICqhwyKxSEDevlcWqm79Kps7X2vVDSKWT6XQlmBFMzs6oAoGCCqGSM49"
    "AwEHoUQDQgAEW4Kt6WAR1MWXjAgjWxnuYIltWMuCSKHFX5R2ND5EZICSq/7UMT2i"
    "faaugIW/Baz2v+oxzGFcyrvRX9XjRyalWg==",
)
_CERTIFICATE = examples.pem(
    "CERTIFICATE",
    "MIIBfjCCASOgAwIBAgIUfaGiYvA8lj6zDJ5EGlR+uAOH5ZAwCgYIKoZIzj0EAwIw"
    "FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyNDA4NTMxMVoXDTM2MTEyMTA4"
    "NTMxMVowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D"
    "AQcDQgAEW4Kt6WAR1MWXjAgjWxnuYIltWMuCSKHFX5R2ND5EZICSq/7UMT2ifaau"
    "gIW/Baz2v+oxzGFcyrvRX9XjRyalWqNTMFEwHQYDVR0OBBYEFLD+tha5g/oKd8iz"
    "W195n3t/MqcAMB8GA1UdIwQYMBaAFLD+tha5g/oKd8izW195n3t/MqcAMA8GA1Ud"
    "EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAO2S9hzzjvs7QlIwiVASXg+H"
    "Nk6DqpEzK61TkD4OcdPzAiEAtoYKd7BaCORZbnxaVYEQgDXUFik1Wnc0yab14KBv"
    "fVE=",
)
_BODY = "MIIBfjCCASOgAwIBAgIUfaGiYvA8lj6zDJ5EGlR+uAOH5ZAwCgYIKoZIzj0EAwIw"
_SUMS = "  usr/share/doc/tls/test.pem\n"

RULES = (
    Rule(
        id="private-keys",
        title="There are no private keys",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose=(
            "Every file is read, with any name: PEM and OpenSSH keys also inside of other files and "
            "in base64, DER, PuTTY, PGP and GnuPG (armoured or not), SSH.com, age, JSON Web Keys, "
            "PKCS#12, Java key stores and KeePass databases. Keys that a package brought (test keys, "
            "examples) are left out only if the file is byte for byte as in the records of the "
            "package manager (a Python package's too, if it came from an index); a key in a package's "
            "place is found, and a shortened example is no key. Host keys and keys that the system "
            "generated for itself have rules of their own. The content of tar, gzip, bzip2, xz and "
            "zip files that no package brought, and text in UTF-16, is read too; encrypted content "
            "and other archives are not. seal overwrites and removes them."
        ),
        check=check_keys,
        failing={
            "/srv/deploy/notes.txt": f"the key is\n{EXAMPLE}",
            "/srv/deploy/notes.txt.pub": "ssh-ed25519 AAAA\n",
            "/usr/share/doc/tls/test.pem": EXAMPLE,
            "/var/lib/dpkg/info/tls.md5sums": f"{'0' * 32}{_SUMS}",
        },
        passing={
            "/srv/deploy/notes.txt": examples.pem("PRIVATE KEY", "(your key here)"),
            "/usr/share/doc/tls/test.pem": EXAMPLE,
            "/var/lib/dpkg/info/tls.md5sums": f"{EXAMPLE_MD5}{_SUMS}",
        },
        watches=key_formats.KEYS,
    ),
    Rule(
        id="certificates",
        title="There are no certificates of private keys",
        guideline="G9",
        option=CREDENTIALS,
        prose=(
            "Bundling an instance needs a private key and an X.509 certificate, and both have to be "
            "kept out of the bundle. A certificate is no secret, but one beside a private key shows "
            "the owner of the key. The rule checks certificates in the directory of a private key, "
            "and files named like EC2's signing certificates. seal overwrites and removes them."
        ),
        check=check_certificates,
        failing={"/root/ec2/cert-EXAMPLE.pem": examples.pem("CERTIFICATE", _BODY)},
        passing={"/etc/ssl/certs/example.pem": examples.pem("CERTIFICATE", _BODY)},
        watches=key_formats.CERTIFICATES,
    ),
    Rule(
        id="self-signed-keys",
        title="Keys that packages generated for themselves are known",
        guideline="G9",
        severity=NOTE,
        prose=(
            "Some packages generate a key and a certificate that no client trusts (snake-oil) when "
            "they are installed, so that a service can start. That is no secret of yours, and "
            "services may need it; but every instance of the image will have the same. The rule tells "
            "it from a real key by its certificate: self-signed, and for this very key. A real key in "
            "its place is a finding of private-keys. seal leaves it."
        ),
        check=check_own,
        by_hand=True,
        failing={PAIRS[0][0]: _KEY, PAIRS[0][1]: _CERTIFICATE},
        passing={PAIRS[0][1]: _CERTIFICATE},
    ),
)
