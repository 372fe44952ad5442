"""The faults: what can go wrong with the metadata service, or with what stands in its place.

Each turns the settings or the finished answer of one request into worse ones. Nothing here
touches a socket: `server` carries out what a `Delivery` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Union

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


# --- what a value can be: each returns it as what it is; ValueError and OverflowError refuse it ----


def _number(kind: type, most: float, *others: float) -> Callable[[Value], Any]:
    """From 0 to `most`, or one of the others."""

    def read(value: Value) -> Any:  # noqa: ANN401 - a number of that kind
        number = kind(value)
        if number != float(value) or not (0 <= number <= most or number in others):
            raise ValueError
        return number

    return read


_seconds, _count, _size = _number(float, A_DAY), _number(int, math.inf), _number(int, 16 * MIB)


def _nothing(value: Value) -> Value:
    if value:
        raise ValueError
    return value


def _status(value: Value) -> int:
    # Left out: 1xx would only announce another answer, 204 and 304 have no body (RFC 9110).
    if _count(value) not in {*range(200, 600)} - {204, 304}:
        raise ValueError
    return int(value)


def _header_text(value: Value) -> str:
    if not (isinstance(value, str) and value.isascii() and value.isprintable() and value):
        raise ValueError
    return value


# --- what faults do ---------------------------------------------------------------------------


def _sets(*fields: str) -> Callable[[Delivery, Any], Delivery]:
    """Give these fields of the delivery the fault's value."""
    return lambda delivery, value: delivery._replace(**dict.fromkeys(fields, value))


def _says(change: Callable[[Reply, Any], Reply]) -> Callable[[Delivery, Any], Delivery]:
    """Put another reply in place of the good one."""
    return lambda delivery, value: delivery._replace(reply=change(delivery.reply, value))


def _with(reply: Reply, *headers: tuple[str, str]) -> Reply:
    return reply._replace(headers=(*reply.headers, *headers))


class Kind(NamedTuple):
    """One kind of fault: what people read about it, and how it does its harm."""

    summary: str  # one line, for the help and the documentation
    value: str = ""  # what stands behind "=" there; empty: nothing does
    default: Value = ""
    read: Callable[[Value], Any] = _nothing
    spoil: Callable[[Delivery, Any], Delivery] = lambda delivery, _: delivery
    concerns: Callable[[Request], bool] = lambda _: True
    change: Callable[[Settings, Any], Settings] = lambda settings, _: settings


