"""G4: somebody makes new host keys at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import installers
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Verdict, not_applicable

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """Look for a service that makes them."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    maker = installers.host_key_maker(image)
    if maker:
        return Verdict(remark=f"{maker} makes them.")
    reason = "Nothing makes host keys at boot, and without any sshd does not start."
    return installers.without(image, reason)


def _failing(tree: Builder) -> None:
    tree.file("/usr/sbin/sshd", "", mode=0o755)
    installers.example(tree)


def _passing(tree: Builder) -> None:
    _failing(tree)
    tree.link(installers.ENABLED, "/usr/lib/systemd/system/firstkey.service")


RULE = Rule(
    id="host-key-maker",
    title="New host keys are made at boot",
    guideline="G4",
    severity=ERROR,
    prose=(
        "An image without host keys is only good if each instance makes its own: sshd does not start without "
        "any. firstkey does it, and so do cloud-init, sshd-keygen.service of Debian 13 and "
        "sshd-keygen.target of Fedora and its kin, where the machine-id lets a unit of the first boot run; "
        "the scripts of Debian 12 do not. seal enables firstkey.service where it is installed."
    ),
    check=check,
    remedy=lambda image: installers.enable(image) if check(image).findings else [],
    failing=_failing,
    passing=_passing,
)
