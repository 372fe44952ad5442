"""The words of the metadata client: what it is told, what it answers, what it tells on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from firstkey import model
from firstkey.errors import Unreachable
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Reason

FAIR_TRIAL = 0.1
"""Seconds that a token request must have had before silence is taken for a hop limit."""


class Settings(NamedTuple):
    """How the metadata service is asked. Times in seconds.

    `endpoints` are `http://IP[:PORT]`, the preferred one first. `version` is "auto", "2" or "1".
    `request_timeout` limits one request, its answer included.
    """

    endpoints: tuple[str, ...] = ("http://169.254.169.254", "http://[fd00:ec2::254]")
    version: str = "auto"
    token_ttl: int = 21600
    request_timeout: float = 2.0


OfferedKey = model.OfferedKey


class Identity(NamedTuple):
    """Which instance the metadata service says this is, and who said so.

    `version` is the one that was spoken, 1 or 2; `fallback_reason` says why it is 1 where "auto" was asked.
    """

    instance_id: str
    endpoint: str
    version: int
    fallback_reason: Optional[Reason]  # noqa: UP045 - as above


class Answer(NamedTuple):
    """All that the metadata service says. No keys: the instance was launched without a key pair."""

    instance_id: str
    endpoint: str
    version: int
    fallback_reason: Optional[Reason]  # noqa: UP045 - as above
    keys: tuple[OfferedKey, ...]


class Notice(NamedTuple):
    """Something that happened on the way to an answer, for the journal.

    `kind` is "request" (the one that `detail` names was answered with `status` after `seconds`), "fallback"
    (no token could be had, so requests go without), "retry" (all is tried again in `pause` seconds) or
    "endpoint" (this one answered).
    """

    kind: str
    reason: Optional[Reason]  # noqa: UP045 - as above
    detail: str
    endpoint: str
    pause: float = 0.0
    status: int = 0
    seconds: float = 0.0


class Retriable(Unreachable):
    """No answer this time; one may come if the same is asked again."""


class NoAnswer(Retriable):
    """The connection was accepted, and the request stayed unanswered until its time was over."""


Tell = Callable[[Notice], None]


def ignore(_: Notice) -> None:
    """Tell nobody."""
