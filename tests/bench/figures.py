"""The figures of a bench run, and the few statistics that are needed of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from measure import Boot, Use
from peers import BAKED, Peer
from traces import Footprint


class Taken(NamedTuple):
    """What was measured of one peer."""

    first: Sequence[Boot]
    later: Sequence[Boot]
    footprint: Footprint | None
    use: Use | None


class Figures(NamedTuple):
    """What was measured in one run."""

    peers: dict[Peer, Taken]
    by_hand: dict[str, Sequence[float]]
    """Seconds of runs with nothing to do, and of what they are held against, by name."""
    cloud_inits: dict[str, str]
    """The version of each suite's cloud-init."""
    machine: str

    def added(self, peer: Peer, *, later: bool = False) -> float:
        """Seconds that a peer adds to `port 22 answers`, by the medians, to what its suite takes without."""
        floor = peer._replace(way=BAKED, knows_instance=False)
        return self._port(peer, later=later) - self._port(floor, later=later)

    def _port(self, peer: Peer, *, later: bool) -> float:
        taken = self.peers[peer]
        return median([boot.port for boot in (taken.later if later else taken.first)])


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """A quarter of the values lies below the first, a quarter above the second."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
