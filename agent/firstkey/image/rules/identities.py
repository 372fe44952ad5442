"""What makes instances look like one machine: identities, names, and what was kept of one of them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.image.changes import Link, Remove, Write
from firstkey.image.door import seen
from firstkey.image.places import EMPTY, WIPE, Place, places
from firstkey.image.rule import Rule
from firstkey.image.rules import boot
from firstkey.image.verdict import ERROR, NOTE, Finding, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

# --- the machine-id -------------------------------------------------------------------------------

MACHINE_ID = "/etc/machine-id"
DBUS = "/var/lib/dbus/machine-id"
UNSET = b"uninitialized\n"  # machine-id(5), FIRST BOOT SEMANTICS
ID = re.compile(rb"(?:[0-9a-f]{32}|uninitialized)?\s*")
"""What the file holds that a link may lead to: nothing else is written to."""


def check_machine_id(image: Image) -> Verdict:
    """Look at both places; seal has what machine-id(5) has for images, a first boot to come."""
    content = _machine_id(image)
    findings = []
    is_filled = content == b"" and not _is_link(image) and not boot.needs_first_boot(image)
    if content is not None and not is_filled and content.strip() != UNSET.strip():
        findings.append(_own(image, content))
    if _has_dbus_id(image):
        reason = "This is another copy of the machine-id: all instances would have it."
        link = Link(DBUS, MACHINE_ID, "the machine-id of D-Bus")
        findings.append(Finding(DBUS, reason, changes=(link,)))
    return Verdict(tuple(findings), remark="It is empty, and filled at boot." if is_filled else "")


def _own(image: Image, content: bytes) -> Finding:
    reason, severity = "All instances of the image would have this machine-id.", None
    if not content.strip():
        reason = "An empty machine-id is filled at boot, but is no first boot for services that wait for one."
        severity = NOTE
    if _is_link(image) and not ID.fullmatch(content):
        words = "Look where this link leads, and put a file in its place"
        return Finding(MACHINE_ID, reason, words, severity=severity)
    link = image.status(MACHINE_ID) if _leads_to_dbus(image) else None
    instead = seen(link) if link else None
    unset = Write(MACHINE_ID, "unset the machine-id", content, UNSET, 0o444, link=instead)
    return Finding(MACHINE_ID, reason, severity=severity, changes=(unset,))


def _machine_id(image: Image) -> bytes | None:
    """What it says; of links that go round, nothing, which no system boots with."""
    try:
        return image.read(MACHINE_ID)
    except FirstkeyError as error:
        if error.reason is not reasons.SYMLINK_REFUSED or not _is_link(image):
            raise
        return b""


def _is_link(image: Image) -> bool:
    status = image.status(MACHINE_ID)
    return status is not None and stat.S_ISLNK(status.st_mode)


def _leads_to_dbus(image: Image) -> bool:
    """Whether it is a link to D-Bus's copy, which becomes a link to it; or the two already go round."""
    if not _is_link(image):
        return False
    try:
        found, dbus = walk.follow(image.tree, MACHINE_ID), walk.follow(image.tree, DBUS)
    except FirstkeyError:
        return True
    return found is not None and dbus is not None and found.path == dbus.path and not dbus.links


def _has_dbus_id(image: Image) -> bool:
    copy, own = image.file(DBUS, []), image.file(MACHINE_ID, [])
    if copy is None or not copy.status.st_size:
        return False
    if own is None or own.path != copy.path:
        return True
    return bool(own.links) and not copy.links


# --- identities of services -----------------------------------------------------------------------

