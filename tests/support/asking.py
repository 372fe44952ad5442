"""The metadata client as tests use it, with everything that it told.

It is patient, so that a busy machine is no failure: what is to be answered has a minute. A test of
something that is never answered says after how many attempts it gives up, not after how many seconds.
"""

from __future__ import annotations

import socket
import time
from typing import Any, NamedTuple, Union

import pytest

from firstkey import config
from firstkey.events import Entry
from firstkey.metadata.client import Client
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError

HANG = 100.0
"""Seconds that nothing here may take. Only a hang takes as long, however busy the machine is."""

PATIENCE = 60.0
"""Seconds that one request may take, unless a test says otherwise: an answer that comes is never too late."""

SILENCE = 3.0
"""The same where a test must sit out a silence, and needs an answer to another request all the same."""


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6 on the loopback interface")
HOSTS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


def asking(**settings: Any) -> config.Imds:
    """The settings of a client: those of the table, but for these."""
    return config.read([]).imds._replace(**settings)


def kind(entry: Entry) -> str:
    """`request`, `retry` or `fallback`: what an event of a client is about."""
    return entry.event.name.removeprefix("imds-")


class Outcome(NamedTuple):
    """How a question ended."""

    answer: Union[Answer, None]  # noqa: UP007 - evaluated on Python 3.9
    error: Union[FirstkeyError, None]  # noqa: UP007 - as above
    logged: list[Entry]
    seconds: float

    @property
    def code(self) -> str:
        """The reason of a failure, or "ok"."""
        return self.error.reason.code if self.error else "ok"

    @property
    def good(self) -> Answer:
        """The answer, which must be there."""
        assert self.answer, self.error
        return self.answer

    @property
    def news(self) -> list[Entry]:
        """What was said but for the requests."""
        return [entry for entry in self.logged if kind(entry) != "request"]

    def of_kind(self, wanted: str) -> list[dict[str, str]]:
        """The fields of what was said of that kind."""
        return [entry.fields for entry in self.logged if kind(entry) == wanted]


class Attempts:
    """A clock on which the deadline comes right after so many attempts failed at each of the endpoints.

    To be given to a client as its `clock` and `log`. `told` has its events.
    """

    def __init__(self, most: int, *urls: str) -> None:
        self.logged: list[Entry] = []
        self._left = dict.fromkeys(urls, most)

    def clock(self) -> float:
        """Seconds, which leap far ahead once the attempts are used up."""
        return time.monotonic() + (0.0 if any(left > 0 for left in self._left.values()) else 1e6)

    def log(self, entry: Entry) -> None:
        """Count the attempts: each that failed is said when the next one is announced."""
        self.logged.append(entry)
        if kind(entry) == "retry":
            self._left[entry.fields["endpoint"]] -= 1


def ask(*urls: str, wait: float = PATIENCE, attempts: int = 1000, **settings: Any) -> Outcome:
    """Ask the endpoints until there is an answer, for `wait` seconds, or until so many attempts failed."""
    chosen = asking(endpoints=urls, request_timeout=PATIENCE)._replace(**settings)
    counted = Attempts(attempts, *urls)
    client = Client(chosen, log=counted.log, clock=counted.clock)
    started = time.monotonic()
    try:
        answer, error = client.ask(deadline=started + wait), None
    except FirstkeyError as fault:
        answer, error = None, fault
    seconds = time.monotonic() - started
    assert seconds < HANG
    return Outcome(answer, error, counted.logged, seconds)
