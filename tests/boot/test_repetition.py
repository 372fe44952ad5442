"""What a daemon that watches says once, and what it says each time."""

from __future__ import annotations

from firstkey import events
from firstkey.boot.repetition import Ear


def told(*rounds: list[events.Entry]) -> list[str]:
    """The names of what is passed on of rounds that follow each other."""
    passed: list[events.Entry] = []
    known: tuple[str, ...] = ()
    for entries in rounds:
        ear = Ear(passed.append, known, is_watching=True)
        for entry in entries:
            ear.say(entry)
        known = ear.said
    return [entry.event.name for entry in passed]


def test_what_is_as_it_was_is_told_once() -> None:
    """And again when it comes back."""
    missing = events.GROUP_MISSING(user="deploy", reason="no-such-group", detail="there is no group x")
    assert told([missing], [missing]) == ["group-missing"]
    assert told([missing], [], [missing]) == ["group-missing"] * 2


def test_what_is_done_is_told_each_time() -> None:
    """Somebody undoes it in each round, and that is to be seen."""
    made = events.USER_CREATED(user="deploy")
    assert told([made], [made]) == ["user-created"] * 2
