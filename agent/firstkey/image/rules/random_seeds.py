"""Beyond the guide: no saved random seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/var/lib/systemd/random-seed", "a random seed that all instances would start with"),
    Place("/var/lib/urandom/random-seed", "a random seed that all instances would start with"),
    Place("/var/lib/random-seed", "a random seed that all instances would start with"),
    Place("/var/lib/misc/random-seed", "a random seed that all instances would start with"),
    Place("/var/lib/seedrng/*", "a random seed that all instances would start with"),
    Place("/boot/loader/random-seed", "a random seed that all instances would start with"),
    Place("/boot/efi/loader/random-seed", "a random seed that all instances would start with"),
    Place("/efi/loader/random-seed", "a random seed that all instances would start with"),
    Place("/var/lib/systemd/credential.secret", "the secret that encrypts credentials of one machine"),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/lib/systemd/random-seed", b"\0\1\2\3" * 128, mode=0o600)


def _passing(tree: Builder) -> None:
    tree.directory("/var/lib/systemd")


RULE = Rule(
    id="random-seeds",
    title="There are no saved random seeds",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "A random seed that is saved for the next boot is the same on every instance of the image, and so "
        "is what is made of it before the kernel has gathered more. systemd's credential secret, which "
        "encrypts credentials for one machine, is such a secret as well. seal removes them; each instance "
        "makes its own. On the running system, systemd saves a new seed when the system stops, which it "
        "does not count as random by itself."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
