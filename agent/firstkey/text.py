"""Text: the one door for what others wrote."""

from __future__ import annotations

from firstkey import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

REMEDY = "What to do: "


def visible(text: str) -> str:
    r"""The text on one line, with everything that does not print, tabs aside, written as an escape.

    `str.isprintable` knows control characters, separators of lines, marks of direction and lone surrogates by
    their category in Unicode. Python keeps bytes that are no UTF-8 as such surrogates (PEP 383): \xNN.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def as_json(value: Any) -> str:  # noqa: ANN401 - whatever json.dumps takes
    """The value as JSON in ASCII, in which every string is text.

    Strict readers refuse the whole of what has one lone surrogate in it, so these are shown as above.
    """
    import json
    import re

    # A backslash that is written as two, a pair of surrogates that is one character, or a lone one.
    return re.sub(
        r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\u(d[89a-f]..)",
        lambda match: f"\\{visible(chr(int(match[1], 16)))}" if match[1] else match[0],
        json.dumps(value, indent=1),
    )
