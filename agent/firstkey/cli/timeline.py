"""The phases of a run as bars, in text and as a picture: what waited for the network, what for keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from firstkey import NamedTuple
from firstkey.text import visible


class Kind(NamedTuple):
    """What a phase spends its time on: the mark and colour of its bar, and words for people."""

    mark: str
    colour: str
    words: str


NETWORK = Kind("~", "#d97706", "waiting for the metadata service")
KEYS = Kind("#", "#2563eb", "generating host keys; sshd starts before those in the background")
WORK = Kind("=", "#6b7280", "looking and writing")
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


# --- the picture ----------------------------------------------------------------------------------

LEFT, SCALE, ROW = 170, 600, 26
"""In pixels: where the bars begin, how long the longest is, and how high a row is."""
STYLE = "text{font:13px sans-serif;fill:#111827}text.faint{fill:#6b7280}line{stroke:#e5e7eb}"


def svg(found: Sequence[Bar], *, title: str) -> Iterator[str]:
    """The same as a picture, which loads nothing."""
    whole = max(1, *(bar.end for bar in found))
    kinds = dict.fromkeys(bar.kind for bar in found)
    width, height = LEFT + SCALE + 100, ROW * (len(found) + len(kinds) + 3)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style>"
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    yield f'<text x="16" y="{ROW}" font-weight="bold">{escape(title)}</text>'
    for quarter in range(5):
        x = LEFT + SCALE * quarter // 4
        yield f'<line x1="{x}" y1="{ROW + 14}" x2="{x}" y2="{ROW * (len(found) + 2) + 8}"/>'
        yield f'<text class="faint" x="{x + 4}" y="{ROW * 2}">{whole * quarter // 4} ms</text>'
    for y, bar in zip(range(ROW * 3, height, ROW), found):
        start, length = LEFT + bar.start * SCALE / whole, max(2.0, bar.length * SCALE / whole)
        name, colour = escape(bar.name), bar.kind.colour
        yield f"<g><title>{name}: {bar.length} ms, from {bar.start} to {bar.end} ms</title>"
        yield f'<text x="16" y="{y}">{name}</text>'
        yield f'<rect x="{start:.1f}" y="{y - 13}" width="{length:.1f}" height="17" fill="{colour}"/>'
        yield f'<text class="faint" x="{start + length + 6:.1f}" y="{y}">{bar.length} ms</text></g>'
    for y, kind in zip(range(ROW * (len(found) + 3), height, ROW), kinds):
        yield f'<rect x="{LEFT}" y="{y - 13}" width="17" height="17" fill="{kind.colour}"/>'
        yield f'<text x="{LEFT + 24}" y="{y}">{kind.words}</text>'
    yield "</svg>"
