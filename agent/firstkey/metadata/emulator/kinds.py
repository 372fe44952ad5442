"""The kinds of faults: what can go wrong with the metadata service, or with what stands in its place.

Each turns the settings or the finished answer of one request into worse ones. Nothing here
touches a socket: `server` carries out what a `Delivery` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Union

from firstkey.metadata.emulator.rules import Reply, Request, Settings, error

Value = Union[str, float]

A_DAY = 86400.0  # seconds
MIB = 1 << 20
LOGIN_PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Guests: log in.</body></html>\n"
NOT_AN_INDEX = b"\x1b[31mno=index\nhere\n=\n"
NOT_A_KEY = "ssh-ed25519 this-is-not-base64! broken"


class Delivery(NamedTuple):
    """A reply, and how it is brought to the client. Times are seconds."""

    reply: Reply
    wait: float = 0.0  # before the first byte
    head_pause: float = 0.0  # after each byte of status line and headers
    body_pause: float = 0.0  # after each byte of the body
    claimed_length: int | None = None  # in place of the body's real length
    endless: bool = False  # the body never ends
    reset: bool = False  # RST in place of an answer
    silent: bool = False  # no answer, but the connection stays open


# --- what a value can be ----------------------------------------------------------------------


def _is_nothing(value: Value) -> bool:
    return value == ""


def _is_time(value: Value) -> bool:
    return 0 <= float(value) <= A_DAY


def _is_time_or_for_ever(value: Value) -> bool:
    return _is_time(value) or float(value) == math.inf


def _is_count(value: Value) -> bool:
    return int(value) == float(value) >= 0


def _fits_memory(value: Value) -> bool:
    return _is_count(value) and int(value) <= 16 * MIB


def _is_status(value: Value) -> bool:
    # Left out: 1xx would only announce another answer, 204 and 304 have no body (RFC 9110).
    return _is_count(value) and 200 <= int(value) <= 599 and int(value) not in (204, 304)


def _is_header_text(value: Value) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != ""


# --- which requests a fault concerns ----------------------------------------------------------


def _any(_: Request) -> bool:
    return True


def _shows_token(request: Request) -> bool:
    return request.token is not None and not request.asks_for_token


def _asks_for_index(request: Request) -> bool:
    return request.path.rstrip("/").endswith("/public-keys")


def _asks_for_key(request: Request) -> bool:
    return request.path.endswith("/openssh-key")


def _asks_about_keys(request: Request) -> bool:
    return "/public-keys" in request.path


# --- what faults do ---------------------------------------------------------------------------


def _unchanged(settings: Settings, _: Value) -> Settings:
    return settings


def _unspoiled(delivery: Delivery, _: Value) -> Delivery:
    return delivery


def _limit_uses(settings: Settings, value: Value) -> Settings:
    return replace(settings, token_uses=int(value))


def _garble_keys(settings: Settings, _: Value) -> Settings:
    return replace(settings, keys=tuple((name, NOT_A_KEY) for name, _ in settings.keys))


def _add_bad_key(settings: Settings, _: Value) -> Settings:
    return replace(settings, keys=(("broken", NOT_A_KEY), *settings.keys))


def _say(delivery: Delivery, body: bytes, content_type: str = "text/plain") -> Delivery:
    return delivery._replace(reply=Reply(200, body, content_type))


def _nul_bytes(delivery: Delivery, _: Value) -> Delivery:
    return _say(delivery, bytes(max(1, len(delivery.reply.body))))


def _redirect(delivery: Delivery, value: Value) -> Delivery:
    return _add_headers(delivery._replace(reply=error(302)), ("Location", str(value)))


def _cut(delivery: Delivery, value: Value) -> Delivery:
    return delivery._replace(claimed_length=len(delivery.reply.body) + int(value))


def _many_headers(delivery: Delivery, value: Value) -> Delivery:
    return _add_headers(delivery, *((f"X-Filler-{number}", "filler") for number in range(int(value))))


def _add_headers(delivery: Delivery, *headers: tuple[str, str]) -> Delivery:
    reply = delivery.reply
    return delivery._replace(reply=reply._replace(headers=(*reply.headers, *headers)))


class Kind(NamedTuple):
    """One kind of fault: what people read about it, and how it does its harm."""

    summary: str  # one line, for the help and the documentation
    value: str = ""  # what stands behind "=" there; empty: nothing does
    default: Value = ""
    check: Callable[[Value], bool] = _is_nothing  # may raise ValueError or OverflowError, too
    concerns: Callable[[Request], bool] = _any
    change: Callable[[Settings, Value], Settings] = _unchanged
    spoil: Callable[[Delivery, Value], Delivery] = _unspoiled


# The order is the one in which the faults of an answer act: first what it says, then how long it
# is said to be, so that any can be combined. Where two contradict each other, the later stands.
FAULTS: dict[str, Kind] = {
    "refuse": Kind(
        "connections are refused, for so many seconds after the start or for ever",
        value="SECONDS",
        default=math.inf,
        check=_is_time_or_for_ever,
    ),
    "reset": Kind(
        "the connection is reset in place of an answer",
        spoil=lambda delivery, _: delivery._replace(reset=True),
    ),
    "silence": Kind(
        "connections are accepted and never answered",
        spoil=lambda delivery, _: delivery._replace(silent=True),
    ),
    "token-silence": Kind(
        "only token requests are never answered, as with too small a hop limit",
        concerns=lambda request: request.asks_for_token,
        spoil=lambda delivery, _: delivery._replace(silent=True),
    ),
    "delay": Kind(
        "the answer comes so many seconds late",
        value="SECONDS",
        default=1,
        check=_is_time,
        spoil=lambda delivery, value: delivery._replace(wait=float(value)),
    ),
    "drip": Kind(
        "the answer comes one byte every so many seconds, headers included",
        value="SECONDS",
        default=1,
        check=_is_time,
        spoil=lambda delivery, value: delivery._replace(head_pause=float(value), body_pause=float(value)),
    ),
    "drip-body": Kind(
        "the headers come at once, the body one byte every so many seconds",
        value="SECONDS",
        default=1,
        check=_is_time,
        spoil=lambda delivery, value: delivery._replace(body_pause=float(value)),
    ),
    "expired-tokens": Kind(
        "a token is good for so many requests, then it has expired (401)",
        value="USES",
        default=0,
        check=_is_count,
        concerns=_shows_token,
        change=_limit_uses,
    ),
    "bad-key": Kind("every key is garbage", concerns=_asks_for_key, change=_garble_keys),
    "bad-neighbour": Kind(
        "one more key is offered, before the others, and it is garbage",
        concerns=_asks_about_keys,
        change=_add_bad_key,
    ),
    "bad-index": Kind(
        "the list of keys is garbage",
        concerns=_asks_for_index,
        spoil=lambda delivery, _: _say(delivery, NOT_AN_INDEX),
    ),
    "binary": Kind("the answer consists of NUL bytes, with status 200", spoil=_nul_bytes),
    "html": Kind(
        "the answer is the login page of a captive portal, with status 200",
        spoil=lambda delivery, _: _say(delivery, LOGIN_PAGE, "text/html"),
    ),
    "status": Kind(
        "the answer is an error page with this status",
        value="STATUS",
        default=500,
        check=_is_status,
        spoil=lambda delivery, value: delivery._replace(reply=error(int(value))),
    ),
    "redirect": Kind(
        "the answer is a redirect (302) to this address",
        value="URL",
        default="http://192.0.2.1/login",
        check=_is_header_text,
        spoil=_redirect,
    ),
    "endless": Kind(
        "the body never ends, and its length is not said",
        spoil=lambda delivery, _: delivery._replace(endless=True),
    ),
    "huge": Kind(
        "the body is said to have so many bytes, and does not end",
        value="BYTES",
        default=1 << 40,
        check=_is_count,
        spoil=lambda delivery, value: delivery._replace(endless=True, claimed_length=int(value)),
    ),
    "truncated": Kind(
        "the connection is closed so many bytes before the body's end",
        value="BYTES",
        default=10,
        check=_is_count,
        spoil=_cut,
    ),
    "long-header": Kind(
        "one header has so many bytes",
        value="BYTES",
        default=MIB,
        check=_fits_memory,
        spoil=lambda delivery, value: _add_headers(delivery, ("X-Filler", "x" * int(value))),
    ),
    "many-headers": Kind(
        "there are so many headers",
        value="COUNT",
        default=1000,
        check=_fits_memory,
        spoil=_many_headers,
    ),
}
