"""What makes instances look like one machine: identities, names, and what was kept of one of them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from firstkey import reasons
from firstkey.image.changes import Change, Link, Remove, Write
from firstkey.image.door import seen
from firstkey.image.places import EMPTY, WIPE, Place, finding
from firstkey.image.rule import Rule
from firstkey.image.rules import boot
from firstkey.image.rules.boot import MACHINE_ID
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NOTE, Finding, Part, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

# --- the machine-id -------------------------------------------------------------------------------

DBUS = "/var/lib/dbus/machine-id"
NO_FIRST_BOOT = "An empty machine-id is filled at boot, but is no first boot for services that wait for one."
UNSET = b"uninitialized\n"  # machine-id(5), FIRST BOOT SEMANTICS
ID = re.compile(rb"(?:[0-9a-f]{32}|uninitialized)?\s*")
"""What the file holds that a link may lead to: nothing else is written to."""


def _check_machine_id(image: Image) -> Iterator[Part]:
    """Look at both places; seal has what machine-id(5) has for images, a first boot to come."""
    status, copy = image.status(MACHINE_ID), image.file(DBUS, [])
    link = seen(status) if status and stat.S_ISLNK(status.st_mode) else None
    try:
        content = image.read(MACHINE_ID)
    except FirstkeyError as error:
        if error.reason is not reasons.SYMLINK_REFUSED or not link:
            raise
        content = b""  # links that go round, which no system boots with
    own = walk.end_of(image.tree, MACHINE_ID)
    is_one = bool(own and copy and own.path == copy.path)
    leads_there = bool(is_one and own and own.links and copy and not copy.links)
    if content == b"" and not link and not boot.needs_first_boot(image):
        yield Verdict(remark="It is empty, and filled at boot.")
    elif content is not None and content.strip() != UNSET.strip():
        found = Finding(MACHINE_ID, "All instances of the image would have this machine-id.")
        if not content.strip():
            found = found._replace(reason=NO_FIRST_BOOT, severity=NOTE)
        if link and not ID.fullmatch(content):
            yield found._replace(remedy="Look where this link leads, and put a file in its place")
        else:
            # A link to D-Bus's copy, which becomes a link to it; or the two already go round.
            instead = link if own is None or leads_there else None
            unset = Write(MACHINE_ID, "unset the machine-id", content, UNSET, 0o444, link=instead)
            yield found._replace(changes=(unset,))
    if copy and copy.status.st_size and (leads_there or not is_one):
        reason = "This is another copy of the machine-id: all instances would have it."
        yield Finding(DBUS, reason, changes=(Link(DBUS, MACHINE_ID, "the machine-id of D-Bus"),))


# --- identities of services -----------------------------------------------------------------------

MACHINES = (
    Place("/etc/nvme/{hostid,hostnqn}", "the identity of one machine for NVMe"),
    Place("/etc/salt/minion_id", "the name of one machine for Salt"),
    Place("/etc/salt/pki/minion/*", "keys of one machine for Salt"),
    Place("/{etc/puppetlabs,var/lib}/puppet/ssl", "keys of one machine for Puppet", whole=True),
    Place("/var/lib/ecs/data/*", "the identity of one machine for ECS"),
    Place("/var/lib/waagent/*", "the state of Azure's agent", whole=True),
    Place("/etc/vmware-tools/GuestProxyData", "keys of one machine for VMware", whole=True),
    Place("/var/lib/cloudflared", "the identity of a tunnel", whole=True),
    Place("/var/lib/fwupd/pki/*", "keys of one machine for fwupd"),
    Place("/etc/{sysconfig/rhn/systemid,pki/{consumer,entitlement}/*}", "the registration of one machine"),
    Place("/var/lib/{ubuntu-advantage/private,landscape/client}/*", "the registration of one machine"),
    Place("/var/lib/snapd/device/*", "the identity of one machine for snaps"),
    Place("/etc/ipa/default.conf", "the enrolment of one machine"),
)

INITIATOR = "/etc/iscsi/initiatorname.iscsi"
OWN_NAME = re.compile(rb"^[ \t]*InitiatorName\s*=", re.MULTILINE)


def _check_initiator(image: Image) -> Iterator[Part]:
    """ISCSI's name unless it is yet to be made; seal has one made in the way of its package."""
    what, before = "the name of one machine for iSCSI", image.read(INITIATOR) or b""
    if OWN_NAME.search(before):
        made: Change = Remove(INITIATOR, what)
        if image.is_directory("/usr/lib/open-iscsi"):  # Debian's: others make a name where there is no file
            made = Write(INITIATOR, "have a name made", before, b"GenerateName=yes\n", 0o600)
        yield Finding(INITIATOR, f"This is {what}.", changes=(made,))


# --- network cards --------------------------------------------------------------------------------

