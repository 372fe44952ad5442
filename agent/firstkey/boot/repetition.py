"""What a daemon that watches says once: as long as a round says the same as the one before, it is no news.

Each round is a process of its own, so what was said goes from one to the next by way of the supervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events
from firstkey.ssh.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from firstkey.events import Entry

MOST = 256
"""How many entries of a round are remembered; one round with more than that repeats itself."""

_DEEDS = frozenset({
    events.KEY_ADDED, events.KEY_REDIRECTS, events.KEY_REVOKED, events.USER_CREATED, events.USER_COMPLETED,
    events.USER_CHANGED, events.SUDOERS_WRITTEN, events.MODES_MENDED, events.HOST_KEY_MADE,
    events.HOST_KEY_REPLACED, events.HOST_KEY_SET_ASIDE, events.HOST_KEY_PUBLIC_DERIVED,
    events.HOST_KEY_MODE_MENDED,
})  # fmt: skip
"""What is done is told each time: that it had to be done again is the news."""

_PASSING = frozenset({"pause", "seconds"})
"""Fields that differ from one time to the next without telling anything new."""


class Ear:
    """Hears all that one round says, and passes on what the round before did not say.

    `is_watching=False`: everything is passed on, since an operator who waits for a first answer wants to see
    every attempt.
    """

    def __init__(self, say: Callable[[Entry], None], known: Iterable[str], *, is_watching: bool) -> None:
        self._say = say
        self._known = frozenset(known)
        self._is_watching = is_watching
        self._said: dict[str, None] = {}

    @property
    def said(self) -> tuple[str, ...]:
        """What this round said, for the next one."""
        return tuple(self._said)[:MOST]

    def say(self, entry: Entry) -> None:
        """Pass it on, if it is news."""
        mark = _mark(entry)
        is_old = mark in self._known or mark in self._said
        self._said[mark] = None
        if entry.event in _DEEDS or not (is_old and self._is_watching):
            self._say(entry)


def _mark(entry: Entry) -> str:
    told = sorted((name, value) for name, value in entry.fields.items() if name not in _PASSING)
    digest: str = sha256(f"{entry.event.message_id} {told}".encode("utf-8", "backslashreplace")).hexdigest()
    return digest[:16]
