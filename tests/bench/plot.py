"""docs/speed.svg: every first boot as a dot, one row a peer, the settings one below the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from figures import Figures, Taken, median
from page import SETTINGS, title_of
from peers import Peer

WIDTH, LEFT, RIGHT = 860, 250, 30
TOP, HEAD, ROW, BOTTOM = 56, 34, 54, 54
PORT, LOGIN, INK, GRID = "#0b6e4f", "#c05299", "#222222", "#d8d8d8"


def plot(figures: Figures) -> str:
    """The picture, as SVG."""
    limit = _limit(figures)
    groups = {title: _peers(figures, setting) for setting, title in SETTINGS.items()}
    height = TOP + sum(HEAD + ROW * len(peers) for peers in groups.values()) + BOTTOM
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="14">'
        ),
        "<title>First boots: seconds until port 22 answers, and until the launch key lets in</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_axis(limit, height),
        *_legend(),
    ]
    y = TOP
    for title, peers in groups.items():
        lines.append(_text(LEFT, y + 20, title, anchor="start", weight="bold"))
        y += HEAD
        for peer, taken in peers.items():
            middle = y + ROW / 2
            lines.append(_text(LEFT - 12, middle + 5, title_of(peer, figures), anchor="end"))
            lines += _dots([boot.port for boot in taken.first], middle - 10, limit, PORT)
            lines += _dots([boot.login for boot in taken.first], middle + 10, limit, LOGIN)
            y += ROW
    return "\n".join([*lines, "</svg>", ""])


def _peers(figures: Figures, setting: tuple[tuple[str, ...], bool]) -> dict[Peer, Taken]:
    return {
        peer: taken
        for peer, taken in figures.peers.items()
        if peer.setting == setting and not peer.knows_instance
    }


def _limit(figures: Figures) -> int:
    return math.ceil(max(boot.login for taken in figures.peers.values() for boot in taken.first))


def _across(seconds: float, limit: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * seconds / limit


def _axis(limit: int, height: int) -> Iterator[str]:
    steps = 2 if limit <= 6 else 1
    for step in range(limit * steps + 1):
        x = _across(step / steps, limit)
        yield f'<path d="M{x:.1f} {TOP - 8} V{height - BOTTOM}" stroke="{GRID}"/>'
        yield _text(x, height - BOTTOM + 20, f"{step / steps:g}")
    yield _text(_across(limit / 2, limit), height - 12, "seconds from the start of the first process")


def _legend() -> Iterator[str]:
    for x, colour, words in ((LEFT, PORT, "port 22 answers"), (LEFT + 190, LOGIN, "the launch key lets in")):
        yield f'<circle cx="{x + 5}" cy="24" r="5" fill="{colour}"/>'
        yield _text(x + 16, 29, words, anchor="start")
    yield _text(LEFT + 420, 29, "bars: medians", anchor="start")


def _dots(values: Sequence[float], y: float, limit: int, colour: str) -> Iterator[str]:
    for value in values:
        yield f'<circle cx="{_across(value, limit):.1f}" cy="{y}" r="4" fill="{colour}" fill-opacity="0.45"/>'
    x = _across(median(values), limit)
    yield f'<path d="M{x:.1f} {y - 10} v20" stroke="{colour}" stroke-width="3"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "middle", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">'
        f"{words}</text>"
    )
