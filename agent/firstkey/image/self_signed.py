"""Keys that a package made when it was installed, with a certificate that nobody trusts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.image import x509

if TYPE_CHECKING:
    from firstkey.image.subject import Image

LIMIT = 1024 * 1024

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
        if x509.is_self_signed_pair(_content(image, certificate), _content(image, key))
    }


def _content(image: Image, path: str) -> bytes:
    """What cannot be read proves nothing, so the key is then nobody's own."""
    with suppress(FirstkeyError):
        return image.read(path, limit=LIMIT) or b""
    return b""
