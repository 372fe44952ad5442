"""A person's terminal, beyond plain lines: colours, a line that changes, a question, a file to look at."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from firstkey.cli import streams
from firstkey.colours import Coloured
from firstkey.display import folded, width_of
from firstkey.reasons import UsageError
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.colours import Line

_CLEAR = "\r\x1b[K"  # ECMA-48, EL: the rest of the line


def show(*lines: Line) -> None:
    """Print lines, with colours on a terminal, unless NO_COLOR is set (no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    wanted = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in lines:
        if isinstance(line, Coloured) and wanted and line.colour:
            streams.put(sys.stdout, "".join(f"{piece}\n" for piece in _painted(line)))
        else:
            streams.show(line if isinstance(line, str) else line.before + line.text + line.after)


def _painted(line: Coloured) -> list[str]:
    before, text = visible(line.before), visible(line.text)
    pieces = folded(before + text + visible(line.after), width_of(1))
    if pieces[0].startswith(before + text):
        rest = pieces[0][len(before + text) :]
        pieces[0] = f"{before}\x1b[{line.colour}m{text}\x1b[0m{rest}"
    return pieces


def redraw(line: str = "") -> None:
    """Put the line in place of the one that the cursor of standard error's terminal stands on."""
    streams.put(sys.stderr, f"{_CLEAR}{visible(line)}")


def ask(question: str) -> str:
    """The answer that a person types at the terminal, on one line."""
    streams.put(sys.stderr, visible(question))
    return sys.stdin.readline().strip()


def load(option: str, path: str, limit: int) -> bytes:
    """The first bytes of the file that the option names; `-` is standard input. Raises UsageError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read(limit)
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error


def save(option: str, path: str, text: str) -> None:
    """Write the file that the option names, in UTF-8. Raises UsageError where it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
