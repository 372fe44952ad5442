"""What people look at: differences of files, and lines that a terminal has room for. No boot has one."""

from __future__ import annotations

import os
import shlex

from firstkey.text import REMEDY, visible

DECIDE = "A person decides: "
"""Before words for where no command is sure to be right; before one that is, text.REMEDY."""
NARROWEST = 40
"""Columns below which nothing is folded: there is nothing to gain."""
_DIFF = ("+", "-", "@@")
"""How the lines begin that have to be read as they are."""


def diff(path: str, before: bytes | None, after: bytes | None) -> str:
    """A unified diff of a file (None: there is none); nothing in it that a terminal would act on."""
    import difflib

    old, new = (_lines(content or b"") for content in (before, after))
    source, target = (visible(path) if content is not None else "/dev/null" for content in (before, after))
    return "".join(difflib.unified_diff(old, new, source, target))


def _lines(content: bytes) -> list[str]:
    text = content.decode("utf-8", "surrogateescape")
    return [f"{visible(line)}\n" for line in text.removesuffix("\n").split("\n")] if content else []


def options(**values: str | None) -> str:
    """Options of a command, as one types them in a shell; those that are not given (None) are left out."""
    return "".join(f" --{name} {quoted(value)}" for name, value in values.items() if value)


def quoted(path: str) -> str:
    """The path as one types it in a shell: one word, whatever is in it."""
    if path.isprintable():
        return shlex.quote(path)
    typed = (
        char
        if char.isprintable() and char not in "'\\"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in path
    )
    return f"$'{''.join(typed)}'"


def width_of(fd: int) -> int:
    """The columns of the terminal behind a descriptor; 0 where it is none, or does not say."""
    try:
        return os.get_terminal_size(fd).columns
    except OSError:
        return 0


def folded(line: str, width: int) -> list[str]:
    """The line broken between words where it is long, with its remedy on a line of its own.

    Commands stay whole, to be copied. A width of 0 leaves the line as it is: what reads a pipe or file wants
    one line for one thing.
    """
    words = line.lstrip(" ")
    if width < NARROWEST or len(line) <= width or words.startswith((REMEDY, *_DIFF)):
        return [line]
    indent = line[: len(line) - len(words)]
    said, remedy, command = line.partition(f" {REMEDY}")
    lines = _wrapped(said, f"{indent}    ", width)
    return [*lines, f"{indent}  {remedy.lstrip()}{command}"] if remedy else lines


def _wrapped(line: str, indent: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