# The order is the one in which the faults of an answer act: first what it says, then how long it
# is said to be, so that any can be combined. Where two contradict each other, the later stands.
FAULTS: dict[str, Kind] = {
    "refuse": Kind(
        "connections are refused, for so many seconds after the start or for ever",
        "SECONDS", math.inf, _number(float, A_DAY, math.inf),
    ),
    "reset": Kind("the connection is reset in place of an answer", spoil=_sets("reset")),
    "silence": Kind("connections are accepted and never answered", spoil=_sets("silent")),
    "token-silence": Kind(
        "only token requests are never answered, as with too small a hop limit",
        spoil=_sets("silent"), concerns=lambda request: request.asks_for_token,
    ),
    "delay": Kind("the answer comes so many seconds late", "SECONDS", 1, _seconds, _sets("wait")),
    "drip": Kind(
        "the answer comes one byte every so many seconds, headers included",
        "SECONDS", 1, _seconds, _sets("head_pause", "body_pause"),
    ),
    "drip-body": Kind(
        "the headers come at once, the body one byte every so many seconds",
        "SECONDS", 1, _seconds, _sets("body_pause"),
    ),
    "expired-tokens": Kind(
        "a token is good for so many requests, then it has expired (401)",
        "USES", 0, _count,
        concerns=lambda request: request.token is not None and not request.asks_for_token,
        change=lambda settings, uses: replace(settings, token_uses=uses),
    ),
    "bad-key": Kind(
        "every key is garbage",
        concerns=lambda request: request.path.endswith("/openssh-key"),
        change=lambda settings, _: replace(settings, keys=(("broken", NOT_A_KEY),) * len(settings.keys)),
    ),
    "bad-neighbour": Kind(
        "one more key is offered, before the others, and it is garbage",
        concerns=lambda request: "/public-keys" in request.path,
        change=lambda settings, _: replace(settings, keys=(("broken", NOT_A_KEY), *settings.keys)),
    ),
    "bad-index": Kind(
        "the list of keys is garbage",
        spoil=_says(lambda *_: Reply(200, NOT_AN_INDEX)),
        concerns=lambda request: request.path.rstrip("/").endswith("/public-keys"),
    ),
    "binary": Kind(
        "the answer consists of NUL bytes, with status 200",
        spoil=_says(lambda reply, _: Reply(200, bytes(max(1, len(reply.body))))),
    ),
    "html": Kind(
        "the answer is the login page of a captive portal, with status 200",
        spoil=_says(lambda *_: Reply(200, LOGIN_PAGE, "text/html")),
    ),
    "status": Kind(
        "the answer is an error page with this status",
        "STATUS", 500, _status, _says(lambda _, status: error(status)),
    ),
    "redirect": Kind(
        "the answer is a redirect (302) to this address",
        "URL", "http://192.0.2.1/login", _header_text,
        _says(lambda _, url: _with(error(302), ("Location", url))),
    ),
    "endless": Kind("the body never ends, and its length is not said", spoil=_sets("endless")),
    "huge": Kind(
        "the body is said to have so many bytes, and does not end",
        "BYTES", 1 << 40, _count,
        lambda delivery, size: delivery._replace(endless=True, claimed_length=size),
    ),
    "truncated": Kind(
        "the connection is closed so many bytes before the body's end",
        "BYTES", 10, _count,
        lambda delivery, missing: delivery._replace(claimed_length=len(delivery.reply.body) + missing),
    ),
    "long-header": Kind(
        "one header has so many bytes",
        "BYTES", MIB, _size, _says(lambda reply, size: _with(reply, ("X-Filler", "x" * size))),
    ),
    "many-headers": Kind(
        "there are so many headers",
        "COUNT", 1000, _size,
        _says(lambda reply, count: _with(reply, *((f"X-Filler-{n}", "filler") for n in range(count)))),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault, as `FAULTS` lists them, limited or not. Raises ValueError for what cannot be.

    `value` is a number or text as its kind wants it, None for the kind's default. `first`: only
    the first so many of the requests that it concerns; None: all. `path`: only requests whose
    path starts like that.
    """

    name: str
    value: Value | None = None
    first: int | None = None
    path: str = ""

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"no fault is called {self.name!r}; there are: {', '.join(FAULTS)}")
        try:
            _ = self.amount
        except (ValueError, OverflowError):
            message = f"{self.value!r} is no value for a fault; it is written: {usage(self.name)}"
            raise ValueError(message) from None
        if self.first is not None and self.first < 1:
            raise ValueError(f"first={self.first} would be no fault at all; it starts with 1")
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"path={self.path} matches no request: paths start with /")
        if self.name == "refuse" and (self.first or self.path):
            raise ValueError("a refused connection brings no request, so first= and path= mean nothing")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault as the command line has it: `NAME[=VALUE][,first=N][,path=PREFIX]`."""
        head, *options = text.split(",")
        name, _, value = head.partition("=")
        limits = dict(option.partition("=")[::2] for option in options)
        first, path = limits.pop("first", None), limits.pop("path", "")
        if limits or (first is not None and not first.isdecimal()):
            raise ValueError(f"{text!r}: a fault is limited by ,first=N and ,path=PREFIX only")
        return cls(name, value or None, None if first is None else int(first), path)

    @property
    def kind(self) -> Kind:
        """Its row of `FAULTS`."""
        return FAULTS[self.name]

    @property
    def amount(self) -> Any:  # noqa: ANN401 - as its kind has it
        """The value, or the kind's default, as its kind reads it; empty where it has none."""
        return self.kind.read(self.kind.default if self.value is None else self.value)

    def concerns(self, request: Request) -> bool:
        """Whether the request is one that this fault spoils, its `first` not yet considered."""
        return request.path.startswith(self.path) and self.kind.concerns(request)


def usage(name: str) -> str:
    """How a fault is written on the command line: `delay=SECONDS`."""
    value = FAULTS[name].value
    return f"{name}={value}" if value else name


def changed(settings: Settings, faults: Iterable[Fault]) -> Settings:
    """The settings as the faults make the service see them."""
    for fault in faults:
        settings = fault.kind.change(settings, fault.amount)
    return settings


def spoiled(reply: Reply, faults: Iterable[Fault]) -> Delivery:
    """The reply as the faults let it out, one after the other in the order of `FAULTS`."""
    delivery = Delivery(reply)
    for fault in sorted(faults, key=lambda fault: list(FAULTS).index(fault.name)):
        delivery = fault.kind.spoil(delivery, fault.amount if fault.kind.value else True)
    return delivery


def refusal_time(faults: Iterable[Fault]) -> float:
    """For how many seconds connections are refused; infinite for ever, 0 not at all."""
    return max((fault.amount for fault in faults if fault.name == "refuse"), default=0.0)
