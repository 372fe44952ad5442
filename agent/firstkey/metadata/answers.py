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
    """One line of the index of keys. `flaw` says what is wrong with lines that no key is asked for."""

    number: str
    name: str
    flaw: str = ""


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
    """The lines `INDEX=NAME` of public-keys/ in the order of their numbers, then what is wrong with others.

    Raises ValueError where no line is one, or there are too many: then this is no list at all.
    """
    lines = [line.rstrip("\r") for line in body.decode("utf-8", errors="replace").rstrip("\r\n").split("\n")]
    if len(lines) > MOST_KEYS:
        raise ValueError(f"the list of keys has more than {MOST_KEYS} lines")
    bad: list[str] = []
    twice: list[str] = []
    listed: dict[str, Listed] = {}
    for line in filter(None, lines):
        parts = _INDEX_LINE.fullmatch(line)
        if not parts:
            bad.append(line)
        elif parts[1] in listed:
            twice.append(line)
        else:
            listed[parts[1]] = Listed(parts[1], parts[2][:NAME_LIMIT])
    if bad and not listed:
        raise ValueError(_flaw(bad, "is no line INDEX=NAME of a list of keys"))
    ordered = sorted(listed.values(), key=lambda key: int(key.number))
    flaws = (
        _flaw(bad, "is no line INDEX=NAME of a list of keys"),
        _flaw(twice, "has an index that the list of keys has already"),
    )
    return (*ordered, *(Listed("?", "", flaw) for flaw in flaws if flaw))


def _flaw(lines: list[str], what: str) -> str:
    """One sentence for all of them: there may be thousands."""
    if not lines:
        return ""
    others = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{quoted(lines[0].encode())}{others} {what}"


def quoted(body: bytes) -> str:
    """The beginning of something untrusted, safe to print."""
    return ascii(body[:60].decode("utf-8", errors="replace")) + ("..." if len(body) > 60 else "")