# What udev and cloud-init write by themselves, and write again.
CARDS = (
    Place(
        "/etc/udev/rules.d/{70-persistent-net,75-persistent-net-generator,85-persistent-net-cloud-init}.rules",
        "a list of one machine's network cards",
    ),
    Place("/etc/udev/rules.d/70-persistent-cd.rules", "a list of one machine's drives"),
    Place(
        "/etc/{netplan/50-cloud-init.yaml,network/interfaces.d/50-cloud-init*,"
        "{systemd/network/10-,NetworkManager/system-connections/}cloud-init-*}",
        "one instance's network, as cloud-init wrote it",
    ),
    Place("/etc/systemd/network/10-persistent-*.link", "a name for one machine's network card"),
)
MAC = re.compile(
    rb"^[^#\n]*(?:HWADDR|MACADDR|MACAddress|macaddress|mac-address|hwaddress)[^#\n]{0,60}?"
    rb"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}",
    re.MULTILINE,
)
WRITTEN = Place(
    "/etc/{sysconfig/network-scripts/ifcfg-*,systemd/network/*,netplan/*.yaml,"
    "NetworkManager/system-connections/*,network/interfaces{,.d/*}}",
    "a name for one machine's network card",
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


def _check_names(image: Image) -> Iterator[Part]:
    """Without a name of its own, systemd takes the one that the network gives."""
    given = GIVEN.fullmatch(image.read(HOSTNAME) or b"")
    if given:
        changes: list[Change] = [Remove(HOSTNAME, "the builder's name")]
        name, before = given[1].partition(b".")[0], image.read(HOSTS) or b""
        after = b"".join(_without(line, name) for line in before.splitlines(keepends=True))
        if after != before:
            changes.append(Write(HOSTS, "forget the builder's name", before, after))
        reason = f"Every instance of the image would be called {given[1].decode()}, as the builder was."
        yield Finding(HOSTNAME, reason, changes=tuple(changes))
    if image.is_file(RESOLVERS) and EVERYWHERE.search(image.read(RESOLVERS) or b""):
        reason = "These may be the builder's name servers; an instance gets its own when it boots."
        yield Finding(RESOLVERS, reason, "Remove it, if they are not intended", severity=NOTE)


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
_SECRETS = f"{_KEPT}, user-data and credentials included"
CLOUD_INIT = (
    Place(f"{DATA}/{{data,handlers,instances,sem}}/*", _SECRETS, whole=True, empty_counts=True),
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
LOGINS = Place(
    "/etc/cloud/{cloud.cfg,cloud.cfg.d/*.cfg}",
    "a login",
    how=WIPE,
    holds=LOGIN,
    kept=True,
    says="cloud-init gives an account a key or password from here at every boot.",
    advice="Remove it, if it is not intended",
)


def _check_cloud_init(image: Image) -> Iterator[Part]:
    if image.status(LINK) is not None:
        yield finding(image, LINK, _KEPT, "cloud-init takes every instance for the builder's.")


RULES = (
    Rule(
        id="machine-id",
        title="The machine-id is not set",
        severity=ERROR,
        prose="""Instances with the same machine-id get the same address from some DHCP servers, mix their
        journals, and are taken for one machine by many programs. /etc/machine-id must say uninitialized, or
        be absent; an empty one, with which systemd sees no first boot, passes, but is a note where only a
        first boot generates host keys. seal writes uninitialized, and makes D-Bus's own copy a link to it,
        also where the link was the other way round. At such a first boot systemd applies its presets, which
        enable every unit that no preset names: seal lists, with its plan, the units that are off now and
        would be on. Mask a unit that must not start, or give it a preset.""",
        check=_check_machine_id,
        failing=dict.fromkeys((MACHINE_ID, DBUS), "0123456789abcdef0123456789abcdef\n"),
        passing={MACHINE_ID: "uninitialized\n", DBUS: f"->{MACHINE_ID}"},
    ),
    Rule(
        id="cloud-init-data",
        title="cloud-init has no data of an instance",
        severity=ERROR,
        prose="""cloud-init keeps the user-data of the builder, with all secrets in it, and a record of its
        finished steps, so that an instance may not be set up. seal removes both, with the handlers, the seed
        and the logs, as cloud-init clean does; scripts of an administrator stay. Keys and passwords in
        /etc/cloud/cloud.cfg and cloud.cfg.d, which cloud-init gives to an account at every boot, may be
        intended, and are only reported.""",
        places=(*CLOUD_INIT, LOGINS),
        check=_check_cloud_init,
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
        prose="""Storage, monitoring and configuration management give each machine a name or keys of its own,
        and copies with the same ones disturb each other. The rule checks iSCSI, NVMe, Salt, Puppet, ECS,
        Azure's and VMware's agents and others. seal removes the files; the services generate new ones.""",
        places=MACHINES,
        check=_check_initiator,
        failing={INITIATOR: "InitiatorName=iqn.1993-08.org.debian:01:abc\n"},
        passing={INITIATOR: "GenerateName=yes\n"},
    ),
    Rule(
        id="network-names",
        title="No network card of one machine is named",
        prose="""A rule that names the builder's network card leaves other instances with another name, or
        without a network. seal removes the files that udev and cloud-init wrote; configuration of a person's
        that names a card by its hardware address is only reported.""",
        places=(*CARDS, WRITTEN),
        failing={"/etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net"\n'},
        passing={"/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\n#HWADDR=0a:00:00:00:00:01\n"},
    ),
    Rule(
        id="builder-names",
        title="The builder's own name is removed",
        prose="""EC2 gives each instance a name with its address in it, and cloud-init writes it to
        /etc/hostname: every instance of the image would have that name. One that a person chose passes. seal
        removes EC2's name there and from /etc/hosts. A fixed list of name servers may be intended, and is a
        note.""",
        check=_check_names,
        finds_files=True,
        failing={
            HOSTNAME: "ip-10-0-3-17.eu-central-1.compute.internal\n",
            HOSTS: "127.0.0.1 localhost\n10.0.3.17 ip-10-0-3-17\n",
        },
        passing={HOSTNAME: "web\n", RESOLVERS: "->../run/systemd/resolve/stub-resolv.conf"},
    ),
)
