"""Beyond the guide: no identity of one machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image import leftovers
from firstkey.image.changes import Remove, Write
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

PLACES = (
    Place("/etc/nvme/hostid", "the identity of one machine for NVMe"),
    Place("/etc/nvme/hostnqn", "the identity of one machine for NVMe"),
    Place("/etc/salt/minion_id", "the name of one machine for Salt"),
    Place("/etc/salt/pki/minion/*", "keys of one machine for Salt"),
    Place("/etc/puppetlabs/puppet/ssl", "keys of one machine for Puppet", whole=True),
    Place("/var/lib/puppet/ssl", "keys of one machine for Puppet", whole=True),
    Place("/var/lib/ecs/data/*", "the identity of one machine for ECS"),
    Place("/var/lib/waagent/*", "the state of Azure's agent", whole=True),
    Place("/etc/vmware-tools/GuestProxyData", "keys of one machine for VMware", whole=True),
    Place("/var/lib/cloudflared", "the identity of a tunnel", whole=True),
    Place("/var/lib/fwupd/pki/*", "keys of one machine for fwupd"),
    Place("/etc/sysconfig/rhn/systemid", "the registration of one machine"),
    Place("/etc/pki/consumer/*", "the registration of one machine"),
    Place("/etc/pki/entitlement/*", "the registration of one machine"),
    Place("/var/lib/ubuntu-advantage/private/*", "the registration of one machine"),
    Place("/var/lib/snapd/device/*", "the identity of one machine for snaps"),
    Place("/etc/ipa/default.conf", "the enrolment of one machine"),
    Place("/var/lib/landscape/client/*", "the registration of one machine"),
)


INITIATOR = "/etc/iscsi/initiatorname.iscsi"
GENERATE = b"GenerateName=yes\n"  # Debian's open-iscsi makes a name then; others do when there is no file
DEBIANS = "/usr/lib/open-iscsi"
OWN_NAME = re.compile(rb"^[ \t]*InitiatorName\s*=", re.MULTILINE)


def check(image: Image) -> Verdict:
    """What is at these places, and iSCSI's name unless it is yet to be made."""
    verdict = leftovers.checker(*PLACES)(image)
    if not OWN_NAME.search(image.read(INITIATOR) or b""):
        return verdict
    found = Finding(INITIATOR, "This is the name of one machine for iSCSI.", f"rm -- {INITIATOR}")
    return verdict._replace(findings=(*verdict.findings, found))


def remedy(image: Image) -> list[Change]:
    """Remove what is there; iSCSI is told to make a name, in the way that its package has."""
    made = leftovers.remover(*PLACES)(image)
    before = image.read(INITIATOR) or b""
    if not OWN_NAME.search(before):
        return made
    if image.is_directory(DEBIANS):
        return [*made, Write(INITIATOR, "have a name made", before, GENERATE, 0o600)]
    return [*made, Remove(INITIATOR, "the name of one machine for iSCSI")]


def _failing(tree: Builder) -> None:
    tree.file("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:abc\n", mode=0o600)


def _passing(tree: Builder) -> None:
    tree.file("/etc/iscsi/initiatorname.iscsi", "GenerateName=yes\n", mode=0o600)


RULE = Rule(
    id="host-identities",
    title="No service has the identity of one machine",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Storage, monitoring and configuration management give each machine a name of its own and keep it "
        "in a file; copies of a machine with the same name disturb each other. Checked are iSCSI, NVMe, "
        "Salt, Puppet, ECS, Azure's and VMware's agents and others. seal removes the files; the services "
        "make new ones."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
