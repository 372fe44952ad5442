"""Beyond the guide: no leases and identities of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING

if TYPE_CHECKING:
    from firstkey.image.rule import Builder

PLACES = (
    Place("/var/lib/dhcp/*.lease*", "a DHCP lease"),
    Place("/var/lib/dhcp3/*.lease*", "a DHCP lease"),
    Place("/var/lib/dhclient/*", "a DHCP lease"),
    Place("/var/lib/dhcpcd/*", "a DHCP lease"),
    Place("/var/lib/dhcpcd5/*", "a DHCP lease"),
    Place("/etc/dhcpcd.duid", "the identity of a DHCP client"),
    Place("/etc/dhcpcd.secret", "the secret of a DHCP client"),
    Place("/var/lib/NetworkManager/*.lease", "a DHCP lease"),
    Place("/var/lib/NetworkManager/dhclient*.conf", "what a DHCP lease was asked with"),
    Place("/var/lib/NetworkManager/secret_key", "the secret of one machine's network addresses"),
    Place("/var/lib/NetworkManager/seen-bssids", "networks that the builder saw"),
    Place("/var/lib/NetworkManager/timestamps", "when the builder was in which network"),
    Place("/var/lib/systemd/network/*", "the state of a network"),
    Place("/var/lib/wicked/*", "a DHCP lease"),
    Place("/var/lib/connman/*", "the state of a network", whole=True),
)


def _failing(tree: Builder) -> None:
    tree.file("/var/lib/dhcp/dhclient.eth0.leases", "lease {\n}\n")


def _passing(tree: Builder) -> None:
    tree.file("/var/lib/dhcp/dhclient.leases", "")


RULE = Rule(
    id="dhcp-leases",
    title="There are no DHCP leases",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "A lease tells where the builder was, and a client that finds one asks for the builder's address "
        "first; a saved DUID or secret makes instances look like one machine to the network. Checked are "
        "the files of dhclient, dhcpcd, NetworkManager, systemd-networkd and wicked. seal removes them."
    ),
    check=leftovers.checker(*PLACES),
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
