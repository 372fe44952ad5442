"""The client of the metadata service: it asks which instance this is, and which launch keys it has.

Here: the endpoints, and for how long and how often they are asked. `inquiry` has what is asked of one
of them, `transport` connections and HTTP, `answers` what may come back.

Importing this module costs next to nothing. `requests`, which takes longer to load than the rest of a
run that finds nothing to do, comes with the first question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError, Unreachable
from firstkey.metadata.answers import (
    Answer,
    Identity,
    NoAnswer,
    Notice,
    Retriable,
    Settings,
    Tell,
)

if TYPE_CHECKING:
    from queue import SimpleQueue
    from threading import Thread
    from typing import Union

    from firstkey.metadata.inquiry import Token
    from firstkey.metadata.transport import Conversation, Deadline, Endpoint

    Ended = tuple[Endpoint, Union[Answer, BaseException], Union[Identity, None]]

__all__ = ["Answer", "Client", "Identity", "NoAnswer", "Notice", "Retriable", "Settings"]

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
"""Seconds, at least, that an endpoint still has once another one has failed, before that is asked again."""


class Client:
    """Asks the metadata service. Keeps tokens, but no connection, from one question to the next.

    `tell` gets a Notice of each thing that happens on the way. Raises FirstkeyError (config-invalid) for
    settings that cannot be. Each endpoint is asked in a thread of its own, which ends with the question, so
    the process may fork between two of them. `identity` is what the service said last of the instance, also
    where it did not tell the keys.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tell: Tell = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        _load_transport()
        from firstkey.metadata.transport import Endpoint

        if settings.version not in ("auto", "2", "1"):
            text = f"Version={settings.version} is no version of the metadata service: auto, 2 or 1"
            raise FirstkeyError(text, reason=reasons.CONFIG_INVALID)
        if not settings.endpoints:
            text = "no endpoint of the metadata service is given"
            raise FirstkeyError(text, reason=reasons.CONFIG_INVALID)
        self._settings = settings
        self._endpoints = [Endpoint.parse(url) for url in dict.fromkeys(settings.endpoints)]
        self._urls = " ".join(endpoint.url for endpoint in self._endpoints)
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self.identity: Identity | None = None
        self._tokens: dict[str, Token] = {}
        self._told: set[tuple[object, ...]] = set()
        self._running: dict[Endpoint, tuple[Conversation, Thread]] = {}
        self._heard: SimpleQueue[Notice | Ended]

    def ask(self, *, deadline: float | None, known: str | None = None) -> Answer:
        """Ask until there is an answer or the deadline (on the clock; None: never) has passed.

        Raises Unreachable at the deadline, with the reason of the last full attempt, and FirstkeyError at
        once for an answer that is final (switched off, no metadata service at all, ...). Where the service
        says that this is another instance than `known`, and no more than that, Retriable at once: that is
        worth knowing before the keys can be had.
        """
        started = self._clock()
        limit = self._begin(deadline)
        pauses = _pauses(lambda: self._clock() - started)
        cause: Retriable | None = None
        try:
            while True:
                was_fair = limit.left > LEAST_FAIR
                pause = next(pauses)
                try:
                    return self._attempt(limit, grace=max(GRACE, pause))
                except Retriable as fault:
                    if known and self.identity and self.identity.instance_id != known:
                        raise
                    # An attempt that the deadline cut short tells less than the one before it.
                    if cause is None or (was_fair and limit.left > 0):
                        cause = fault
                if limit.left < LAST_ATTEMPT + SHORTEST_PAUSE:
                    seconds = self._clock() - started
                    text = f"no usable answer of the metadata service in {seconds:.1f} s; {cause.message}"
                    raise Unreachable(text, reason=cause.reason)
                # Where an endpoint has not answered yet, the pause was the wait for it.
                pause = 0.0 if self._running else min(pause, limit.left - LAST_ATTEMPT)
                self._tell(Notice("retry", cause.reason, cause.message, self._urls, pause))
                if pause:
                    self._sleep(pause)
        finally:
            self._stop()

    def ask_once(self, *, deadline: float) -> Answer:
        """Ask all endpoints once.

        Raises Retriable for what `ask` would try again, and otherwise what `ask` raises.
        """
        limit = self._begin(deadline)
        try:
            return self._attempt(limit, grace=GRACE)
        finally:
            self._stop()

    def close(self) -> None:
        """Forget the tokens. The client may be used again."""
        self._tokens.clear()

    def _begin(self, deadline: float | None) -> Deadline:
        from queue import SimpleQueue

        from firstkey.metadata.transport import Deadline

        self._heard = SimpleQueue()
        return Deadline(float("inf") if deadline is None else deadline, self._clock)

    def _attempt(self, limit: Deadline, *, grace: float) -> Answer:
        """The first good answer of any endpoint.

        The first on the list has a head start; the others are asked as soon as it fails, or is slow. Once
        one has failed, the others have the grace; those that have not ended then go on meanwhile.
        """
        from queue import Empty

        faults: dict[Endpoint, FirstkeyError] = {}
        waiting = [endpoint for endpoint in self._endpoints if endpoint not in self._running]
        while waiting or self._running:
            if waiting and (faults or not self._running):
                self._start(waiting.pop(0), limit)
                continue
            try:
                heard = self._heard.get(timeout=HEAD_START if waiting else grace if faults else None)
            except Empty:
                if not waiting:
                    break
                self._start(waiting.pop(0), limit)
                continue
            if isinstance(heard, Notice):
                self._tell_once(heard)
                continue
            endpoint, result, identity = heard
            self._running.pop(endpoint)[1].join()
            self.identity = identity or self.identity
            if isinstance(result, Answer):
                self._tell_once(Notice("endpoint", None, f"IMDSv{result.version}", endpoint.url))
                return result
            if not isinstance(result, FirstkeyError):
                raise result
            faults[endpoint] = result
        raise _verdict(faults, [endpoint.url for endpoint in self._running])

    def _start(self, endpoint: Endpoint, limit: Deadline) -> None:
        from threading import Thread

        from firstkey.metadata.transport import Conversation

        conversation = Conversation(endpoint)
        thread = Thread(target=self._inquire, args=(conversation, limit), daemon=True)
        self._running[endpoint] = (conversation, thread)
        thread.start()

    def _inquire(self, conversation: Conversation, limit: Deadline) -> None:
        """What the thread does; all that it tells, and how it ends, is heard by the one that asks."""
        from firstkey.metadata.inquiry import Inquiry

        hear = self._heard.put
        inquiry = Inquiry(conversation, self._settings, tokens=self._tokens, tell=hear, deadline=limit)
        result: Answer | BaseException
        try:
            result = inquiry.answer()
        except BaseException as error:  # noqa: BLE001 - raised again where it is heard
            result = error
        conversation.close()
        hear((conversation.endpoint, result, inquiry.identity))

    def _stop(self) -> None:
        """End the threads: nobody waits for their answers any more."""
        for conversation, _ in self._running.values():
            conversation.stop()
        for _, thread in self._running.values():
            thread.join()
        self._running.clear()

    def _tell_once(self, notice: Notice) -> None:
        """Tell what would be the same at each attempt; each request is one of its own."""
        same = (notice.kind, notice.reason, notice.endpoint)
        if notice.kind == "request" or same not in self._told:
            self._told.add(same)
            self._tell(notice)


def _verdict(faults: dict[Endpoint, FirstkeyError], silent: list[str]) -> FirstkeyError:
    """What the faults of all endpoints come to: the first that is final, or all of them."""
    final = [fault for fault in faults.values() if not isinstance(fault, Retriable)]
    if final:
        return final[0]
    # One that was asked and failed tells more than one that could not be asked.
    known = [fault.reason for fault in faults.values() if fault.reason != reasons.IMDS_UNREACHABLE]
    text = "; ".join(
        [fault.message for fault in faults.values()] + [f"{url}: no answer yet" for url in silent]
    )
    return Retriable(text, reason=known[0] if known else reasons.IMDS_UNREACHABLE)


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
