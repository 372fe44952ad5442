"""The figures of a bench run, and the few statistics that are needed of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from measure import Boot, Use
from traces import Footprint

FLOOR = "baked"


class Peer(NamedTuple):
    """What was measured of one peer."""

    title: str
    first: Sequence[Boot]
    later: Sequence[Boot]
    footprint: Footprint | None
    use: Use | None


class Figures(NamedTuple):
    """What was measured in one run."""

    peers: dict[str, Peer]
    by_hand: dict[str, Sequence[float]]
    """Seconds of runs with nothing to do, and of what they are held against, by name."""
    keygen: dict[int, Sequence[float]]
    """Seconds until the first of so many RSA keys that were begun at once is there."""
    machine: str

    def added(self, name: str, *, later: bool = False) -> float:
        """Seconds that a peer adds to `port 22 answers`, by the medians."""
        return self._port(name, later=later) - self._port(FLOOR, later=later)

    def _port(self, name: str, *, later: bool) -> float:
        peer = self.peers[name]
        return median([boot.port for boot in (peer.later if later else peer.first)])


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """A quarter of the values lies below the first, a quarter above the second."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
