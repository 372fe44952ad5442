"""What the metadata service may answer, as functions from bytes to values: nothing in it is trusted.

Sources: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and
"Instance metadata categories".
"""

from __future__ import annotations

import re

from firstkey.named_tuple import NamedTuple

TOKEN_LIMIT = 1024
"""Bytes of a token. AWS gives no limit; genuine ones have 56."""

MOST_KEYS = 64
"""Lines of the index. EC2 itself lists one; more come from services that imitate it."""

NAME_LIMIT = 255
"""Characters of a key pair's name (AWS EC2 API, CreateKeyPair)."""

_INDEX_LINE = re.compile(r"([0-9]{1,9})=([^\x00-\x1f\x7f-\x9f\u2028\u2029]*)")


class Listed(NamedTuple):
    """One line of the index of keys."""

    number: str
    name: str


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
    """The lines `INDEX=NAME` of public-keys/ in the order of their numbers. Raises ValueError."""
    lines = body.decode("utf-8", errors="replace").rstrip("\r\n").split("\n")
    if lines == [""]:
        return ()
    if len(lines) > MOST_KEYS:
        raise ValueError(f"the list of keys has more than {MOST_KEYS} lines")
    listed = sorted((_listed(line.rstrip("\r")) for line in lines), key=lambda key: int(key.number))
    if len({key.number for key in listed}) < len(listed):
        raise ValueError("the list of keys has one index twice")
    return tuple(listed)


def _listed(line: str) -> Listed:
    parts = _INDEX_LINE.fullmatch(line)
    if not parts:
        raise ValueError(f"{quoted(line.encode())} is no line INDEX=NAME of a list of keys")
    return Listed(parts[1], parts[2][:NAME_LIMIT])


def quoted(body: bytes) -> str:
    """The beginning of something untrusted, safe to print."""
    return ascii(body[:60].decode("utf-8", errors="replace")) + ("..." if len(body) > 60 else "")
