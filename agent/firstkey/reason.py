"""What a reason is, and the list that every one of them is on."""

from __future__ import annotations

from firstkey.named_tuple import NamedTuple


class Reason(NamedTuple):
    """One published reason: a code for programs, a meaning and a remedy for people."""

    code: str
    meaning: str
    remedy: str


class Refusal(NamedTuple):
    """Why one thing was not done: the reason, and a sentence that names the thing."""

    reason: Reason
    detail: str


ALL: dict[str, Reason] = {}


def define(code: str, meaning: str, remedy: str) -> Reason:
    """Put one more on the list; raises ValueError where its code is taken."""
    if code in ALL:
        raise ValueError(f"reason code {code} is defined twice")
    ALL[code] = Reason(code, meaning, remedy)
    return ALL[code]
