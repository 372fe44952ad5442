"""What the metadata service is asked and may answer, as values; nothing in an answer is trusted.

Sources: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and
"Instance metadata categories".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional

from firstkey import NamedTuple
from firstkey.model import OfferedKey
from firstkey.reasons import Reason, Unreachable

TOKEN_LIMIT = 1024
"""Bytes of a token. AWS gives no limit; genuine ones have 56."""

MOST_KEYS = 64
"""Lines of the list of keys. EC2 itself lists one; more come from services that imitate it."""

NAME_LIMIT = 255
"""Characters of a key pair's name (AWS EC2 API, CreateKeyPair)."""

_INDEX_LINE = re.compile(r"([0-9]{1,9})(?:=([^\x00-\x1f\x7f-\x9f\u2028\u2029]*)|/)")
_KEY_LINE = re.compile(r"[a-z][a-z0-9@.-]{1,63} AAAA[A-Za-z0-9+/]{16,}={0,2}(?: .*)?")


class Settings(NamedTuple):
    """How the metadata service is asked. Times in seconds.

    `endpoints` are `http://IP[:PORT]`, the preferred one first. `version` is "auto", "2" or "1".
    `request_timeout` limits one request, its answer included.
    """

    endpoints: tuple[str, ...] = ("http://169.254.169.254", "http://[fd00:ec2::254]")
    version: str = "auto"
    token_ttl: int = 21600
    request_timeout: float = 2.0


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
    (no token could be had, so requests go without) or "retry" (it is asked again in `pause` seconds).
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


class Listed(NamedTuple):
    """One line of the list of keys: `line` is the key itself where a service lists those."""

    number: str
    name: str
    line: str = ""


def token(body: bytes) -> str:
    """A session token. Raises ValueError, without the text: a token is told to nobody."""
    text = body.rstrip(b"\r\n")
    if not re.fullmatch(rb"[\x21-\x7e]{1,%d}" % TOKEN_LIMIT, text):
        raise ValueError("what came in place of a token is none")
    return text.decode("ascii")


def instance_id(body: bytes) -> str:
    """The instance's id. Raises ValueError."""
    text = body.rstrip(b"\r\n")
    if not re.fullmatch(rb"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError(f"{quoted(body)} is no instance-id")
    return text.decode("ascii")


def index(body: bytes) -> tuple[Listed, ...]:
    """The lines `INDEX=NAME` of public-keys/ in the order of their numbers, then lines that are none (`?`).

    amazon-ec2-metadata-mock has `INDEX/`, as for any folder. CloudStack and Exoscale answer with the keys
    themselves, which are numbered here. Raises ValueError where no line is any of these, or there are too
    many: then this is no list at all.
    """
    lines = [line.rstrip("\r") for line in body.decode("utf-8", errors="replace").split("\n")]
    lines = [line for line in lines if line]
    if len(lines) > MOST_KEYS:
        raise ValueError(f"the list of keys has more than {MOST_KEYS} lines")
    matched = {line: _INDEX_LINE.fullmatch(line) for line in lines}
    listed = {
        parts[1]: Listed(parts[1], (parts[2] or "")[:NAME_LIMIT]) for parts in matched.values() if parts
    }
    if not listed and any(map(_KEY_LINE.fullmatch, lines)):
        return tuple(Listed(str(number), "", line) for number, line in enumerate(lines))
    bad = [line for line, parts in matched.items() if not parts]
    if bad and not listed:
        raise ValueError(f"{quoted(bad[0].encode())} is no line INDEX=NAME of a list of keys")
    ordered = sorted(listed.values(), key=lambda key: int(key.number))
    return (*ordered, *(Listed("?", "", line) for line in bad))


def quoted(body: bytes) -> str:
    """The beginning of something untrusted, safe to print."""
    return ascii(body[:60].decode("utf-8", errors="replace")) + ("..." if len(body) > 60 else "")
