"""The client of the metadata service: it asks which instance this is, and which launch keys it has.

Here: the endpoints, and for how long and how often they are asked. `inquiry` has what is asked of one
of them and what may come back, `transport` connections and HTTP.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError, Retriable, Unreachable

if TYPE_CHECKING:
    from firstkey.config import Imds
    from firstkey.events import Entry
    from firstkey.metadata.inquiry import Token
    from firstkey.metadata.transport import Conversation, Endpoint

# Seconds between attempts. At boot the network appears at any moment, and is to be noticed a tenth later at
# most than it took to come; what is not there after a minute is not expected at any moment any more.
SHORTEST_PAUSE = 0.001
FIRST_PAUSE = 0.02
PAUSE_GROWTH = 1.1
LONGEST_PAUSE = 2.0
LONGEST_LATE_PAUSE = 30.0
LATE = 60.0

LEAST_FAIR = 0.25
"""Seconds that an attempt must have had to be believed; the token request takes up to half of them."""

LAST_ATTEMPT = 0.1
"""Seconds before the deadline at which a last attempt starts: ample for a service that is there."""

HEAD_START = 0.1
"""Seconds that an endpoint has to answer before the next one on the list is asked as well."""

GRACE = 0.1
"""Seconds that the others still have where the answer of one endpoint is final, and none can give a key."""


class Client:
    """Asks the metadata service. Keeps tokens, but no connection, from one question to the next.

    `log` gets an event of each thing that happens on the way, one at a time, in the thread of an endpoint.
    Threads end with the question, so the process may fork between two of them. `identity` is what the
    service said last of the instance, also where it did not tell the keys.

    Raises FirstkeyError (dependency-missing), and ValueError for what is no endpoint.
    """

    def __init__(
        self,
        settings: Imds,
        *,
        log: Callable[[Entry], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        try:
            from firstkey.metadata.transport import Endpoint
        except ImportError as error:
            text = f"asking the metadata service takes {error.name or 'requests'} (package python3-requests)"
            hint = "Install it: apt-get install python3-requests, or dnf install python3-requests"
            raise FirstkeyError(text, reason=reasons.DEPENDENCY_MISSING, hint=hint) from error
        except OSError as error:
            # As it is imported, requests 2.32 reads certificates that plain HTTP does not need.
            text = f"the metadata service cannot be asked, since requests cannot be loaded: {error}"
            hint = "Install its certificates again: apt-get install --reinstall ca-certificates"
            raise FirstkeyError(text, reason=reasons.DEPENDENCY_MISSING, hint=hint) from error
        self.settings = settings
        self.log = log
        self.clock = clock
        self.sleep = sleep
        self.identity: Answer | None = None
        self.tokens: dict[str, Token] = {}
        self.fallbacks: set[tuple[str, str]] = set()
        self._endpoints = [Endpoint.parse(url) for url in dict.fromkeys(settings.endpoints)]

    def ask(self, *, deadline: float | None) -> Answer:
        """The first good answer of any endpoint, until the deadline (on the clock; None: there is none).

        Raises Unreachable at the deadline, with the reason of the last full attempt, and FirstkeyError at
        once for an answer that is final (switched off, no metadata service at all, ...).
        """
        started = self.clock()
        try:
            return _Question(self, deadline).answer(self._endpoints)
        except Retriable as fault:
            seconds = self.clock() - started
            text = f"no usable answer of the metadata service in {seconds:.1f} s; {fault.message}"
            raise Unreachable(text, reason=fault.reason) from None


class _Question:
    """One question to all endpoints, each in a thread of its own, until one of them has a good answer."""

    def __init__(self, client: Client, deadline: float | None) -> None:
        from firstkey.metadata.transport import Deadline

        self._client = client
        self._limit = Deadline(float("inf") if deadline is None else deadline, client.clock)
        self._logging = Lock()
        self._has_failed = Event()
        self._is_over = Event()

    def answer(self, endpoints: list[Endpoint]) -> Answer:
        """The first good answer, or else what the faults of all endpoints come to.

        The first on the list has a head start; the others are asked as soon as it fails, or is slow.
        """
        from firstkey.metadata.transport import Conversation

        conversations = [Conversation(endpoint) for endpoint in endpoints]
        faults: list[Retriable] = []
        final: list[FirstkeyError] = []
        with ThreadPoolExecutor(len(conversations)) as pool:
            try:
                asked = {pool.submit(self._attempts, *each) for each in enumerate(conversations)}
                while asked:
                    ended, asked = wait(asked, GRACE if final else None, FIRST_COMPLETED)
                    for future in ended:
                        error = future.exception()
                        if isinstance(error, Retriable):
                            faults.append(error)
                        elif isinstance(error, FirstkeyError):
                            final.append(error)
                            self._has_failed.set()
                        else:
                            return future.result()
                    if not ended:
                        break
            finally:
                self._is_over.set()
                self._has_failed.set()
                for conversation in conversations:
                    conversation.stop()
        if final:
            raise final[0]
        # The fault of an endpoint that was reached explains more than that of one that was not.
        known = [fault.reason for fault in faults if fault.reason != reasons.IMDS_UNREACHABLE]
        text = "; ".join(fault.message for fault in faults)
        raise Retriable(text, reason=known[0] if known else reasons.IMDS_UNREACHABLE)

    def _attempts(self, number: int, conversation: Conversation) -> Answer:
        """What the thread of one endpoint does: it asks until there is an answer or no time is left."""
        from firstkey.metadata.inquiry import Inquiry

        client, limit, url = self._client, self._limit, conversation.endpoint.url
        # A conversation that was stopped meanwhile only fails.
        self._has_failed.wait(number * HEAD_START)
        started = client.clock()
        cause: Retriable | None = None
        pause = FIRST_PAUSE
        while True:
            was_fair = limit.left > LEAST_FAIR
            inquiry = Inquiry(
                conversation, client.settings, tokens=client.tokens, log=self._log, deadline=limit
            )
            try:
                return inquiry.answer()
            except Retriable as fault:
                # An attempt that the deadline cut short explains less than the one before it.
                if cause is None or (was_fair and limit.left > 0):
                    cause = fault
            finally:
                conversation.close()
                client.identity = inquiry.identity or client.identity
            self._has_failed.set()
            left = limit.left - LAST_ATTEMPT
            if self._is_over.is_set() or left < SHORTEST_PAUSE:
                raise cause
            # Instances of one launch that all lost the service would come back to it in step without jitter.
            pause = min(pause, LONGEST_PAUSE if client.clock() - started < LATE else LONGEST_LATE_PAUSE)
            seconds = min(pause * random.uniform(0.8, 1.0), left)  # noqa: S311 - nothing secret
            pause *= PAUSE_GROWTH
            why = {"detail": cause.message, "reason": cause.reason.code}
            self._log(events.IMDS_RETRY(endpoint=url, pause=f"{seconds:.2f}", **why))
            (client.sleep or self._is_over.wait)(seconds)

    def _log(self, entry: Entry) -> None:
        """Say a fallback once, and not at each attempt."""
        with self._logging:
            if self._is_over.is_set():
                return
            if entry.event is events.IMDS_FALLBACK:
                same = (entry.fields["reason"], entry.fields["endpoint"])
                if same in self._client.fallbacks:
                    return
                self._client.fallbacks.add(same)
            self._client.log(entry)
