"""Lines for people of which a part has a colour on a terminal that shows them."""

from __future__ import annotations

from typing import Union

from firstkey import NamedTuple

RED, GREEN, YELLOW, BLUE, BOLD, PLAIN = 31, 32, 33, 34, 1, 0
"""Numbers of ECMA-48 (SGR)."""


class Coloured(NamedTuple):
    """A line of which `text` has a colour."""

    colour: int
    text: str
    before: str = ""
    after: str = ""


Line = Union[str, Coloured]
"""One line, whatever is in it: what prints it escapes what a terminal would act on."""


def plain(line: Line) -> str:
    """The line without a colour."""
    return line if isinstance(line, str) else line.before + line.text + line.after
