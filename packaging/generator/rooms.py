"""The drawing of docs/architecture.md: the rooms of the code and who uses whom, out of its own imports."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from generator.manual import PACKAGING

AGENT = os.path.join(os.path.dirname(PACKAGING), "agent", "firstkey")
# Modules at the top of the package that are one room together; any other one there has only words in it.
CONFIG = ("config", "settings")
COMMAND_LINE = ("__main__",)
WORDS = "words"

PURPOSES = {
    "cli": "one file a command",
    "image": "audit and seal",
    "login": "doctor",
    "boot": "the job: launch keys, host keys, accounts",
    "metadata": "the instance metadata service",
    "system": "files, processes, accounts, journal",
    "config": "text to settings",
    "ssh": "OpenSSH's formats, without I/O",
    WORDS: "model, events, reasons, errors, text",
}
BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 250, 52, 40, 20
STYLE = "text{font:14px sans-serif;fill:#111827;text-anchor:middle}.faint{font-size:11px;fill:#6b7280}"


def drawing() -> str:
    """docs/rooms.svg: each room above those that it uses. Arrows that follow from others are left out."""
    uses = _without_shortcuts(_uses())
    places = _places(uses)
    width = max(x for x, _ in places.values()) + BOX_WIDTH + MARGIN
    height = max(y for _, y in places.values()) + BOX_HEIGHT + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        "<title>The rooms of firstkey, and which of them use which</title>\n"
        f"<style>{STYLE}</style>\n"
        '<defs><marker id="head" orient="auto" markerWidth="8" markerHeight="8" refX="8" refY="4">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )
    arrows = [_arrow(places[room], places[other]) for room in sorted(uses) for other in sorted(uses[room])]
    boxes = [_box(room, *place) for room, place in sorted(places.items())]
    return "\n".join([head, *arrows, *boxes, "</svg>", ""])


def _box(room: str, x: int, y: int) -> str:
    middle = x + BOX_WIDTH // 2
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4" fill="#eff6ff" '
        'stroke="#2563eb"/>\n'
        f'<text x="{middle}" y="{y + 22}" font-weight="bold">{room}</text>\n'
        f'<text class="faint" x="{middle}" y="{y + 40}">{PURPOSES[room]}</text>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = start, end
    half = BOX_WIDTH // 2
    return (
        f'<line x1="{x1 + half}" y1="{y1 + BOX_HEIGHT}" x2="{x2 + half}" y2="{y2}" stroke="#6b7280" '
        'marker-end="url(#head)"/>'
    )


def _uses() -> dict[str, set[str]]:
    """Which rooms each room imports something of, in functions and for types too."""
    uses: dict[str, set[str]] = {}
    for directory, _, files in os.walk(AGENT):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                room = _room(os.path.relpath(path, AGENT)[: -len(".py")].split(os.sep))
                with open(path, encoding="utf-8") as source:
                    uses.setdefault(room, set()).update(_imported(ast.parse(source.read())))
    return {room: used - {room} for room, used in uses.items()}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "firstkey":
            _, *inner = str(node.module).split(".")
            for alias in node.names:
                yield _room(inner or [alias.name])


def _room(parts: list[str]) -> str:
    name = parts[0]
    if name in COMMAND_LINE:
        return "cli"
    if name in CONFIG:
        return "config"
    return name if os.path.isdir(os.path.join(AGENT, name)) else WORDS


def _below(room: str, uses: dict[str, set[str]]) -> set[str]:
    """All that a room leads to. Where the imports went in a circle this would not end: a test forbids it."""
    return uses[room].union(*(_below(used, uses) for used in uses[room]))


def _without_shortcuts(uses: dict[str, set[str]]) -> dict[str, set[str]]:
    return {
        room: {used for used in direct if not any(used in _below(other, uses) for other in direct - {used})}
        for room, direct in uses.items()
    }


def _places(uses: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """The upper left corner of each room's box: as far up as the rooms that it uses make necessary."""

    def floor(room: str) -> int:
        return 1 + max((floor(used) for used in uses[room]), default=-1)

    floors: dict[int, list[str]] = {}
    for room in sorted(uses):
        floors.setdefault(floor(room), []).append(room)
    widest, top = max(map(len, floors.values())), max(floors)
    step = BOX_WIDTH + GAP
    return {
        room: (MARGIN + (widest - len(rooms)) * step // 2 + place * step, MARGIN + (top - floor) * 90)
        for floor, rooms in floors.items()
        for place, room in enumerate(rooms)
    }
