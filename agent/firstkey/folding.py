"""Text for a terminal: no line longer than it is wide, but for commands, which stay whole to be copied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEDY = "What to do: "
NARROWEST = 40
"""Columns below which nothing is folded: there is nothing to gain."""
_DIFF = ("+", "-", "@@")
"""How the lines begin that have to be read as they are."""


def width_of(fd: int) -> int:
    """The columns of the terminal behind a descriptor; 0 where it is none, or does not tell."""
    try:
        return os.get_terminal_size(fd).columns
    except OSError:
        return 0


def folded(text: str, width: int) -> str:
    """The text with its long lines broken between words, and each remedy on a line of its own.

    A width of 0 leaves it as it is: what reads a pipe or file wants one line for one thing.
    """
    if width < NARROWEST:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _folded(line, width))


def _folded(line: str, width: int) -> Iterator[str]:
    words = line.lstrip(" ")
    indent = line[: len(line) - len(words)]
    if len(line) <= width or words.startswith((REMEDY, *_DIFF)):
        yield line
        return
    said, remedy, command = line.partition(f" {REMEDY}")
    yield from _wrapped(said, f"{indent}    ", width)
    if remedy:
        yield f"{indent}  {remedy.lstrip()}{command}"


def _wrapped(line: str, indent: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
