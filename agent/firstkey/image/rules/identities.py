"""Rules about what makes instances look like one machine: identities, network cards and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, leftovers
from firstkey.image.changes import Remove, Write
from firstkey.image.leftovers import Place, example
from firstkey.image.rule import Rule
from firstkey.image.verdict import NOTE, WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

# --- identities of services -----------------------------------------------------------------------

MACHINES = (
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


def check_machines(image: Image) -> Verdict:
    """What is at these places, and iSCSI's name unless it is yet to be made."""
    verdict = leftovers.checker(*MACHINES)(image)
    if not OWN_NAME.search(image.read(INITIATOR) or b""):
        return verdict
    found = Finding(INITIATOR, "This is the name of one machine for iSCSI.", f"rm -- {INITIATOR}")
    return verdict._replace(findings=(*verdict.findings, found))


def remove_machines(image: Image) -> list[Change]:
    """Remove what is there; iSCSI is told to make a name, in the way that its package has."""
    made = leftovers.remover(*MACHINES)(image)
    before = image.read(INITIATOR) or b""
    if not OWN_NAME.search(before):
        return made
    if image.is_directory(DEBIANS):
        return [*made, Write(INITIATOR, "have a name made", before, GENERATE, 0o600)]
    return [*made, Remove(INITIATOR, "the name of one machine for iSCSI")]


# --- network cards --------------------------------------------------------------------------------

# What udev and cloud-init write by themselves, and write again.
CARDS = (
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


def check_cards(image: Image) -> Verdict:
    """What was written by machine, and cards that are named by their address."""
    verdict = leftovers.checker(*CARDS)(image)
    known = {finding.path for finding in verdict.findings}
    return verdict._replace(findings=(*verdict.findings, *_cards_by_hand(image, known)))


def _cards_by_hand(image: Image, known: set[str]) -> Iterator[Finding]:
    for pattern in WRITTEN:
        for path in image.glob(pattern):
            content = (image.read(path) or b"") if path not in known and image.has_content(path) else b""
            match = MAC.search(content)
            if match:
                line = content.count(b"\n", 0, match.start()) + 1
                reason = "A network card is named by its address, which no other instance has."
                yield Finding(path, reason, f"Take the line out of {changes.quoted(path)}", line)


# --- names ----------------------------------------------------------------------------------------

HOSTNAME, HOSTS, RESOLVERS = "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"
# What EC2 names instances by itself (EC2 guide: Amazon EC2 instance hostname types).
GIVEN = re.compile(rb"\s*((?:ip-\d+-\d+-\d+-\d+|i-[0-9a-f]{8,17}|domU-[0-9A-Fa-f-]+)(?:\.[\w.-]+)?)\s*")
# Those that mean every machine's own: the loopback's, and EC2's resolver.
EVERYWHERE = re.compile(rb"^[ \t]*nameserver\s+(?!127\.|::1|169\.254\.169\.253|fd00:ec2::253)", re.MULTILINE)


def check_names(image: Image) -> Verdict:
    """Look at the files that name the machine, and at a fixed list of name servers."""
    findings = []
    given = GIVEN.fullmatch(image.read(HOSTNAME) or b"")
    if given:
        reason = f"Every instance of the image would be called {given[1].decode()}, as the builder was."
        findings.append(Finding(HOSTNAME, reason, f"rm -- {HOSTNAME}"))
    if image.is_file(RESOLVERS) and EVERYWHERE.search(image.read(RESOLVERS) or b""):
        reason = "These may be the builder's name servers; an instance gets its own when it boots."
        findings.append(Finding(RESOLVERS, reason, f"Look at it, and: rm -- {RESOLVERS}", severity=NOTE))
    return Verdict(tuple(findings))


def forget_names(image: Image) -> list[Change]:
    """Forget the name; systemd takes the one that the network gives. Name servers are left to a person."""
    given = GIVEN.fullmatch(image.read(HOSTNAME) or b"")
    if given is None:
        return []
    made: list[Change] = [Remove(HOSTNAME, "the builder's name")]
    before = image.read(HOSTS) or b""
    name = given[1].partition(b".")[0]
    after = b"".join(_without(line, name) for line in before.splitlines(keepends=True))
    return [*made, Write(HOSTS, "forget the builder's name", before, after)] if after != before else made


def _without(line: bytes, name: bytes) -> bytes:
    """The line of hosts(5) without that name; nothing where no other name is left."""
    address, *names = line.partition(b"#")[0].split() or [b""]
    kept = [each for each in names if each != name and not each.startswith(name + b".")]
    if len(kept) == len(names):
        return line
    return b" ".join([address, *kept]) + b"\n" if kept else b""


def _named(tree: Builder) -> None:
    tree.file("/etc/hostname", "web\n")
    tree.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")


RULES = (
    Rule(
        id="host-identities",
        title="No service has the identity of one machine",
        guideline="beyond",
        severity=WARNING,
        prose=(
            "Storage, monitoring and configuration management give each machine a name of its own and keep "
            "it in a file; copies of a machine with the same name disturb each other. Checked are iSCSI, "
            "NVMe, Salt, Puppet, ECS, Azure's and VMware's agents and others. seal removes the files; the "
            "services make new ones."
        ),
        check=check_machines,
        remedy=remove_machines,
        failing=example({INITIATOR: "InitiatorName=iqn.1993-08.org.debian:01:abc\n"}),
        passing=example({INITIATOR: "GenerateName=yes\n"}),
    ),
    Rule(
        id="network-names",
        title="No network card of one machine is named",
        guideline="beyond",
        severity=WARNING,
        prose=(
            "A rule that gives a name to the builder's network card leaves other instances with another "
            "name, or without a network. Checked is what udev and cloud-init write, and configuration in "
            "which a card is named by its hardware address. seal removes what was written by a machine; what "
            "a person wrote is only reported."
        ),
        check=check_cards,
        remedy=leftovers.remover(*CARDS),
        failing=example({"/etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net"\n'}),
        passing=example(
            {"/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n#HWADDR=0a:00:00:00:00:01\n"}
        ),
    ),
    Rule(
        id="builder-names",
        title="The builder's own name is forgotten",
        guideline="beyond",
        severity=WARNING,
        prose=(
            "EC2 gives each instance a name that has its address in it, and cloud-init writes it to "
            "/etc/hostname; an image with that calls every instance by the builder's name, and tells its "
            "address. A name that a person chose passes. seal removes such a name there and from /etc/hosts. "
            "A fixed list of name servers is a note only, since it may be meant."
        ),
        check=check_names,
        remedy=forget_names,
        failing=example(
            {
                HOSTNAME: "ip-10-0-3-17.eu-central-1.compute.internal\n",
                HOSTS: "127.0.0.1 localhost\n10.0.3.17 ip-10-0-3-17\n",
            }
        ),
        passing=_named,
    ),
)
