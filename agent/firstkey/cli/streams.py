"""Standard output and standard error, whatever state the caller left them in."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from firstkey import folding
from firstkey.system import descriptors


class NotPrinted(Exception):  # noqa: N818 - what happened
    """Standard output takes nothing more: its disk is full, say."""


class _Output(io.FileIO):
    """Standard output, whose own trouble cannot be taken for that of a file that the command works on."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever io.FileIO takes
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NotPrinted(error.strerror) from None


def make_ready() -> None:
    """Let every text be printed: to nowhere where the caller closed a stream, and with escapes where need be.

    A closed descriptor is the next one that a file gets, and whatever is printed then goes into that file.
    """
    descriptors.fill_standard()
    given = sys.__stdout__
    if given and sys.stdout is given:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(1, "wb", closefd=False)),
            encoding=given.encoding,
            # A name with letters that the terminal does not have is shown with escapes, not a riddle.
            errors="backslashreplace",
            line_buffering=given.line_buffering,
            write_through=given.write_through,  # python3 -u
        )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run


def show(text: str, *, end: str = "\n") -> None:
    """Print for people, at once; long lines are broken where standard output is a terminal."""
    width = folding.width_of(1) if sys.stdout is not None and sys.stdout.isatty() else 0
    print(folding.folded(text, width), end=end, flush=True)


def complain(text: str) -> None:
    """The same on standard error."""
    width = folding.width_of(2) if sys.stderr is not None and sys.stderr.isatty() else 0
    print(folding.folded(text, width), file=sys.stderr, flush=True)


def abandon() -> None:
    """Print nothing more, and let what is still in the buffer go nowhere.

    The stream tries once more what has failed when it is done away with, and would complain.
    """
    descriptors.send_nowhere(1)
    sys.stdout = None