MACHINES = (
    *places("the identity of one machine for NVMe", "/etc/nvme/{hostid,hostnqn}"),
    Place("/etc/salt/minion_id", "the name of one machine for Salt"),
    Place("/etc/salt/pki/minion/*", "keys of one machine for Salt"),
    *places("keys of one machine for Puppet", "/{etc/puppetlabs,var/lib}/puppet/ssl", whole=True),
    Place("/var/lib/ecs/data/*", "the identity of one machine for ECS"),
    Place("/var/lib/waagent/*", "the state of Azure's agent", whole=True),
    Place("/etc/vmware-tools/GuestProxyData", "keys of one machine for VMware", whole=True),
    Place("/var/lib/cloudflared", "the identity of a tunnel", whole=True),
    Place("/var/lib/fwupd/pki/*", "keys of one machine for fwupd"),
    *places(
        "the registration of one machine",
        "/etc/{sysconfig/rhn/systemid,pki/consumer/*,pki/entitlement/*}",
        "/var/lib/{ubuntu-advantage/private,landscape/client}/*",
    ),
    Place("/var/lib/snapd/device/*", "the identity of one machine for snaps"),
    Place("/etc/ipa/default.conf", "the enrolment of one machine"),
)


INITIATOR = "/etc/iscsi/initiatorname.iscsi"
GENERATE = b"GenerateName=yes\n"  # Debian's open-iscsi makes a name then; others do when there is no file
DEBIANS = "/usr/lib/open-iscsi"
OWN_NAME = re.compile(rb"^[ \t]*InitiatorName\s*=", re.MULTILINE)


def check_initiator(image: Image) -> Verdict:
    """ISCSI's name unless it is yet to be made; it is told to make one in the way that its package has."""
    before = image.read(INITIATOR) or b""
    if not OWN_NAME.search(before):
        return Verdict()
    made = (
        Write(INITIATOR, "have a name made", before, GENERATE, 0o600)
        if image.is_directory(DEBIANS)
        else Remove(INITIATOR, "the name of one machine for iSCSI")
    )
    reason = "This is the name of one machine for iSCSI."
    return Verdict((Finding(INITIATOR, reason, changes=(made,)),))


# --- network cards --------------------------------------------------------------------------------

# What udev and cloud-init write by themselves, and write again.
CARDS = (
    *places(
        "a list of one machine's network cards",
        "/etc/udev/rules.d/{70-persistent-net,75-persistent-net-generator,85-persistent-net-cloud-init}.rules",
    ),
    Place("/etc/udev/rules.d/70-persistent-cd.rules", "a list of one machine's drives"),
    *places(
        "one instance's network, as cloud-init wrote it",
        "/etc/{netplan/50-cloud-init.yaml,network/interfaces.d/50-cloud-init*}",
        "/etc/{systemd/network/10-,NetworkManager/system-connections/}cloud-init-*",
    ),
    Place("/etc/systemd/network/10-persistent-*.link", "a name for one machine's network card"),
)
MAC = re.compile(
    rb"^[^#\n]*(?:HWADDR|MACADDR|MACAddress|macaddress|mac-address|hwaddress)[^#\n]{0,60}?"
    rb"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}",
    re.MULTILINE,
)
WRITTEN = places(
    "a name for one machine's network card",
    "/etc/{sysconfig/network-scripts/ifcfg-*,systemd/network/*,netplan/*.yaml}",
    "/etc/{NetworkManager/system-connections/*,network/interfaces,network/interfaces.d/*}",
    kept=True,
    holds=MAC,
    says="A network card is named by its address, which no other instance has.",
    advice="Remove the line",
)

# --- names ----------------------------------------------------------------------------------------

HOSTNAME, HOSTS, RESOLVERS = "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"
# What EC2 names instances by itself (EC2 guide: Amazon EC2 instance hostname types).
GIVEN = re.compile(rb"\s*((?:ip-\d+-\d+-\d+-\d+|i-[0-9a-f]{8,17}|domU-[0-9A-Fa-f-]+)(?:\.[\w.-]+)?)\s*")
# Those that mean every machine's own: the loopback's, and EC2's resolver.
EVERYWHERE = re.compile(rb"^[ \t]*nameserver\s+(?!127\.|::1|169\.254\.169\.253|fd00:ec2::253)", re.MULTILINE)


