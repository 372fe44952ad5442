"""HTTP as bytes: requests read off a connection, answers laid out for it.

Written out here, since `http.server` would mend or refuse most of what the faults ask for.
"""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Iterator
from email.utils import formatdate
from typing import BinaryIO

from firstkey.metadata.emulator.kinds import Delivery
from firstkey.metadata.emulator.rules import Request, phrase

LONGEST_LINE = 8192  # bytes of a request line; common servers take as much
LONGEST_BODY = 65536  # bytes of a request's body; no request here needs any
FILLER = b"filler. " * 1024


def read_request(line: bytes, reader: BinaryIO) -> Request | None:
    """The request that begins with `line`, its body skipped; None if it is malformed."""
    words = line.decode("latin-1").split()
    if not line.endswith(b"\n") or len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    try:
        message = http.client.parse_headers(reader)
    except http.client.HTTPException:
        return None
    headers = {name.lower(): value for name, value in message.items()}
    # A body left unread would make the kernel answer with a reset when the socket is closed.
    length = headers.get("content-length", "0")
    reader.read(min(int(length), LONGEST_BODY) if length.isdecimal() else 0)
    return Request(words[0], words[1].partition("?")[0], headers)


def head(delivery: Delivery, *, keep: bool) -> bytes:
    """Status line and headers, with the blank line behind them."""
    reply = delivery.reply
    lines = [
        f"HTTP/1.1 {reply.status} {phrase(reply.status)}",
        f"Content-Type: {reply.content_type}",
        "Accept-Ranges: none",
        *(f"{name}: {value}" for name, value in reply.headers),
        *_length(delivery),
        f"Date: {formatdate(usegmt=True)}",
        f"Server: {reply.server}",
        *([] if keep else ["Connection: close"]),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def body(delivery: Delivery) -> Iterator[bytes]:
    """The body in pieces; without end where that was asked for."""
    yield delivery.reply.body
    if delivery.endless:
        yield from itertools.repeat(FILLER)


def ends_connection(request: Request, delivery: Delivery) -> bool:
    """Whether the client wants it so, or could not know where this answer ends and another begins."""
    wanted = request.headers.get("connection", "").lower() == "close"
    odd_length = delivery.claimed_length is not None or delivery.endless
    return wanted or odd_length or delivery.reset or delivery.silent


def _length(delivery: Delivery) -> list[str]:
    if delivery.claimed_length is not None:
        return [f"Content-Length: {delivery.claimed_length}"]
    return [] if delivery.endless else [f"Content-Length: {len(delivery.reply.body)}"]
