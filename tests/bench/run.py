"""`./dev bench`: first boots side by side, and what comes of them for the documentation."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bootlab
import netlab
import peers as lineup
from bootlab import Image
from figures import Figures, Peer
from machine import new_key
from measure import INSTANCE, Bench, Boot, Use, repeat
from packages import build
from page import page
from plot import plot

TOP = Path(__file__).resolve().parents[2]
KEYS = 30
"""RSA keys that are made to know how long that takes."""
ROUNDS = 30
"""Runs by hand of each command."""
IMPORT = ["/usr/bin/python3", "-I", "-c", "import requests"]
PASS = ["/usr/bin/python3", "-I", "-c", "pass"]
RUN = ["/usr/bin/firstkey", "run", "--quiet"]


def main() -> None:
    """Measure, and write docs/speed.md and docs/speed.svg."""
    asked = _asked()
    with tempfile.TemporaryDirectory(prefix="firstkey-bench-", dir=asked.scratch) as scratch:
        figures = measured(Path(scratch), boots=asked.boots)
    for name, content in (("speed.md", page(figures)), ("speed.svg", plot(figures))):
        (asked.output / name).write_text(content)
    print(page(figures))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--boots", type=int, default=15, help="first boots of each (%(default)s)")
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


def measured(scratch: Path, *, boots: int) -> Figures:
    """All the figures of one run."""
    netlab.sweep()
    new_key(scratch, "launch")
    bench = Bench(scratch, scratch / "launch")
    everybody = lineup.peers(build("deb", scratch / "deb"))
    distribution = bootlab.distribution(scratch, *lineup.PACKAGES)
    images = {
        peer.name: lineup.image_of(peer, distribution, scratch / "images", bench.line) for peer in everybody
    }
    taken = _boots(bench, images, boots)
    found = {}
    for peer in everybody:
        footprint = bench.footprint(images[peer.name], peer.units) if peer.units else None
        use = _middle([bench.use(images[peer.name], peer.units) for _ in range(3)]) if peer.units else None
        first, later = zip(*taken[peer.name])
        found[peer.name] = Peer(peer.title, first, later, footprint, use)
    return Figures(found, _by_hand(bench, images["firstkey"]), _keygen(scratch), _machine())


def _boots(bench: Bench, images: dict[str, Image], boots: int) -> dict[str, list[tuple[Boot, Boot]]]:
    """First and second boots, one of each peer in turn, so that a busy moment hits all alike."""
    taken: dict[str, list[tuple[Boot, Boot]]] = {name: [] for name in images}
    for turn in range(boots):
        for name, image in images.items():
            first, later = bench.boots(image)
            taken[name].append((first, later))
            _say(
                f"{turn + 1:3} {name:12} {first.port:.2f} {first.login:.2f}, "
                f"later {later.port:.2f} {later.login:.2f}"
            )
    return taken


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


def _keygen(scratch: Path) -> dict[int, Sequence[float]]:
    """How long an RSA key takes, and the first of two that are begun at once."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(KEYS):
        for count, seconds in found.items():
            seconds.append(_first_key([scratch / f"rsa-{count}-{turn}-{number}" for number in range(count)]))
    return dict(found)


def _first_key(paths: Sequence[Path]) -> float:
    started = time.perf_counter()
    with _generating(paths) as racers:
        while all(racer.poll() is None for racer in racers):
            time.sleep(0.001)
        return time.perf_counter() - started


@contextmanager
def _generating(paths: Sequence[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    racers = [
        subprocess.Popen(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(path)]) for path in paths
    ]
    try:
        yield racers
    finally:
        for racer in racers:
            netlab.end(racer)


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
        f"{os.cpu_count()} processors ({model}), Linux {platform.release()}, Debian {bootlab.SUITE} "
        f"with Python {_inside_version()}; {time.strftime('%Y-%m-%d', time.gmtime())}, "
        f"load {load:.1f} at the end"
    )


def _inside_version() -> str:
    return platform.python_version()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