def check_names(image: Image) -> Verdict:
    """Look at the files that name the machine, and at a fixed list of name servers.

    systemd takes the name that the network gives. Name servers are left to a person.
    """
    findings = []
    given = GIVEN.fullmatch(image.read(HOSTNAME) or b"")
    if given:
        reason = f"Every instance of the image would be called {given[1].decode()}, as the builder was."
        made = tuple(_forgetting(image, given[1].partition(b".")[0]))
        findings.append(Finding(HOSTNAME, reason, changes=made))
    if image.is_file(RESOLVERS) and EVERYWHERE.search(image.read(RESOLVERS) or b""):
        reason = "These may be the builder's name servers; an instance gets its own when it boots."
        findings.append(Finding(RESOLVERS, reason, "Remove it, if they are not intended", severity=NOTE))
    return Verdict(tuple(findings))


def _forgetting(image: Image, name: bytes) -> Iterator[Change]:
    yield Remove(HOSTNAME, "the builder's name")
    before = image.read(HOSTS) or b""
    after = b"".join(_without(line, name) for line in before.splitlines(keepends=True))
    if after != before:
        yield Write(HOSTS, "forget the builder's name", before, after)


def _without(line: bytes, name: bytes) -> bytes:
    """The line of hosts(5) without that name; nothing where no other name is left."""
    address, *names = line.partition(b"#")[0].split() or [b""]
    kept = [each for each in names if each != name and not each.startswith(name + b".")]
    if len(kept) == len(names):
        return line
    return b" ".join([address, *kept]) + b"\n" if kept else b""


# --- what cloud-init keeps ------------------------------------------------------------------------

DATA = "/var/lib/cloud"
LINK = f"{DATA}/instance"
_KEPT = "what cloud-init keeps of one instance"
CLOUD_INIT = (
    *places(
        f"{_KEPT}, user-data and credentials included",
        f"{DATA}/{{data,handlers,instances,sem}}/*",
        whole=True,
        empty_counts=True,
    ),
    Place(f"{DATA}/seed", "what cloud-init is given instead of an instance's own user-data"),
    Place("/var/log/cloud-init*.log*", "cloud-init's log, user-data included", EMPTY),
)
# Where it makes, at every boot, what seal takes out of the files of accounts and keys.
_VALUE = rb"[ \t]*(?:\[\s*|(?:\n[ \t]*(?:#[^\n]*)?)*\n[ \t]*-[ \t]+)?[\"']?[^\s\"'#\]{}]{3}"
# So far and no further: each `chpasswd` of a hostile file would else be followed to the file's end.
_INSIDE = rb"(?:[ \t]*\{[^}]{0,500}|(?:\n[ \t][^\n]*){0,50}?\n[ \t]+)"
LOGIN = re.compile(
    rb"^[^#\n]*\b(?:ssh[_-]authorized[_-]keys|(?:hashed[_-]|plain_text_)?passw(?:or)?d)[\"']?[ \t]*:" + _VALUE
    + rb"|^[ \t]*[\"']?chpasswd[\"']?[ \t]*:" + _INSIDE + rb"[\"']?(?:list|users)[\"']?[ \t]*:",
    re.MULTILINE,
)  # fmt: skip
LOGINS = places(
    "a login",
    "/etc/cloud/{cloud.cfg,cloud.cfg.d/*.cfg}",
    how=WIPE,
    holds=LOGIN,
    kept=True,
    says="cloud-init gives an account a key or password from here at every boot.",
    advice="Remove it, if it is not intended",
)


def check_cloud_init(image: Image) -> Verdict:
    """The link that says which instance this is."""
    if image.status(LINK) is None:
        return Verdict()
    reason = "cloud-init takes every instance for the builder's."
    return Verdict((Finding(LINK, reason, changes=(Remove(LINK, _KEPT),)),))


