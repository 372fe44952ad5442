"""The phases of a run as bars, in a terminal and as a picture: what waited for the network, what for keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from firstkey import NamedTuple
from firstkey.text import visible


class Kind(NamedTuple):
    """What a phase spends its time on: the mark of its bar, its colour, and words for people."""

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

LABELS, SCALE, ROW, MARGIN = 170, 600, 26, 16
"""In pixels: where the bars begin, how long the longest is, how high a row is, and the margin."""
WIDTH = LABELS + SCALE + 90 + MARGIN
STYLE = "text{font:13px sans-serif;fill:#111827}.faint{fill:#6b7280}.grid{stroke:#e5e7eb}"


def svg(found: Sequence[Bar], *, title: str) -> str:
    """The same as a picture that stands for itself: every browser shows it, and nothing is loaded."""
    whole = max(1, *(bar.end for bar in found))
    kinds = list(dict.fromkeys(bar.kind for bar in found))
    height = MARGIN * 2 + ROW * (len(found) + len(kinds) + 3)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 16}" font-weight="bold">{escape(title)}</text>',
    ]
    top, bottom = MARGIN + ROW, MARGIN + ROW * (len(found) + 2)
    for quarter in range(5):
        x = LABELS + SCALE * quarter // 4
        rows += [
            f'<line class="grid" x1="{x}" y1="{top + 12}" x2="{x}" y2="{bottom}"/>',
            f'<text class="faint" x="{x + 3}" y="{top + 10}">{whole * quarter // 4} ms</text>',
        ]
    for y, bar in zip(range(top + ROW, height, ROW), found):
        start, width = LABELS + bar.start * SCALE / whole, max(2.0, bar.length * SCALE / whole)
        words = f"{bar.name}: {bar.length} ms, from {bar.start} to {bar.end} ms ({bar.kind.words})"
        rect = f'<rect x="{start:.1f}" y="{y - 13}" width="{width:.1f}" height="17" rx="2"'
        rows += [
            f"<g><title>{escape(words)}</title>",
            f'<text x="{MARGIN}" y="{y}">{escape(bar.name)}</text>',
            f'{rect} fill="{bar.kind.colour}"/>',
            f'<text class="faint" x="{start + width + 6:.1f}" y="{y}">{bar.length} ms</text></g>',
        ]
    for y, kind in zip(range(bottom + ROW, height, ROW), kinds):
        rows += [
            f'<rect x="{LABELS}" y="{y - 12}" width="14" height="14" rx="2" fill="{kind.colour}"/>',
            f'<text class="faint" x="{LABELS + 22}" y="{y}">{escape(kind.words)}</text>',
        ]
    return "\n".join([*rows, "</svg>", ""])
