"""The client of the metadata service: it asks which instance this is, and which launch keys it has.

Here: the endpoints, and for how long and how often they are asked. `inquiry` has what is asked of one
of them and what may come back, `transport` connections and HTTP.

Importing this module costs next to nothing. `requests`, which takes longer to load than the rest of a
run that finds nothing to do, comes with the first question.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError, Retriable, Unreachable

if TYPE_CHECKING:
    from firstkey.config import Imds
    from firstkey.events import Entry
    from firstkey.metadata.inquiry import Token
    from firstkey.metadata.transport import Conversation, Endpoint

# Seconds between attempts. At boot the network appears at any moment; what is not there after a
# minute is not expected at any moment any more.
SHORTEST_PAUSE = 0.001
FIRST_PAUSE = 0.02
PAUSE_GROWTH = 1.6
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

    `say` gets an event of each thing that happens on the way, one at a time, in the thread of an endpoint.
    Threads end with the question, so the process may fork between two of them. `identity` is what the
    service said last of the instance, also where it did not tell the keys.

    Raises FirstkeyError (dependency-missing), and ValueError for what is no endpoint.
    """

    def __init__(
        self,
        settings: Imds,
        *,
        say: Callable[[Entry], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        try:
            from firstkey.metadata.transport import Endpoint
        except ImportError as error:
            text = f"the metadata service cannot be asked without {error.name or 'requests'}"
            hint = "Install it: apt-get install python3-requests, or dnf install python3-requests"
            raise FirstkeyError(text, reason=reasons.DEPENDENCY_MISSING, hint=hint) from error
        except OSError as error:
            # As it is imported, requests 2.32 reads certificates that plain HTTP does not need.
            text = f"the metadata service cannot be asked, since requests cannot be loaded: {error}"
            hint = "Install its certificates again: apt-get install --reinstall ca-certificates"
            raise FirstkeyError(text, reason=reasons.DEPENDENCY_MISSING, hint=hint) from error
        self.settings = settings
        self.say = say
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
        from queue import SimpleQueue
        from threading import Event, Lock

        from firstkey.metadata.transport import Deadline

        self._client = client
        self._limit = Deadline(float("inf") if deadline is None else deadline, client.clock)
        self._saying = Lock()
        self._has_failed = Event()
        self._is_over = Event()
        self._heard: SimpleQueue[tuple[str, Answer | BaseException]] = SimpleQueue()

    def answer(self, endpoints: list[Endpoint]) -> Answer:
        """The first good answer.

        The first on the list has a head start; the others are asked as soon as it fails, or is slow.
        """
        from threading import Thread

        from firstkey.metadata.transport import Conversation

        conversations = [Conversation(endpoint) for endpoint in endpoints]
        threads = []
        try:
            for number, conversation in enumerate(conversations):
                thread = Thread(target=self._converse, args=(conversation, number * HEAD_START), daemon=True)
                thread.start()
                threads.append(thread)
            return self._first_good([endpoint.url for endpoint in endpoints])
        finally:
            self._is_over.set()
            self._has_failed.set()
            for conversation in conversations:
                conversation.stop()
            for thread in threads:
                thread.join()

    def _first_good(self, silent: list[str]) -> Answer:
        """The first good answer, or else what the faults of all endpoints come to."""
        from queue import Empty

        faults: list[FirstkeyError] = []
        final: list[FirstkeyError] = []
        while silent:
            try:
                heard = self._heard.get(timeout=GRACE if final else None)
            except Empty:
                break
            url, result = heard
            silent.remove(url)
            if isinstance(result, Answer):
                return result
            if not isinstance(result, FirstkeyError):
                raise result
            (faults if isinstance(result, Retriable) else final).append(result)
        if final:
            raise final[0]
        # One that was asked and failed tells more than one that could not be asked.
        known = [fault.reason for fault in faults if fault.reason != reasons.IMDS_UNREACHABLE]
        text = "; ".join(fault.message for fault in faults)
        raise Retriable(text, reason=known[0] if known else reasons.IMDS_UNREACHABLE)

    def _converse(self, conversation: Conversation, head_start: float) -> None:
        """What the thread of one endpoint does."""
        self._has_failed.wait(head_start)
        if self._is_over.is_set():
            return
        result: Answer | BaseException
        try:
            result = self._attempts(conversation)
        except BaseException as error:  # noqa: BLE001 - raised again where it is heard
            result = error
        if not isinstance(result, Answer):
            self._has_failed.set()
        self._heard.put((conversation.endpoint.url, result))

    def _attempts(self, conversation: Conversation) -> Answer:
        """Ask one endpoint until there is an answer or no time is left."""
        import random

        from firstkey.metadata.inquiry import Inquiry

        client, limit, url = self._client, self._limit, conversation.endpoint.url
        started = client.clock()
        cause: Retriable | None = None
        pause = FIRST_PAUSE
        while True:
            was_fair = limit.left > LEAST_FAIR
            inquiry = Inquiry(
                conversation, client.settings, tokens=client.tokens, say=self._say, deadline=limit
            )
            try:
                return inquiry.answer()
            except Retriable as fault:
                # An attempt that the deadline cut short tells less than the one before it.
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
            longest = LONGEST_PAUSE if client.clock() - started < LATE else LONGEST_LATE_PAUSE
            pause = min(pause, longest)
            seconds = min(pause * random.uniform(0.8, 1.0), left)  # noqa: S311 - nothing secret
            pause *= PAUSE_GROWTH
            why = {"detail": cause.message, "reason": cause.reason.code}
            self._say(events.IMDS_RETRY(endpoint=url, pause=f"{seconds:.2f}", **why))
            (client.sleep or self._is_over.wait)(seconds)

    def _say(self, entry: Entry) -> None:
        """Say a fallback once, and not at each attempt."""
        with self._saying:
            if self._is_over.is_set():
                return
            if entry.event is events.IMDS_FALLBACK:
                same = (entry.fields["reason"], entry.fields["endpoint"])
                if same in self._client.fallbacks:
                    return
                self._client.fallbacks.add(same)
            self._client.say(entry)
