"""docs/speed.md, written by the bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from figures import Figures, Taken, median, quartiles
from peers import BAKED, CLOUD_INIT, DEFAULT_TYPES, FIRSTKEY, NEW, NO_RSA, OLD, SCRIPT, Peer

INTRODUCTION = """\
# How fast a first boot is

How long a first boot takes with firstkey, with cloud-init and with the EC2 guide's script. `sudo ./dev bench
--boots {boots}` wrote this page. It boots Debian under systemd in a container, with a metadata service at
169.254.169.254, and measures from outside when SSH answers and when the launch key can log in. All take turns
in one run, {boots} first boots each. The plot shows every boot.

- *keys baked in*: host keys and the launch key are in the image, and no agent runs at boot. This is the
  floor, one for each Debian suite. *Added* is the time above the floor of the same suite.
- *the guide's script*: `ssh-keygen`, then the EC2 guide's commands with IMDSv2, as a unit before sshd and
  after network-online.target.
- *cloud-init*: the distribution's package, at its fastest: only its Ec2 data source, by IP literal, no name
  look-ups.

Measured on {machine}.

![First boots: seconds until port 22 answers, and until the launch key lets in](speed.svg)
"""
SETTINGS = {
    (DEFAULT_TYPES, False): "First boots",
    (NO_RSA, False): "First boots without an RSA key, as Amazon Linux 2023 has it",
    (NO_RSA, True): "First boots without an RSA key, with a network that takes 0.7 s to come up",
}
HEAD = ["seconds", "port 22 answers", "the launch key lets in", "added to port 22"]
NOTES = """\
## What is counted

strace counts files and bytes in a separate boot, over all processes of the agent: each successful open of a
file or directory on the disk (not in /proc, /sys, /dev and /run), the bytes that read(2) and the like return,
and separately the size of mapped files, mostly libraries. Processor time is that of the agent's process tree.
Memory is the largest sum of its processes, with shared pages counted in part (PSS), sampled every 20 ms.
"""


def page(figures: Figures) -> str:
    """The whole page."""
    boots = len(next(iter(figures.peers.values())).first)
    parts = [INTRODUCTION.format(boots=boots, machine=figures.machine)]
    for setting, title in SETTINGS.items():
        there = [peer for peer in figures.peers if peer.setting == setting and not peer.knows_instance]
        with_rsa = "rsa" in setting[0]
        head = [*HEAD, "sshd has its RSA key"] if with_rsa else HEAD
        parts += [f"## {title}\n", _table(head, _boots(figures, there)), _ratios(figures, setting)]
    later = [peer for peer in figures.peers if peer.has_later_boots]
    parts += [
        "## Later boots, with nothing to do\n",
        _table(HEAD, _boots(figures, later, later=True)),
        "## What each does on a first boot\n",
        _table(
            ["", "files opened", "different ones", "read", "mapped", "programs", "processor", "memory"],
            _footprints(figures),
        ),
        "## A run with nothing to do\n",
        _table(["milliseconds", "median", "quartiles", "compared"], _by_hand(figures)),
        NOTES,
    ]
    return "\n".join(parts)


def title_of(peer: Peer, figures: Figures) -> str:
    """The peer in words, without its setting."""
    titles = {BAKED: "keys baked in (the floor)", SCRIPT: "the guide's script", FIRSTKEY: "firstkey"}
    if peer.way == CLOUD_INIT:
        return f"cloud-init {figures.cloud_inits[peer.suite]}"
    logged = ", the firmware tells the instance" if peer.knows_instance else ""
    return titles[peer.way] + logged + (f", Debian {peer.suite}" if peer.suite != OLD else "")


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _boots(figures: Figures, peers: Sequence[Peer], *, later: bool = False) -> Iterator[Sequence[str]]:
    for peer in peers:
        taken = figures.peers[peer]
        boots = taken.later if later else taken.first
        rsa = [boot.rsa for boot in boots if boot.rsa is not None and not later]
        yield [
            title_of(peer, figures),
            _spread([boot.port for boot in boots]),
            _spread([boot.login for boot in boots]),
            f"{figures.added(peer, later=later):.2f}" if peer.way != BAKED else "",
            *([_spread(rsa)] if rsa else []),
        ]


def _spread(values: Sequence[float]) -> str:
    low, high = quartiles(values)
    return f"**{median(values):.2f}** ({low:.2f} to {high:.2f})"


def _ratios(figures: Figures, setting: tuple[tuple[str, ...], bool]) -> str:
    own = Peer(FIRSTKEY, OLD, *setting)
    others = (own._replace(way=SCRIPT), own._replace(way=CLOUD_INIT), own._replace(way=CLOUD_INIT, suite=NEW))
    said = [
        f"{figures.added(own) / figures.added(other):.2f} times what {title_of(other, figures)} adds"
        for other in others
    ]
    return f"What firstkey adds is {', '.join(said)}. Each median has its quartiles in brackets.\n"


def _footprints(figures: Figures) -> Iterator[Sequence[str]]:
    for peer, taken in figures.peers.items():
        if taken.footprint and taken.use:
            yield [title_of(peer, figures), *_footprint(taken)]


def _footprint(peer: Taken) -> Iterator[str]:
    if peer.footprint and peer.use:
        counts = (peer.footprint.opens, peer.footprint.files)
        yield from (str(count) for count in counts)
        sizes = (peer.footprint.read_bytes, peer.footprint.mapped_bytes)
        yield from (f"{size / 1e6:.1f} MB" for size in sizes)
        yield str(peer.footprint.programs)
        yield f"{peer.use.cpu_seconds:.2f} s"
        yield f"{peer.use.memory_bytes / 2**20:.0f} MiB"


COMPARED = {
    "firstkey run": "python3 -I -c 'import requests'",
    "firstkey run, firmware": "python3 -I -c pass",
}
"""What a run with nothing to do is held against: where the service is asked, and where the firmware tells."""


def _by_hand(figures: Figures) -> Iterator[Sequence[str]]:
    for name, values in figures.by_hand.items():
        low, high = (f"{1000 * value:.0f}" for value in quartiles(values))
        other = COMPARED.get(name)
        ratio = median(values) / median(figures.by_hand[other]) if other else 0
        yield [
            f"`{name}`",
            f"{1000 * median(values):.0f}",
            f"{low} to {high}",
            f"{ratio:.1f} times `{other}`" if other else "",
        ]
