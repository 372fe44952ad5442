"""G9: no certificates beside private keys."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from firstkey.image import examples, key_formats, secrets
from firstkey.image.rule import CREDENTIALS, Rule
from firstkey.image.rules.private_keys import private_keys
from firstkey.image.secrets import Sorted
from firstkey.image.verdict import WARNING, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image
    from firstkey.image.watches import Sighting

SIGNING = ("cert-", ".pem")
"""What the guide calls a signing certificate: cert-....pem, beside pk-....pem."""


def check(image: Image) -> Verdict:
    """A finding for each."""
    return secrets.verdict(_certificates(image))


def _certificates(image: Image) -> Sorted:
    found = private_keys(image).secrets
    keys = {sighting.path for sighting in found}
    beside = {posixpath.dirname(path) for path in keys}
    wanted = [seen for seen in image.sightings(key_formats.CERTIFICATE) if _is_wanted(seen, beside)]
    return secrets.sorted_out(image, wanted, claimed=keys)


def _is_wanted(seen: Sighting, beside: set[str]) -> bool:
    directory, name = posixpath.split(seen.path)
    return directory in beside or (name.startswith(SIGNING[0]) and name.endswith(SIGNING[1]))


def remedy(image: Image) -> list[Change]:
    """Overwrite and remove them."""
    return secrets.removals(
        image, [seen.path for seen in _certificates(image).secrets], "certificate of a private key"
    )


_BODY = "MIIBfjCCASOgAwIBAgIUfaGiYvA8lj6zDJ5EGlR+uAOH5ZAwCgYIKoZIzj0EAwIw"


def _failing(tree: Builder) -> None:
    tree.file("/root/ec2/cert-EXAMPLE.pem", examples.pem("CERTIFICATE", _BODY))


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssl/certs/example.pem", examples.pem("CERTIFICATE", _BODY))


RULE = Rule(
    id="certificates",
    title="There are no certificates of private keys",
    guideline="G9",
    severity=WARNING,
    prose=(
        "Bundling an instance needs a private key and an X.509 certificate, and both are to be kept where "
        "they are not bundled. A certificate is no secret, but one beside a private key shows whose key "
        "it was. Checked are certificates in the directory of a private key, and files named like EC2's "
        "signing certificates. seal removes them only with --remove-credentials."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=key_formats.CERTIFICATES,
    option=CREDENTIALS,
)
