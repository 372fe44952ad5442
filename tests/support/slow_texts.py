"""Texts that are made to be slow, for a regular expression out of its own parts; and how work grows."""

from __future__ import annotations

import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Union

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        from re import _constants as constants  # type: ignore[attr-defined,unused-ignore]
        from re import _parser as parser  # type: ignore[attr-defined,unused-ignore]
    except ImportError:  # before Python 3.11
        import sre_constants as constants
        import sre_parse as parser

Text = Union[str, bytes]

SHORT, LONG = 16 * 1024, 64 * 1024
"""Characters of the two texts whose times are compared: four times the text is four times the work."""
FACTOR = 9.0
"""What is quadratic takes sixteen times as long; nine is far from both, whatever else the machine does."""
FLOOR = 0.05
"""Seconds of CPU below which nothing is slow."""
LIMIT = 2.0
"""Seconds of CPU for `LONG` characters after which nothing has to be compared any more."""

# One of each kind that patterns tell apart.
ALPHABET = "a0A z\n\t\"'-=:/.,#\\;@[]{}%$*<_+!|~\r\0\x1b\x7f\xff"
UNITS = (
    "a",
    "0",
    " ",
    "\n",
    " \n",
    "a ",
    "a\n",
    "-----BEGIN ",
    "a: x\n\n\n\n\n\n\n",
    '"',
    "\\",
    '\\"',
    "=",
    "a=",
    ",",
)
TAILS = ("", "!", "\x07", "\n!")
SEVERAL = 3
"""How often a part that may be repeated is, in a sample of a larger part."""


class TooSlow(Exception):  # noqa: N818 - no error, but what was looked for
    """The time is over."""


# --- time -----------------------------------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so much CPU time; the expressions' engine looks for signals as it goes."""

    def over(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _seconds(work: Callable[[Any], object], text: Any) -> float:
    start = time.process_time()
    work(text)
    return time.process_time() - start


def growth(work: Callable[[Any], object], make: Callable[[int], Any]) -> str | None:
    """What is wrong with how the work grows with the size of what is made for it, or None."""
    long = make(LONG)
    try:
        with limited(LIMIT):
            most = _seconds(work, long)
        if most < FLOOR:
            return None
        with limited(10 * LIMIT):
            most = min(most, *(_seconds(work, long) for _ in range(2)))
            short = make(SHORT)
            least = min(_seconds(work, short) for _ in range(3))
    except TooSlow:
        return f"takes more than {LIMIT} s"
    if most < FLOOR or most < FACTOR * least:
        return None
    return f"takes {most / least:.0f} times as long for {LONG // SHORT} times the text ({most:.2f} s)"


# --- texts ----------------------------------------------------------------------------------------


def texts(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """Start, unit and tail of texts for the pattern: the unit is repeated as often as the text is long."""
    seen = set()
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if _is_bytes(pattern) else pattern.flags)
    for start, unit in (*_pumps(list(tree), ""), *(("", unit) for unit in (*UNITS, *_literals(tree)))):
        for tail in TAILS:
            if unit and (start, unit, tail) not in seen:
                seen.add((start, unit, tail))
                yield start, unit, tail


def text(pattern: re.Pattern[Any], size: int, start: str, unit: str, tail: str) -> Text:
    """One of them, of about that size."""
    whole = start + unit * (size // len(unit) + 1) + tail
    return whole.encode("latin-1", "replace") if _is_bytes(pattern) else whole


def _is_bytes(pattern: re.Pattern[Any]) -> bool:
    return isinstance(pattern.pattern, bytes)


def _literals(tree: Any) -> set[str]:
    """Each run of literal characters in the pattern."""
    found, run = set(), ""
    for code, argument in (*_flat(tree), (None, None)):
        if code is constants.LITERAL and argument < 256:
            run += chr(argument)
        elif run:
            found.add(run)
            run = ""
    return found


def _flat(tree: Any) -> Iterator[tuple[Any, Any]]:
    for node in tree:
        yield node
        for below in _below(node):
            yield from _flat(below)


def _below(node: tuple[Any, Any]) -> list[Any]:
    """The parts of a node that are sequences themselves."""
    code, argument = node
    if code in _REPEATS:
        return [argument[2]]
    if code is constants.BRANCH:
        return list(argument[1])
    if code is constants.SUBPATTERN:
        return [argument[3]]
    if code in (constants.ASSERT, constants.ASSERT_NOT):
        return [argument[1]]
    if code is getattr(constants, "ATOMIC_GROUP", None):
        return [argument]
    return []


_REPEATS = {
    constants.MAX_REPEAT,
    constants.MIN_REPEAT,
    getattr(constants, "POSSESSIVE_REPEAT", constants.MAX_REPEAT),
}


def _pumps(tree: list[Any], before: str) -> Iterator[tuple[str, str]]:
    """For each part that is repeated: what leads to it, and samples of it and of both together."""
    for place, node in enumerate(tree):
        lead = before + next(_samples(tree[:place], 1), "")
        code, argument = node
        if code in _REPEATS:
            bodies = {body for times in (1, SEVERAL) for body in islice(_samples(argument[2], times), 24)}
            for body in sorted(bodies):
                yield lead, body
                yield lead[: len(before)], lead[len(before) :] + body
                yield "", lead + body
            yield "", lead
        for below in _below(node):
            yield from _pumps(list(below), lead)


def _samples(tree: Any, times: int) -> Iterator[str]:
    """Texts that the parts match, more or less: look-arounds are passed over."""
    parts = [list(islice(_of_node(node, times), 4)) or [""] for node in tree]
    # Each choice in its turn, not all combinations: those are very many.
    yield "".join(choices[0] for choices in parts)
    for place, choices in enumerate(parts):
        for choice in choices[1:]:
            yield "".join(choice if here == place else other[0] for here, other in enumerate(parts))


def _of_node(node: tuple[Any, Any], times: int) -> Iterator[str]:
    code, argument = node
    if code is constants.LITERAL:
        yield chr(argument)
    elif code in (constants.NOT_LITERAL, constants.IN, constants.ANY):
        own = (
            [chr(item[1]) for item in argument if item[0] is constants.LITERAL]
            if code is constants.IN
            else []
        )
        yield from dict.fromkeys(letter for letter in (*ALPHABET, *own) if _fits(letter, node))
    elif code in _REPEATS:
        least, most, body = argument
        number = min(most, max(least, times))
        yield from (sample * number for sample in _samples(body, times))
        if least == 0:
            yield ""
    elif code not in (constants.ASSERT, constants.ASSERT_NOT):
        for below in _below(node):
            yield from _samples(below, times)


def _fits(letter: str, node: tuple[Any, Any]) -> bool:
    code, argument = node
    if code is constants.ANY:
        return letter != "\n"
    if code is constants.NOT_LITERAL:
        return ord(letter) != int(argument)
    inside = [item for item in argument if item[0] is not constants.NEGATE]
    is_inside = any(_is_of(letter, item) for item in inside)
    return is_inside is (len(inside) == len(argument))


_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\d", constants.CATEGORY_NOT_DIGIT: r"\D",
    constants.CATEGORY_SPACE: r"\s", constants.CATEGORY_NOT_SPACE: r"\S",
    constants.CATEGORY_WORD: r"\w", constants.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def _is_of(letter: str, item: tuple[Any, Any]) -> bool:
    code, argument = item
    if code is constants.LITERAL:
        return ord(letter) == int(argument)
    if code is constants.RANGE:
        return bool(argument[0] <= ord(letter) <= argument[1])
    return bool(re.match(_CATEGORIES[argument], letter, re.ASCII))
