"""What is printed, on standard output and standard error: nothing is printed elsewhere.

Text goes out in lines, each a value of its own: what others wrote can end none, nor act on a terminal.
"""

from __future__ import annotations

import sys

from firstkey import TYPE_CHECKING
from firstkey.system import files
from firstkey.text import as_json, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO


class NotPrinted(Exception):  # noqa: N818 - what happened
    """A stream takes nothing more: its disk is full, say."""


def show(*lines: str) -> None:
    """Print lines for people, at once; long ones are broken where standard output is a terminal."""
    put(sys.stdout, _ready(lines, sys.stdout))


def show_json(value: Any) -> None:  # noqa: ANN401 - whatever json.dumps takes
    """Print a result for programs."""
    put(sys.stdout, f"{as_json(value)}\n")


def complain(*lines: str) -> None:
    """Print lines on standard error."""
    put(sys.stderr, _ready(lines, sys.stderr))


def put(stream: Any, text: str | bytes) -> None:  # noqa: ANN401 - a stream of either
    """Write what is harmless by now, at once. What is wrong with the stream is nothing that is worked on."""
    try:
        if stream is not None:
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NotPrinted(error.strerror) from None


def _ready(lines: Sequence[str], stream: TextIO | None) -> str:
    shown = [visible(line) for line in lines]
    if stream is not None and stream.isatty():
        from firstkey.display import folded, width_of  # no boot has a terminal

        width = width_of(stream.fileno())
        shown = [piece for line in shown for piece in folded(line, width)]
    return "".join(f"{line}\n" for line in shown)


def abandon() -> None:
    """Print nothing more, and let what is still in the buffer go nowhere.

    The stream tries once more what has failed when it is done away with, and would complain.
    """
    files.send_nowhere(1)
    sys.stdout = None
