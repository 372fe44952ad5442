"""The metadata client as tests use it, with everything that it told.

It is patient, so that a busy machine is no failure; a test of something that never comes says how soon it
gives up.
"""

from __future__ import annotations

import socket
import time
from typing import Any, NamedTuple, Union

import pytest

from firstkey.errors import FirstkeyError
from firstkey.metadata.client import Answer, Client, Notice, Settings

HANG = 60.0
"""Seconds that nothing here may take. Only a hang takes as long, however busy the machine is."""


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6 on the loopback interface")
HOSTS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


class Outcome(NamedTuple):
    """How a question ended."""

    answer: Union[Answer, None]  # noqa: UP007 - evaluated on Python 3.9
    error: Union[FirstkeyError, None]  # noqa: UP007 - as above
    told: list[Notice]
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
    def news(self) -> list[Notice]:
        """What was told but for the requests."""
        return [notice for notice in self.told if notice.kind != "request"]

    def of_kind(self, kind: str) -> list[Notice]:
        """What was told of that kind."""
        return [notice for notice in self.told if notice.kind == kind]


def ask(*urls: str, wait: float = 20.0, **settings: Any) -> Outcome:
    """Ask the endpoints until there is an answer, or for `wait` seconds."""
    told: list[Notice] = []
    chosen = Settings(endpoints=urls, request_timeout=8.0)._replace(**settings)
    client = Client(chosen, tell=told.append)
    started = time.monotonic()
    try:
        answer, error = client.ask(deadline=started + wait), None
    except FirstkeyError as fault:
        answer, error = None, fault
    seconds = time.monotonic() - started
    assert seconds < HANG
    return Outcome(answer, error, told, seconds)
