"""A person's terminal, beyond plain lines: colours, a line that changes, a question, a file to look at."""

from __future__ import annotations

import os
import sys

from firstkey.cli import streams
from firstkey.colours import Coloured, Line, plain
from firstkey.display import folded, width_of
from firstkey.reasons import UsageError
from firstkey.text import visible

_CLEAR = "\r\x1b[K"  # ECMA-48, EL: the rest of the line


class Progress:
    """One line on standard error's terminal that shows how far a long scan is; none anywhere else."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_there = False

    def clear(self) -> None:
        """Take the line away, for something else to be printed."""
        if self._is_there:
            streams.put(sys.stderr, _CLEAR)
            self._is_there = False

    def report(self, files: int, path: str) -> None:
        """Show how many files were looked at, and where."""
        if self._wanted:
            self._is_there = True
            streams.put(sys.stderr, f"{_CLEAR}{files:,} files  {visible(path)[:60]}")


def show(*lines: Line) -> None:
    """Print lines, with colours on a terminal, unless NO_COLOR is set (no-color.org)."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    wanted = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in lines:
        if not (isinstance(line, Coloured) and wanted and line.colour):
            streams.show(plain(line))
            continue
        before, text = visible(line.before), visible(line.text)
        pieces = folded(before + text + visible(line.after), width_of(1))
        if pieces[0].startswith(before + text):
            rest = pieces[0][len(before + text) :]
            pieces[0] = f"{before}\x1b[{line.colour}m{text}\x1b[0m{rest}"
        streams.put(sys.stdout, "".join(f"{piece}\n" for piece in pieces))


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