RULES = (
    Rule(
        id="machine-id",
        title="The machine-id is not set",
        severity=ERROR,
        prose=(
            "Instances with the same machine-id get the same address from some DHCP servers, mix "
            "their journals, and are taken for one machine by many other programs. /etc/machine-id "
            "must say uninitialized, or be absent; an empty one, with which systemd sees no first "
            "boot, passes, unless only a first boot generates host keys: then it is a note. D-Bus's "
            "own copy must be a link. seal writes uninitialized, and makes the copy a link, also "
            "where the link was the other way round. At such a first boot systemd also applies its "
            "presets, which enable every unit that no preset names: seal lists, with its plan, the "
            "units that are off now and would be on. Mask a unit that must not start, or give it a "
            "preset, in place of disabling it."
        ),
        check=check_machine_id,
        failing={
            MACHINE_ID: "0123456789abcdef0123456789abcdef\n",
            DBUS: "0123456789abcdef0123456789abcdef\n",
        },
        passing={MACHINE_ID: "uninitialized\n", DBUS: f"->{MACHINE_ID}"},
    ),
    Rule(
        id="cloud-init-data",
        title="cloud-init has no data of an instance",
        severity=ERROR,
        prose=(
            "cloud-init keeps the user-data of the builder, with all secrets in it, and a record of "
            "its finished steps; an image with that gives the secrets away, and may not be set up "
            "again. The rule checks instances, data, semaphores, handlers and seed in /var/lib/cloud, "
            "and the logs. seal removes them as cloud-init clean does; scripts of an administrator "
            "stay. Keys and passwords in /etc/cloud/cloud.cfg and cloud.cfg.d, which cloud-init gives "
            "to an account at every boot, are only reported, since they may be intended."
        ),
        places=(*CLOUD_INIT, *LOGINS),
        check=check_cloud_init,
        failing={
            f"{DATA}/instances/i-0123456789/user-data.txt": "#!/bin/sh\nTOKEN=...\n",
            LINK: f"->{DATA}/instances/i-0123456789",
            "/var/log/cloud-init.log": "ran\n",
        },
        passing={f"{DATA}/instances": None, f"{DATA}/scripts/per-boot/mine.sh": "#!/bin/sh\n"},
    ),
    Rule(
        id="host-identities",
        title="No service has the identity of one machine",
        prose=(
            "Storage, monitoring and configuration management give each machine a name of its own and "
            "keep it in a file; copies of a machine with the same name disturb each other. The rule "
            "checks iSCSI, NVMe, Salt, Puppet, ECS, Azure's and VMware's agents and others. seal "
            "removes the files; the services generate new ones."
        ),
        places=MACHINES,
        check=check_initiator,
        failing={INITIATOR: "InitiatorName=iqn.1993-08.org.debian:01:abc\n"},
        passing={INITIATOR: "GenerateName=yes\n"},
    ),
    Rule(
        id="network-names",
        title="No network card of one machine is named",
        prose=(
            "A rule that names the builder's network card leaves other instances with another name, "
            "or without a network. The rule checks the files that udev and cloud-init write, and "
            "configuration in which a card is named by its hardware address. seal removes files that "
            "a program wrote; a person's files are only reported."
        ),
        places=(*CARDS, *WRITTEN),
        failing={"/etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net"\n'},
        passing={"/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n#HWADDR=0a:00:00:00:00:01\n"},
    ),
    Rule(
        id="builder-names",
        title="The builder's own name is removed",
        prose=(
            "EC2 gives each instance a name with its address in it, and cloud-init writes it to "
            "/etc/hostname; an image with that calls every instance by the builder's name, and shows "
            "its address. A name that a person chose passes. seal removes such a name there and from "
            "/etc/hosts. A fixed list of name servers is a note only, since it may be intended."
        ),
        check=check_names,
        failing={
            HOSTNAME: "ip-10-0-3-17.eu-central-1.compute.internal\n",
            HOSTS: "127.0.0.1 localhost\n10.0.3.17 ip-10-0-3-17\n",
        },
        passing={HOSTNAME: "web\n", RESOLVERS: "->../run/systemd/resolve/stub-resolv.conf"},
    ),
)
