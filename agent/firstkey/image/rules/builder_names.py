"""Beyond the guide: the image does not have the name of the instance that it was made on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.image.changes import Remove, Write
from firstkey.image.rule import Rule
from firstkey.image.verdict import NOTE, WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

HOSTNAME, HOSTS, RESOLVERS = "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"
# What EC2 names instances by itself (EC2 guide: Amazon EC2 instance hostname types).
GIVEN = re.compile(rb"\s*((?:ip-\d+-\d+-\d+-\d+|i-[0-9a-f]{8,17}|domU-[0-9A-Fa-f-]+)(?:\.[\w.-]+)?)\s*")
# Those that mean every machine's own: the loopback's, and EC2's resolver.
EVERYWHERE = re.compile(rb"^[ \t]*nameserver\s+(?!127\.|::1|169\.254\.169\.253|fd00:ec2::253)", re.MULTILINE)


def check(image: Image) -> Verdict:
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


def remedy(image: Image) -> list[Change]:
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


def _failing(tree: Builder) -> None:
    tree.file("/etc/hostname", "ip-10-0-3-17.eu-central-1.compute.internal\n")
    tree.file("/etc/hosts", "127.0.0.1 localhost\n10.0.3.17 ip-10-0-3-17\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/hostname", "web\n")
    tree.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")


RULE = Rule(
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
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
