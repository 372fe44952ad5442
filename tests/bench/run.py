"""`./dev bench`: first boots side by side, and what comes of them for the documentation."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import bootlab
import netlab
import peers as lineup
import timelines
from bootlab import Image
from figures import Figures, Taken
from machine import new_key
from measure import INSTANCE, Bench, Boot, Setting, Use, repeat
from packages import build
from page import page
from peers import Peer
from plot import plot
from rootfs import inside
from traces import Footprint

from firstkey import __version__

TOP = Path(__file__).resolve().parents[2]
ROUNDS = 30
"""Runs by hand of each command."""
IMPORT = ["/usr/bin/python3", "-I", "-c", "import requests"]
PASS = ["/usr/bin/python3", "-I", "-c", "pass"]
RUN = ["/usr/bin/firstkey", "run", "--quiet"]


def main() -> None:
    """Measure, and write docs/speed.md and docs/speed.svg, or docs/boots.svg alone."""
    asked = _asked()
    with tempfile.TemporaryDirectory(prefix="firstkey-bench-", dir=asked.scratch) as scratch:
        if asked.picture:
            picture = pictured(Path(scratch), boots=asked.boots)
            (asked.output / "boots.svg").write_text(timelines.draw(picture))
            print(timelines.in_words(picture))
            return
        figures = measured(Path(scratch), boots=asked.boots)
    for name, content in (("speed.md", page(figures)), ("speed.svg", plot(figures))):
        (asked.output / name).write_text(content)
    print(page(figures))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--boots", type=int, default=15, help="first boots of each (%(default)s)")
    parser.add_argument(
        "--picture", action="store_true", help="only docs/boots.svg, of the boot in the middle"
    )
    parser.add_argument("--output", type=Path, default=TOP / "docs", help="where the page goes (%(default)s)")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="where disks are (%(default)s)"
    )
    asked = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: sudo ./dev bench")
    if asked.boots < 2:
        parser.error("--boots: a spread needs two at least")
    asked.output.mkdir(parents=True, exist_ok=True)
    return asked


class Prepared(NamedTuple):
    """What boots are made of: an image of each peer's, and the versions of cloud-init in them, by suite."""

    bench: Bench
    images: dict[Peer, Image]
    cloud_inits: dict[str, str]


def _prepared(scratch: Path, peers: Sequence[Peer]) -> Prepared:
    netlab.sweep()
    new_key(scratch, "launch")
    bench = Bench(scratch, scratch / "launch")
    deb = build("deb", scratch / "deb")
    distributions = {
        suite: bootlab.distribution(scratch / suite, *lineup.PACKAGES, suite=suite)
        for suite in (lineup.OLD, lineup.NEW)
    }
    images = {
        peer: lineup.image_of(
            peer, distributions[peer.suite], scratch / f"image-{number}", line=bench.line, deb=deb
        )
        for number, peer in enumerate(peers)
    }
    return Prepared(bench, images, {suite: _version(image) for suite, image in distributions.items()})


def pictured(scratch: Path, *, boots: int) -> timelines.Picture:
    """Of so many first boots of each that is shown, one of each in turn, the one in the middle."""
    bench, images, cloud_inits = _prepared(scratch, timelines.SHOWN)
    titles = {peer: _shown_title(peer, cloud_inits) for peer in images}
    turns = [
        [timelines.taken(bench, image, titles[peer]) for peer, image in images.items()] for _ in range(boots)
    ]
    logged = f"Of {boots} first boots of each, the one in the middle. Taken on {_machine()}."
    return timelines.Picture(logged, tuple(map(timelines.middle, zip(*turns))))


def _shown_title(peer: Peer, cloud_inits: dict[str, str]) -> str:
    way = (
        f"firstkey {__version__}" if peer.way == lineup.FIRSTKEY else f"cloud-init {cloud_inits[peer.suite]}"
    )
    return f"{way} on Debian {peer.suite}"


def measured(scratch: Path, *, boots: int) -> Figures:
    """All the figures of one run."""
    bench, images, versions = _prepared(scratch, lineup.peers())
    taken = _boots(bench, images, boots)
    found = {
        peer: Taken(
            [first for first, _ in taken[peer]],
            [later for _, later in taken[peer] if later],
            *_agents_share(bench, peer, images[peer]),
        )
        for peer in images
    }
    return Figures(found, _by_hand(bench, images[lineup.Peer(lineup.FIRSTKEY)]), versions, _machine())


def _boots(bench: Bench, images: dict[Peer, Image], boots: int) -> dict[Peer, list[tuple[Boot, Boot | None]]]:
    """First and second boots, one of each peer in turn, so that a busy moment hits all alike."""
    taken: dict[Peer, list[tuple[Boot, Boot | None]]] = {peer: [] for peer in images}
    for turn in range(boots):
        for peer, image in images.items():
            setting = Setting(peer.is_late, "rsa" in peer.types, INSTANCE if peer.knows_instance else "")
            first, later = bench.boots(image, setting, later=peer.has_later_boots)
            taken[peer].append((first, later))
            _log(f"{turn + 1:3} {peer.way:10} {peer.suite:8} {len(peer.types)} {first} {later}")
    return taken


def _agents_share(bench: Bench, peer: Peer, image: Image) -> tuple[Footprint | None, Use | None]:
    """What the agent itself opens, reads and takes, where that is measured: once for each way."""
    units = lineup.UNITS[peer.way]
    if not units or peer.suite != lineup.OLD or not peer.has_later_boots or peer.knows_instance:
        return None, None
    return bench.footprint(image, units), _middle([bench.use(image, units) for _ in range(3)])


def _version(image: Image) -> str:
    done = inside(image.layers[-1], "dpkg-query", "-W", "-f", "${source:Upstream-Version}", "cloud-init")
    assert done.returncode == 0, done.stderr
    return done.stdout


def _middle(uses: Sequence[Use]) -> Use:
    return sorted(uses)[len(uses) // 2]


def _by_hand(bench: Bench, image: Image) -> dict[str, Sequence[float]]:
    """Runs with nothing to do, in a machine that has booted: asking the service, and told by the firmware."""
    found: dict[str, Sequence[float]] = {}
    with bench.booted(image) as machine:
        found.update(
            repeat(machine, {"python3 -I -c 'import requests'": IMPORT, "firstkey run": RUN}, rounds=ROUNDS)
        )
    with bench.booted(image, firmware=INSTANCE) as machine:
        found.update(
            repeat(machine, {"python3 -I -c pass": PASS, "firstkey run, firmware": RUN}, rounds=ROUNDS)
        )
    return found


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} processors ({model}), Linux {platform.release()}, Debian {lineup.OLD} "
        f"with Python {_inside_version()}; {time.strftime('%Y-%m-%d', time.gmtime())}, "
        f"load {load:.1f} at the end"
    )


def _inside_version() -> str:
    return platform.python_version()


def _log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
