"""What the metadata service is asked and may answer, as values; nothing in an answer is trusted.

Sources: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and
"Instance metadata categories".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional

from firstkey import NamedTuple, reasons
from firstkey.events import Entry
from firstkey.model import OfferedKey
from firstkey.reasons import Reason, Refusal, Unreachable

TOKEN_LIMIT = 1024
"""Bytes of a token. AWS gives no limit; genuine ones have 56."""

MOST_KEYS = 64
"""Lines of the list of keys. EC2 itself lists one; more come from services that imitate it."""

NAME_LIMIT = 255
"""Characters of a key pair's name (AWS EC2 API, CreateKeyPair)."""

_INDEX_LINE = re.compile(r"([0-9]{1,9})(?:=([^\x00-\x1f\x7f-\x9f\u2028\u2029]*)|/)")
_KEY_LINE = re.compile(r"[a-z][a-z0-9@.-]{1,63} AAAA[A-Za-z0-9+/]{16,}={0,2}(?: .*)?")


class Answer(NamedTuple):
    """What the metadata service says. No keys: the instance was launched without a key pair, or the service
    told which instance this is, and no more.

    `version` is the one that was spoken, 1 or 2; `fallback_reason` says why it is 1 where "auto" was asked.
    """

    instance_id: str
    endpoint: str
    version: int
    fallback_reason: Optional[Reason]  # noqa: UP045 - evaluated where tests make one by its type
    keys: tuple[OfferedKey, ...] = ()


class Retriable(Unreachable):
    """No answer this time; one may come if the same is asked again."""


class NoAnswer(Retriable):
    """The connection was accepted, and the request stayed unanswered until its time was over."""


Say = Callable[[Entry], None]


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


def index(body: bytes) -> tuple[OfferedKey, ...]:
    """The keys of the lines `INDEX=NAME` of public-keys/ in the order of their numbers; then lines that are
    none, refused. The text of the keys is still to be asked for.

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
        parts[1]: OfferedKey(parts[1], (parts[2] or "")[:NAME_LIMIT], b"")
        for parts in matched.values()
        if parts
    }
    if not listed and any(map(_KEY_LINE.fullmatch, lines)):
        return tuple(OfferedKey(str(number), "", f"{line}\n".encode()) for number, line in enumerate(lines))
    bad = [
        f"{quoted(line.encode())} is no line INDEX=NAME of a list of keys"
        for line, parts in matched.items()
        if not parts
    ]
    if bad and not listed:
        raise ValueError(bad[0])
    ordered = sorted(listed.values(), key=lambda key: int(key.number))
    return (*ordered, *(OfferedKey("?", "", b"", Refusal(reasons.BAD_ANSWER, why)) for why in bad))


def quoted(body: bytes) -> str:
    """The beginning of something untrusted, safe to print."""
    return ascii(body[:60].decode("utf-8", errors="replace")) + ("..." if len(body) > 60 else "")
