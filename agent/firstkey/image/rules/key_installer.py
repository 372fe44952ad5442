"""G5: somebody installs the launch key at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import installers
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Verdict

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image


def check(image: Image) -> Verdict:
    """Look for a service that does."""
    found = installers.key_installers(image)
    if found:
        return Verdict(remark=f"{' and '.join(found)} installs it.")
    reason = "Nothing installs the launch key at boot, so nobody will be able to log in."
    return installers.without(image, reason)


def _failing(tree: Builder) -> None:
    installers.example(tree)


def _passing(tree: Builder) -> None:
    _failing(tree)
    tree.link(installers.ENABLED, "/usr/lib/systemd/system/firstkey.service")


RULE = Rule(
    id="key-installer",
    title="The launch key is installed at boot",
    guideline="G5",
    severity=ERROR,
    prose=(
        "With passwords off and all keys taken out, the launch key is the only way in, and something has "
        "to fetch it: firstkey.service, cloud-init, afterburn, or a script in rc.local as the guide has "
        "it. It must be enabled, whole, and not masked or switched off, on the kernel's command line neither "
        "(firstkey=off); a cloud-init whose datasource_list is None asks nobody for keys. seal enables "
        "firstkey.service where it is installed."
    ),
    check=check,
    remedy=lambda image: installers.enable(image) if check(image).findings else [],
    failing=_failing,
    passing=_passing,
)
