"""docs/speed.md, written by the bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from figures import Figures, Peer, median, quartiles

INTRODUCTION = """\
# How fast a first boot is

Written by `sudo ./dev bench --boots {boots}`, which makes all of it again: real first boots of Debian
under systemd in a container, the metadata service at 169.254.169.254, and from outside a look at when
SSH answers and when the launch key lets in. All take turns in one run, {boots} first boots each, and a
second boot of the same disk after each. Nothing is left out, nothing is averaged away: the plot shows
every boot.

- *keys baked in*: host keys and the launch key are in the image, nothing runs at boot. Nobody can be faster.
- *the RSA key made*: all that is in the image but this host key, which `ssh-keygen` alone makes as early as
  there are units. Nobody who makes host keys one by one can be faster.
- *the guide's script*: `ssh-keygen -A`, then the EC2 guide's own commands with IMDSv2, as a unit before sshd.
- *cloud-init*: the distribution's, at its best: only its Ec2 data source, by IP literal, no name look-ups.

Measured on {machine}.

![First boots: seconds until port 22 answers, and until the launch key lets in](speed.svg)
"""
NOTES = """\
## Where the time goes

The floor of a first boot is an RSA key: its primes are looked for at random, so it takes {one} ms
in the median here, and anything from {low} to {high} ms. Where there are several processors,
firstkey begins several RSA keys at once and takes the one that is there first: {two} ms in the
median of two at once, if nothing else is to be done. The first has precedence over the rest of the
boot, the others take only idle time. All else (Python's start, the metadata service's answers, the
other host keys) is done meanwhile. Host keys of all types that sshd is configured for are in place when sshd
starts.

## What is counted

Files and bytes are counted by strace on a boot of their own, over all processes of the agent: every
open of a file or directory on the disk that succeeds (/proc, /sys, /dev and /run are no disk), what
read(2) and its kin bring, and apart from that the size of what is mapped, libraries above all.
Processor time is that of the agent's process tree. Memory is the most that its processes had at
once, shared pages counted in part (PSS), seen every 20 ms.
"""


def page(figures: Figures) -> str:
    """The whole page."""
    boots = len(next(iter(figures.peers.values())).first)
    parts = [
        INTRODUCTION.format(boots=boots, machine=figures.machine),
        "## First boots\n",
        _table(
            ["seconds", "port 22 answers", "the launch key lets in", "added to port 22"],
            _boots(figures, later=False),
        ),
        _ratios(figures),
        "## Later boots, with nothing to do\n",
        _table(
            ["seconds", "port 22 answers", "the launch key lets in", "added to port 22"],
            _boots(figures, later=True),
        ),
        "## What each does on a first boot\n",
        _table(
            ["", "files opened", "different ones", "read", "mapped", "programs", "processor", "memory"],
            _footprints(figures),
        ),
        "## A run with nothing to do\n",
        _table(["milliseconds", "median", "quartiles", "compared"], _by_hand(figures)),
        _notes(figures),
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _boots(figures: Figures, *, later: bool) -> Iterator[Sequence[str]]:
    for name, peer in figures.peers.items():
        boots = peer.later if later else peer.first
        added = figures.added(name, later=later)
        yield [
            peer.title,
            _spread([boot.port for boot in boots]),
            _spread([boot.login for boot in boots]),
            f"{added:.2f}" if added else "",
        ]


def _spread(values: Sequence[float]) -> str:
    low, high = quartiles(values)
    return f"**{median(values):.2f}** ({low:.2f} to {high:.2f})"


def _ratios(figures: Figures) -> str:
    script, cloud = figures.added("script"), figures.added("cloud-init")
    own, key = figures.added("firstkey"), figures.added("rsa")
    return (
        f"What firstkey adds is {own / script:.2f} times what the script adds, and {own / cloud:.2f} times "
        f"what cloud-init adds. The RSA key alone adds {key / script:.2f} and {key / cloud:.2f} times as "
        "much. Behind each median, in brackets, are the quartiles.\n"
    )


def _footprints(figures: Figures) -> Iterator[Sequence[str]]:
    for peer in figures.peers.values():
        if peer.footprint and peer.use:
            yield [peer.title, *_footprint(peer)]


def _footprint(peer: Peer) -> Iterator[str]:
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


def _notes(figures: Figures) -> str:
    one, two = figures.keygen[1], figures.keygen[2]
    milliseconds = {"one": median(one), "low": min(one), "high": max(one), "two": median(two)}
    return NOTES.format(**{name: f"{1000 * value:.0f}" for name, value in milliseconds.items()})
