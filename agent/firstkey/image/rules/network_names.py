"""Beyond the guide: no network configuration that is tied to one machine's hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

# What udev and cloud-init write by themselves, and write again.
PLACES = (
    Place("/etc/udev/rules.d/70-persistent-net.rules", "a list of one machine's network cards"),
    Place("/etc/udev/rules.d/75-persistent-net-generator.rules", "a list of one machine's network cards"),
    Place("/etc/udev/rules.d/70-persistent-cd.rules", "a list of one machine's drives"),
    Place("/etc/udev/rules.d/85-persistent-net-cloud-init.rules", "a list of one machine's network cards"),
    Place("/etc/netplan/50-cloud-init.yaml", "one instance's network, as cloud-init wrote it"),
    Place("/etc/network/interfaces.d/50-cloud-init*", "one instance's network, as cloud-init wrote it"),
    Place("/etc/systemd/network/10-cloud-init-*", "one instance's network, as cloud-init wrote it"),
    Place("/etc/systemd/network/10-persistent-*.link", "a name for one machine's network card"),
    Place(
        "/etc/NetworkManager/system-connections/cloud-init-*",
        "one instance's network, as cloud-init wrote it",
    ),
)
WRITTEN = (
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/systemd/network/*",
    "/etc/netplan/*.yaml",
    "/etc/NetworkManager/system-connections/*",
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
)
MAC = re.compile(
    rb"^[^#\n]*(?:HWADDR|MACADDR|MACAddress|macaddress|mac-address|hwaddress)[^#\n]{0,60}?"
    rb"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}",
    re.MULTILINE,
)


def check(image: Image) -> Verdict:
    """What was written by machine, and cards that are named by their address."""
    verdict = leftovers.checker(*PLACES)(image)
    known = {finding.path for finding in verdict.findings}
    return verdict._replace(findings=(*verdict.findings, *_by_hand(image, known)))


def _by_hand(image: Image, known: set[str]) -> Iterator[Finding]:
    for pattern in WRITTEN:
        for path in image.glob(pattern):
            content = (image.read(path) or b"") if path not in known and image.has_content(path) else b""
            match = MAC.search(content)
            if match:
                line = content.count(b"\n", 0, match.start()) + 1
                reason = "A network card is named by its address, which no other instance has."
                yield Finding(path, reason, f"Take the line out of {changes.quoted(path)}", line)


def _failing(tree: Builder) -> None:
    tree.file("/etc/udev/rules.d/70-persistent-net.rules", 'SUBSYSTEM=="net"\n')


def _passing(tree: Builder) -> None:
    tree.file("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\n#HWADDR=0a:00:00:00:00:01\n")


RULE = Rule(
    id="network-names",
    title="No network card of one machine is named",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "A rule that gives a name to the builder's network card leaves other instances with another name, "
        "or without a network. Checked is what udev and cloud-init write, and configuration in which a "
        "card is named by its hardware address. seal removes what was written by a machine; what a person "
        "wrote is only reported."
    ),
    check=check,
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
