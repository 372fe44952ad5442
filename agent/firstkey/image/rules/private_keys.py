"""G9: no private keys, by content, and no certificates beside them."""

from __future__ import annotations

import binascii
import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from firstkey.image import examples, key_formats, secrets
from firstkey.image.rule import CREDENTIALS, Rule, advisory
from firstkey.image.rules.host_keys import host_key_files, is_host_key
from firstkey.image.secrets import content_of
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, Finding, Part, Verdict

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


def _check_own(image: Image) -> Iterator[Part]:
    for path, command in self_signed_keys(image).items():
        reason = "A package made this key for its own (snake-oil) certificate; all instances will share it."
        yield Finding(path, reason, f"Have each instance make its own at its first boot: {command}")


# --- others ---------------------------------------------------------------------------------------


def private_keys(image: Image) -> Verdict:
    """Every private key that no other rule reports."""
    seen = (*image.sightings(key_formats.KIND), *image.sightings(key_formats.STORE))
    host_keys = (path for path in host_key_files(image) if is_host_key(image, path))
    return secrets.verdict(image, seen, "private key", claimed={*host_keys, *self_signed_keys(image)})


def _check_keys(image: Image) -> Iterator[Part]:
    """A finding for each file that holds one; the public halves beside it go with it."""
    verdict = private_keys(image)
    yield verdict._replace(findings=())
    for found in verdict.findings:
        halves = (f"{found.path}{end}" for end in (".pub", "-cert.pub"))
        more = (secrets.removal(image, path, "private key") for path in halves if image.is_file(path))
        yield found._replace(changes=(*found.changes, *more))


SIGNING = "cert-*.pem"
"""What the guide calls a signing certificate, beside pk-*.pem."""


def _check_certificates(image: Image) -> Iterator[Part]:
    """A finding for each beside a private key, and for those that have such a name."""
    keys = {found.path for found in private_keys(image).findings}
    beside = {posixpath.dirname(path) for path in keys}
    wanted = (
        seen
        for seen in image.sightings(key_formats.CERTIFICATE)
        for directory, name in [posixpath.split(seen.path)]
        if directory in beside or fnmatchcase(name, SIGNING)
    )
    yield secrets.verdict(image, wanted, "certificate of a private key", claimed=keys)


# RFC 8032, 7.1, TEST 1, as a PKCS#8 file: a private key that is public anyway.
EXAMPLE = examples.pem("PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g")
EXAMPLE_MD5 = "58d03e064e669c2e8df3929ea22567b0"
# A pair that was made for this example, and is used nowhere.
_KEY = examples.pem(
    "EC PRIVATE KEY",
    "MHcCAQEEIL4vYcz5AzNPL46aNF5LZK9nKzOKXuoT5Dd9MjG5KZG9oAoGCCqGSM49",
    "AwEHoUQDQgAEqgv6xs6Tf2DBrgCi57s8ktFdLlfSLeHZwmpqMdnqvEwhnQ0qQTIy",
    "H4EMLz//ECYmQbBrXv51CTju9a3C/05tNA==",
)
_CERTIFICATE = examples.pem(
    "CERTIFICATE",
    "MIIBETCBuQIUNqBfX665b/SHwxnUhehoiPo/KSEwCgYIKoZIzj0EAwIwDDEKMAgG",
    "A1UEAwwBYTAeFw0yNjExMzAwNzUwMThaFw0zNjExMjcwNzUwMThaMAwxCjAIBgNV",
    "BAMMAWEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASqC/rGzpN/YMGuAKLnuzyS",
    "0V0uV9It4dnCamox2eq8TCGdDSpBMjIfgQwvP/8QJiZBsGte/nUJOO71rcL/Tm00",
    "MAoGCCqGSM49BAMCA0cAMEQCIC/XsxqvzpkJjaeZrGwScEQopafeqIPdeRxKNadj",
    "UItBAiBkXnGKuqzEB4D9gutVkbrRb9j9yndQ+KNwsbV21axijQ==",
)
_SUMS = "  usr/share/doc/tls/test.pem\n"

RULES = (
    Rule(
        id="private-keys",
        title="There are no private keys",
        guideline="G9",
        severity=ERROR,
        option=CREDENTIALS,
        prose="""Every file is read, with any name: PEM and OpenSSH keys also inside of other files and in
        base64, DER, PuTTY, PGP and GnuPG (armoured or not), SSH.com, OpenVPN, age, JSON Web Keys, PKCS#12,
        Java key stores and KeePass databases; in text in UTF-16, and in tar, gzip, bzip2, xz and zip files
        that no package brought, one inside another too. Encrypted content and other archives are not read. A
        key that a package brought (test keys, examples) is left out only if the file is byte for byte as the
        records of the package manager have it (a Python package's too, if it came from an index). An example
        that is shortened, or says EXAMPLE, is no key. Host keys and keys that packages generated have rules
        of their own. seal overwrites and removes the files.""",
        check=_check_keys,
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
        prose="""Bundling an instance needs a private key and an X.509 certificate, which must not be in the
        bundle. A certificate is no secret, but shows the owner of the key beside it. The rule checks
        certificates in the directory of a private key, and files named like EC2's signing certificates. seal
        overwrites and removes them.""",
        check=_check_certificates,
        failing={"/root/ec2/cert-EXAMPLE.pem": _CERTIFICATE},
        passing={"/etc/ssl/certs/example.pem": _CERTIFICATE},
        watches=key_formats.CERTIFICATES,
    ),
    advisory(
        id="self-signed-keys",
        title="Keys that packages generated for themselves are known",
        guideline="G9",
        prose="""Some packages generate a key and a certificate that no client trusts (snake-oil) when they
        are installed, so that a service can start. They are no secret, but every instance of the image will
        have the same ones. The certificate tells such a key from a real one, a finding of private-keys: it is
        self-signed, and for this very key. Services may need it.""",
        check=_check_own,
        failing={PAIRS[0][0]: _KEY, PAIRS[0][1]: _CERTIFICATE},
        passing={PAIRS[0][1]: _CERTIFICATE},
    ),
)
