"""docs/boots.svg: a first boot with firstkey beside those with cloud-init, by units and steps, on one scale.

`sudo ./dev bench --picture` boots them and draws. All moments are of one clock, the host's: systemd's of the
units, the agents' own of their steps, and the bench's of what is seen from outside.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from bootlab import Image, Machine
from measure import LIMIT, Bench, Setting
from netlab import wait_until
from peers import CLOUD_INIT, FIRSTKEY, NEW, OLD, Peer

SHOWN = (Peer(FIRSTKEY, OLD), Peer(CLOUD_INIT, OLD), Peer(CLOUD_INIT, NEW))
UNITS = (
    "firstkey.service", "cloud-init-main.service", "cloud-init-local.service", "cloud-init.service",
    "cloud-init-network.service", "cloud-config.service", "cloud-final.service", "ssh.service",
)  # fmt: skip
"""The agents' under all their names, and sshd's, which waits for them. A system has only some of them."""
UNIT, AFTER, STEP = "unit", "after", "step"
SHORTEST_STEP = 20
"""In milliseconds: cloud-init has some fifty steps, most of which take less."""


class Bar(NamedTuple):
    """What took from `start` to `end`, in milliseconds since the machine's start.

    `kind`: a unit until it is ready, what it does afterwards, or a step of an agent's.
    """

    kind: str
    name: str
    start: int
    end: int


class Timeline(NamedTuple):
    """One boot, and when it was seen from outside that port 22 answers and that the launch key lets in."""

    title: str
    port: int
    login: int
    bars: tuple[Bar, ...]


class Picture(NamedTuple):
    """All that is drawn. `logged` says how and when it was taken."""

    logged: str
    timelines: tuple[Timeline, ...]


# --- taking it ------------------------------------------------------------------------------------


def middle(boots: Sequence[Timeline]) -> Timeline:
    """The one with the median time until port 22 answers."""
    return sorted(boots, key=lambda boot: boot.port)[len(boots) // 2]


def taken(bench: Bench, image: Image, title: str) -> Timeline:
    """One first boot of the image."""

    def look(machine: Machine, started: float) -> tuple[Bar, ...]:
        _wait_for_the_end(machine)
        units = {name: times for name in UNITS if (times := _times(machine, name, started))}
        bars = [bar for name, times in units.items() for bar in _unit(name, *times)]
        if "firstkey.service" in units:
            bars += _steps_of_firstkey(machine, ready=units["firstkey.service"][1])
        else:
            bars += _steps_of_cloud_init(machine, started)
        return tuple(sorted(bars, key=lambda bar: (bar.start, bar.end)))

    boot, bars = bench.looked_at(image, Setting(), look)
    return Timeline(title, round(1000 * boot.port), round(1000 * boot.login), bars)


def _wait_for_the_end(machine: Machine) -> None:
    show = ("systemctl", "show", "--value", "--property=MainPID", *UNITS[:-1])
    wait_until(lambda: set(machine.inside(*show).split()) == {"0"}, seconds=LIMIT, what="the agent's end")


def _times(machine: Machine, unit: str, started: float) -> tuple[int, int, int] | None:
    """When the unit was started, when it was ready and when its process ended; None without such a unit."""
    moments = ("InactiveExit", "ActiveEnter", "ExecMainExit")
    began, ready, ended = (
        int(machine.show(unit, f"{moment}TimestampMonotonic")) / 1e6 - started for moment in moments
    )
    return (round(1000 * began), round(1000 * ready), round(1000 * ended)) if began > 0 else None


def _unit(name: str, began: int, ready: int, ended: int) -> Iterator[Bar]:
    yield Bar(UNIT, name, began, ready)
    if ended > ready:
        yield Bar(AFTER, f"{name}, in the background", ready, ended)


def _steps_of_firstkey(machine: Machine, *, ready: int) -> Iterator[Bar]:
    """Its report counts from the start of its job. It is ready at the end of the last step before sshd."""
    phases = machine.report["timeline"]
    last = max(phase["end_ms"] for phase in phases if phase["phase"] != "host keys: background")
    for phase in phases:
        begin, end = (ready - last + phase[moment] for moment in ("start_ms", "end_ms"))
        yield Bar(STEP, phase["phase"], begin, end)


def _steps_of_cloud_init(machine: Machine, started: float) -> Iterator[Bar]:
    """By its own analysis, which goes by the time of day."""
    zero = time.time() - time.monotonic() + started
    began: dict[str, float] = {}
    for event in json.loads(machine.inside("cloud-init", "analyze", "dump")):
        name, moment = event["name"], 1000 * (event["timestamp"] - zero)
        if event["event_type"] == "start":
            began[name] = moment
        elif "/" in name and name in began and moment - began[name] >= SHORTEST_STEP:
            yield Bar(STEP, name, round(began[name]), round(moment))


# --- drawing it -----------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, HEAD, ROW, BOTTOM = 860, 250, 70, 50, 40, 20, 60
COLOURS = {UNIT: "#2563eb", AFTER: "#93c5fd", STEP: "#9ca3af"}
PORT, LOGIN, INK, GRID = "#0b6e4f", "#c05299", "#222222", "#d8d8d8"
TITLE = "A first boot with firstkey, and with cloud-init"
LEGEND = (
    (COLOURS[UNIT], "a unit, until it is ready"), (COLOURS[AFTER], "in the background"),
    (COLOURS[STEP], "a step of it"), (PORT, "port 22 answers"), (LOGIN, "the launch key lets in"),
)  # fmt: skip


def draw(picture: Picture) -> str:
    """The picture, as SVG."""
    whole = max(boot.login for boot in picture.timelines)
    height = TOP + sum(HEAD + ROW * len(_seen(boot, whole)) for boot in picture.timelines) + BOTTOM
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        f"<title>{TITLE}</title>",
        f"<desc>{escape(picture.logged)}</desc>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(),
        *_axis(whole, height),
    ]
    y = TOP
    for boot in picture.timelines:
        lines += _panel(boot, y, whole)
        y += HEAD + ROW * len(_seen(boot, whole))
    return "\n".join([*lines, "</svg>", ""])


def _seen(boot: Timeline, whole: int) -> list[Bar]:
    """What began before the last login of all."""
    return [bar for bar in boot.bars if bar.start < whole]


def _across(moment: int, whole: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(moment, whole) / whole


def _axis(whole: int, height: int) -> Iterator[str]:
    for moment in range(0, whole + 1, 250 if whole < 2500 else 1000):
        x = _across(moment, whole)
        yield f'<path d="M{x:.1f} {TOP} V{height - BOTTOM}" stroke="{GRID}"/>'
        yield _text(x, height - BOTTOM + 18, f"{moment / 1000:g}", anchor="middle")
    yield _text(
        _across(whole // 2, whole), height - 12, "seconds from the start of the machine", anchor="middle"
    )


def _legend() -> Iterator[str]:
    x = 16
    for colour, words in LEGEND:
        yield f'<rect x="{x}" y="16" width="12" height="12" fill="{colour}"/>'
        yield _text(x + 18, 27, words)
        x += 44 + round(6.5 * len(words))


def _panel(boot: Timeline, top: int, whole: int) -> Iterator[str]:
    bars = _seen(boot, whole)
    yield f"<g><title>{escape(boot.title)}: port 22 at {boot.port} ms, login at {boot.login} ms</title>"
    yield _text(16, top + 26, boot.title, weight="bold")
    for row, bar in enumerate(bars):
        yield from _bar(bar, top + HEAD + ROW * row, whole)
    for moment, colour in ((boot.port, PORT), (boot.login, LOGIN)):
        line = f"M{_across(moment, whole):.1f} {top + HEAD - 6} v{ROW * len(bars) + 6}"
        yield f'<path d="{line}" stroke="{colour}" stroke-width="2"/>'
    yield "</g>"


def _bar(bar: Bar, y: int, whole: int) -> Iterator[str]:
    begin, end = _across(bar.start, whole), _across(bar.end, whole)
    name = f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{bar.name}" if bar.kind == STEP else bar.name
    colour = COLOURS[bar.kind]
    yield f"<g><title>{bar.kind} {escape(bar.name)}: from {bar.start} to {bar.end} ms</title>"
    yield _text(16, y + 12, name)
    yield f'<rect x="{begin:.1f}" y="{y}" width="{max(1.5, end - begin):.1f}" height="14" fill="{colour}"/>'
    yield f"{_text(max(begin, end) + 6, y + 12, f'{bar.end - bar.start} ms')}</g>"


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">'
        f"{escape(words)}</text>"
    )


# --- reading it -----------------------------------------------------------------------------------

_SVG = "{http://www.w3.org/2000/svg}"
_BOOT = re.compile(r"(.+): port 22 at (\d+) ms, login at (\d+) ms")
_BAR = re.compile(r"(\w+) (.+): from (-?\d+) to (\d+) ms")


def read(svg: str) -> Picture:
    """The picture again, out of the titles that a browser shows."""
    root = ET.fromstring(svg)
    return Picture(root.findtext(f"{_SVG}desc") or "", tuple(map(_timeline, root.findall(f"{_SVG}g"))))


def _timeline(group: ET.Element) -> Timeline:
    found = _BOOT.fullmatch(group.findtext(f"{_SVG}title") or "")
    bars = (_BAR.fullmatch(each.findtext(f"{_SVG}title") or "") for each in group.findall(f"{_SVG}g"))
    assert found
    return Timeline(
        found[1], int(found[2]), int(found[3]),
        tuple(Bar(bar[1], bar[2], int(bar[3]), int(bar[4])) for bar in bars if bar),
    )  # fmt: skip


def in_words(picture: Picture) -> str:
    """What docs/boot.md says of it."""
    each = [f"{boot.port / 1000:.2f} s with {boot.title}" for boot in picture.timelines]
    return f"Port 22 answers after {', '.join(each[:-1])}, and {each[-1]}. {picture.logged}"
