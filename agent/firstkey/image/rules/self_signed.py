"""G9, and telling apart: keys that the system made for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import examples, self_signed
from firstkey.image.rule import Rule, by_hand
from firstkey.image.verdict import NOTE, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """A note for each."""
    return Verdict(
        tuple(_finding(path, command) for path, command in self_signed.self_signed_keys(image).items())
    )


def _finding(path: str, command: str) -> Finding:
    reason = "A package made this key for its own (snake-oil) certificate; all instances will share it."
    return Finding(path, reason, f"Have each instance make its own at its first boot: {command}")


# A pair that was made for this example, and is used nowhere.
KEY = examples.pem(
    "EC PRIVATE KEY",
    "MHcCAQEEICqhwyKxSEDevlcWqm79Kps7X2vVDSKWT6XQlmBFMzs6oAoGCCqGSM49"
    "AwEHoUQDQgAEW4Kt6WAR1MWXjAgjWxnuYIltWMuCSKHFX5R2ND5EZICSq/7UMT2i"
    "faaugIW/Baz2v+oxzGFcyrvRX9XjRyalWg==",
)
CERTIFICATE = examples.pem(
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


def _failing(tree: Builder) -> None:
    tree.file("/etc/ssl/private/ssl-cert-snakeoil.key", KEY, mode=0o640)
    tree.file("/etc/ssl/certs/ssl-cert-snakeoil.pem", CERTIFICATE)


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssl/certs/ssl-cert-snakeoil.pem", CERTIFICATE)


RULE = Rule(
    id="self-signed-keys",
    title="Keys that packages made for themselves are known",
    guideline="G9",
    severity=NOTE,
    prose=(
        "Some packages make a key and a certificate that nobody trusts (snake-oil) when they are "
        "installed, so that a service can start. That is no secret of yours, and services may need it; "
        "but every instance of the image will have the same. It is told apart from a real key by its "
        "certificate: self-signed, and for this very key. A real key in its place is a finding of "
        "private-keys. seal leaves it."
    ),
    check=check,
    remedy=by_hand,
    failing=_failing,
    passing=_passing,
)
