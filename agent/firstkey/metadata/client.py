"""The client of the metadata service: which instance is this, and which launch keys does it have?

Here: the endpoints, and for how long and how often they are asked. `inquiry` has what is asked of one
of them, `transport` the HTTP, `endpoint` the connections, `answers` what may come back.

Importing this module costs next to nothing. `requests`, which takes longer to load than the rest of a
run that finds nothing to do, comes with the first question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError, Unreachable
from firstkey.metadata.values import (
    Answer,
    NoAnswer,
    Notice,
    OfferedKey,
    Retriable,
    Settings,
    Tell,
    ignore,
)

if TYPE_CHECKING:
    from firstkey.metadata.endpoint import BoundedSocket, Deadline, Endpoint
    from firstkey.metadata.inquiry import Token

__all__ = ["Answer", "Client", "NoAnswer", "Notice", "OfferedKey", "Retriable", "Settings", "ignore"]

# Seconds between attempts. At boot the network appears at any moment; what is not there after a
# minute is not expected at any moment any more.
FIRST_PAUSE = 0.02
PAUSE_GROWTH = 1.6
LONGEST_PAUSE = 2.0
LONGEST_LATE_PAUSE = 30.0
LATE = 60.0

LAST_ATTEMPT = 0.1
"""Seconds before the deadline at which a last attempt starts: ample for a service that is there."""


class Client:
    """Asks the metadata service. Keeps tokens, but no connection, from one question to the next.

    `tell` gets a Notice of each thing that happens on the way. Raises FirstkeyError (config-invalid) for
    settings that cannot be. Uses no threads, so the process may fork between two questions.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tell: Tell = ignore,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._endpoints = _endpoints(settings)
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._tokens: dict[str, Token] = {}
        self._told: set[Notice] = set()

    def ask(self, *, deadline: float | None) -> Answer:
        """Ask until there is an answer or the deadline (on the clock; None: never) has passed.

        Raises Unreachable at the deadline, with the reason of the last full attempt, and FirstkeyError at
        once for an answer that is final (switched off, no metadata service at all, ...).
        """
        limit = self._deadline(deadline)
        started = self._clock()
        pauses = _pauses(lambda: self._clock() - started)
        cause: Retriable | None = None
        while True:
            try:
                return self._attempt(limit)
            except Retriable as fault:
                # An attempt that the deadline cut short tells less than the one before it.
                cause = cause if cause and limit.left <= 0 else fault
            if limit.left <= LAST_ATTEMPT:
                text = f"no answer of the metadata service in {self._clock() - started:.1f} s; {cause.message}"
                raise Unreachable(text, reason=cause.reason)
            pause = min(next(pauses), limit.left - LAST_ATTEMPT)
            self._tell(Notice("retry", cause.reason, cause.message, self._names(), pause))
            self._sleep(pause)

    def ask_once(self, *, deadline: float) -> Answer:
        """Ask all endpoints once.

        Raises Retriable for what `ask` would try again, and otherwise what `ask` raises.
        """
        return self._attempt(self._deadline(deadline))

    def close(self) -> None:
        """Forget the tokens. The client may be used again."""
        self._tokens.clear()

    def _attempt(self, limit: Deadline) -> Answer:
        """One answer of the endpoint that accepts first, or of the next one if that one fails."""
        Race = _race()  # noqa: N806 - a class
        faults: list[Retriable] = []
        with Race(self._endpoints, limit.within(self._settings.request_timeout)) as race:
            for endpoint, connection in race:
                try:
                    return self._inquire(endpoint, connection, limit)
                except Retriable as fault:
                    faults.append(fault)
        # One that was asked and failed tells more than one that could not be asked.
        reason = faults[0].reason if faults else reasons.IMDS_UNREACHABLE
        raise Retriable("; ".join([*(fault.message for fault in faults), *race.faults]), reason=reason)


def _endpoints(settings: Settings) -> list[Endpoint]:
    """The endpoints of the settings, checked: literal addresses only."""
    from firstkey.metadata.endpoint import Endpoint

    return [Endpoint.parse(text) for text in settings.endpoints]
