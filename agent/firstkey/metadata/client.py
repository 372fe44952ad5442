"""The client of the metadata service: it asks which instance this is, and which launch keys it has.

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
    FAIR_TRIAL,
    Answer,
    Identity,
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

__all__ = [
    "Answer", "Client", "Identity", "NoAnswer", "Notice", "OfferedKey", "Retriable", "Settings", "ignore",
]  # fmt: skip

# Seconds between attempts. At boot the network appears at any moment; what is not there after a
# minute is not expected at any moment any more.
SHORTEST_PAUSE = 0.001
FIRST_PAUSE = 0.02
PAUSE_GROWTH = 1.6
LONGEST_PAUSE = 2.0
LONGEST_LATE_PAUSE = 30.0
LATE = 60.0

LEAST_FAIR = 2.5 * FAIR_TRIAL
"""Seconds that an attempt must have had to be believed; the token request takes up to half of them."""

LAST_ATTEMPT = 0.1
"""Seconds before the deadline at which a last attempt starts: ample for a service that is there."""

GRACE = 0.1
"""Seconds that an endpoint which has not accepted gets once another one was asked and failed.

Later it gets as long as the pauses have become: one that is far off is reached in the end.
"""


class Client:
    """Asks the metadata service. Keeps tokens, but no connection, from one question to the next.

    `tell` gets a Notice of each thing that happens on the way. Raises FirstkeyError (config-invalid) for
    settings that cannot be. Uses no threads, so the process may fork between two questions. `identity` is
    what the service said last of the instance, also where it did not tell the keys.
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
        self._urls = " ".join(endpoint.url for endpoint in self._endpoints)
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self.identity: Identity | None = None
        self._tokens: dict[str, Token] = {}
        self._told: set[tuple[object, ...]] = set()

    def ask(self, *, deadline: float | None, known: str | None = None) -> Answer:
        """Ask until there is an answer or the deadline (on the clock; None: never) has passed.

        Raises Unreachable at the deadline, with the reason of the last full attempt, and FirstkeyError at
        once for an answer that is final (switched off, no metadata service at all, ...). Where the service
        says that this is another instance than `known`, and no more than that, Retriable at once: that is
        worth knowing before the keys can be had.
        """
        limit = self._deadline(deadline)
        started = self._clock()
        pauses = _pauses(lambda: self._clock() - started)
        pause = 0.0
        cause: Retriable | None = None
        while True:
            was_fair = limit.left > LEAST_FAIR
            try:
                return self._attempt(limit, grace=max(GRACE, pause))
            except Retriable as fault:
                if known and self.identity and self.identity.instance_id != known:
                    raise
                # An attempt that the deadline cut short tells less than the one before it.
                if cause is None or (was_fair and limit.left > 0):
                    cause = fault
            if limit.left < LAST_ATTEMPT + SHORTEST_PAUSE:
                raise _nothing(self._clock() - started, cause)
            pause = min(next(pauses), limit.left - LAST_ATTEMPT)
            self._tell(Notice("retry", cause.reason, cause.message, self._urls, pause))
            self._sleep(pause)

    def ask_once(self, *, deadline: float) -> Answer:
        """Ask all endpoints once.

        Raises Retriable for what `ask` would try again, and otherwise what `ask` raises.
        """
        return self._attempt(self._deadline(deadline), grace=GRACE)

    def close(self) -> None:
        """Forget the tokens. The client may be used again."""
        self._tokens.clear()

    def _attempt(self, limit: Deadline, *, grace: float) -> Answer:
        """One answer: of the endpoint that accepts first, or of another one if that one fails.

        Each is given its share of the time at most, so that one which accepts and keeps silent does not use
        up all of it.
        """
        # Before anything is connected: loading takes its time on a cold disk, and nobody should wait for it.
        _load_transport()
        from firstkey.metadata.endpoint import Race

        faults: list[FirstkeyError] = []
        seconds = self._settings.request_timeout
        with Race(self._endpoints, limit, seconds=seconds, grace=min(grace, seconds)) as race:
            for endpoint, connection in race:
                share = limit.within(limit.left / (1 + race.others))
                try:
                    return self._inquire(endpoint, connection, share)
                except FirstkeyError as fault:  # the other endpoint may be a better one
                    faults.append(fault)
        raise _verdict(faults, race.faults)

    def _inquire(self, endpoint: Endpoint, connection: BoundedSocket, limit: Deadline) -> Answer:
        from firstkey.metadata.inquiry import Inquiry
        from firstkey.metadata.transport import Conversation

        with Conversation(endpoint, connection) as conversation:
            asking = Inquiry(
                conversation, self._settings, tokens=self._tokens, tell=self._tell_once, deadline=limit
            )
            try:
                answer = asking.answer()
            finally:
                self.identity = asking.identity or self.identity
        self._tell_once(Notice("endpoint", None, f"IMDSv{answer.version}", endpoint.url))
        return answer

    def _tell_once(self, notice: Notice) -> None:
        """Tell what would be the same at each attempt; each request is one of its own."""
        same = (notice.kind, notice.reason, notice.endpoint)
        if notice.kind == "request" or same not in self._told:
            self._told.add(same)
            self._tell(notice)

    def _deadline(self, at: float | None) -> Deadline:
        from firstkey.metadata.endpoint import Deadline

        return Deadline(float("inf") if at is None else at, self._clock)


def _nothing(seconds: float, cause: Retriable) -> Unreachable:
    text = f"no usable answer of the metadata service in {seconds:.1f} s; {cause.message}"
    return Unreachable(text, reason=cause.reason)


def _verdict(faults: list[FirstkeyError], unasked: list[str]) -> FirstkeyError:
    """What the faults of all endpoints come to: the first that is final, or all of them."""
    final = [fault for fault in faults if not isinstance(fault, Retriable)]
    if final:
        return final[0]
    # One that was asked and failed tells more than one that could not be asked.
    reason = faults[0].reason if faults else reasons.IMDS_UNREACHABLE
    return Retriable("; ".join([*(fault.message for fault in faults), *unasked]), reason=reason)


def _endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    from firstkey.metadata.endpoint import Endpoint

    if settings.version not in ("auto", "2", "1"):
        text = f"Version={settings.version} is no version of the metadata service: auto, 2 or 1"
        raise FirstkeyError(text, reason=reasons.CONFIG_INVALID)
    if not settings.endpoints:
        raise FirstkeyError("no endpoint of the metadata service is given", reason=reasons.CONFIG_INVALID)
    return tuple(Endpoint.parse(url) for url in dict.fromkeys(settings.endpoints))


def _load_transport() -> None:
    try:
        from firstkey.metadata import transport  # noqa: F401 - loaded for its own sake
    except ImportError as error:
        text = f"the metadata service cannot be asked without {error.name or 'requests'}"
        hint = "Install it: apt-get install python3-requests, or dnf install python3-requests"
        raise FirstkeyError(text, reason=reasons.DEPENDENCY_MISSING, hint=hint) from error


def _pauses(elapsed: Callable[[], float]) -> Iterator[float]:
    """Pauses between attempts in seconds, growing, each a little longer or shorter than its turn.

    Instances of one launch that all lost the service would come back to it in step without that.
    """
    import random

    pause = FIRST_PAUSE
    while True:
        pause = min(pause, LONGEST_PAUSE if elapsed() < LATE else LONGEST_LATE_PAUSE)
        yield pause * random.uniform(0.8, 1.0)  # noqa: S311 - nothing secret
        pause *= PAUSE_GROWTH
