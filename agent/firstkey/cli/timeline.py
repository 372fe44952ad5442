"""The phases of a run as bars: what waited for the network, what for keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from firstkey import NamedTuple
from firstkey.text import visible


class Kind(NamedTuple):
    """What a phase spends its time on: the mark of its bar, and words for people."""

    mark: str
    words: str


NETWORK = Kind("~", "waiting for the metadata service")
KEYS = Kind("#", "generating host keys; sshd starts before those in the background")
WORK = Kind("=", "looking and writing")
KINDS = {"metadata": NETWORK, "host keys: make": KEYS, "host keys: background": KEYS}

LEAST_BAR = 20


class Bar(NamedTuple):
    """One phase, in milliseconds since the start of the run."""

    name: str
    start: int
    end: int

    @property
    def kind(self) -> Kind:
        """What it spent its time on."""
        return KINDS.get(self.name, WORK)

    @property
    def length(self) -> int:
        """How long it took."""
        return self.end - self.start


def bars(report: dict[str, Any]) -> list[Bar]:
    """The phases of a report, by their start; what is no phase in it is passed over."""
    found = report.get("timeline")
    phases = found if isinstance(found, list) else []
    return sorted(filter(None, map(_bar, phases)), key=lambda bar: (bar.start, bar.end))


def _bar(phase: Any) -> Bar | None:  # noqa: ANN401 - whatever stands in the file
    try:
        bar = Bar(visible(str(phase["phase"])), int(phase["start_ms"]), int(phase["end_ms"]))
    except (TypeError, KeyError, ValueError, OverflowError):  # JSON here has Infinity, too
        return None
    return bar if 0 <= bar.start <= bar.end else None


def text(found: Sequence[Bar], *, width: int) -> Iterator[str]:
    """The bars below each other, on one scale, in lines of at most `width` characters."""
    whole = max(bar.end for bar in found)
    names = max(len(bar.name) for bar in found)
    numbers = len(f"{whole} ms")
    room = max(LEAST_BAR, width - names - numbers - 6)
    for bar in found:
        first = bar.start * room // max(whole, 1)
        length = max(1, -(-bar.length * room // max(whole, 1)))
        first = min(first, room - length)
        drawn = " " * first + bar.kind.mark * length
        yield f"  {bar.name:{names}}  {f'{bar.length} ms':>{numbers}}  {drawn}"
    yield f"  {'in all':{names}}  {f'{whole} ms':>{numbers}}"
    for kind in dict.fromkeys(bar.kind for bar in found):
        yield f"  {kind.mark} {kind.words}"
