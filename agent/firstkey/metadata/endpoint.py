"""Where the metadata service is, and connections to it: TCP alone, nothing of HTTP.

A connection has a deadline, not a timeout: a timeout starts anew with each byte of a dripping server.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from firstkey import reasons, settings
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

ANSWER_LIMIT = 65536
"""Bytes of one answer, status line and headers included. The largest genuine one is an RSA key, 3 KiB."""

HEAD_START = 0.01
"""Seconds that an endpoint listed earlier gets when one listed later accepts first."""


class Deadline:
    """A moment on a clock, in the clock's seconds; infinity is never."""

    def __init__(self, at: float, clock: Callable[[], float]) -> None:
        self.at = at
        self._clock = clock

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.at - self._clock()

    def within(self, seconds: float) -> Deadline:
        """The sooner of this deadline and so many seconds from now."""
        return Deadline(min(self.at, self._clock() + seconds), self._clock)

    def from_now(self, seconds: float) -> Deadline:
        """So many seconds from now on the same clock."""
        return Deadline(self._clock() + seconds, self._clock)


class Endpoint(NamedTuple):
    """One address of the metadata service."""

    url: str
    address: tuple[str, int]

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`http://IP[:PORT]`; raises FirstkeyError for all else, a name above all: none is ever looked up."""
        try:
            url = settings.endpoint(text)
        except ValueError:
            raise FirstkeyError(
                f"{ascii(text)[:100]} is no endpoint of the metadata service: "
                "that is http://ADDRESS or http://ADDRESS:PORT, with a literal IP address",
                reason=reasons.CONFIG_INVALID,
            ) from None
        host, bracket, port = url[len("http://") :].rpartition("]")
        if not bracket:
            host, _, port = port.partition(":")
        return cls(url, (host.lstrip("["), int(port.lstrip(":") or 80)))

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET


# These three are no OSErrors on purpose: the HTTP library translates those, and lets others pass.


class OutOfTime(Exception):  # noqa: N818 - the name of what happened
    """The deadline passed before the answer was complete."""


class TooMuch(Exception):  # noqa: N818 - as above
    """The answer is larger than ANSWER_LIMIT, or has more headers than can be."""


class Lost(Exception):  # noqa: N818 - as above
    """There is no connection (any more); the text says why."""


class BoundedSocket(socket.socket):
    """A connection on which one exchange may last until a deadline and bring ANSWER_LIMIT bytes.

    `received` counts the bytes of the present exchange; `ended` tells that the other side closed.
    """

    received = 0
    ended = False
    _deadline: Deadline

    def begin(self, deadline: Deadline) -> None:
        """The next exchange starts, and has time until the deadline."""
        self._deadline = deadline
        self.received = 0

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As recv(2); raises OutOfTime, TooMuch or Lost."""
        count = self._in_time(super().recv_into, buffer, nbytes, flags)
        self.received += count
        self.ended = count == 0
        if self.received > ANSWER_LIMIT:
            raise TooMuch
        return count

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """As send(2) until all is sent; raises OutOfTime or Lost."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._in_time(super().send, rest, flags) :]

    def hang_up(self) -> None:
        """Close the connection, whoever still has a file on it."""
        number = self.detach()
        if number >= 0:
            os.close(number)

    def _in_time(self, call: Callable[..., int], *arguments: object) -> int:
        """What the call returns. Raises OutOfTime or Lost."""
        left = self._deadline.left
        if left <= 0:
            raise OutOfTime
        # A timeout of 0 would mean not to wait at all, which is another kind of socket.
        self.settimeout(max(left, 0.001))
        try:
            return call(*arguments)
        except OSError as error:
            # The kernel has a timeout of its own, which ends the connection and has a number.
            if isinstance(error, socket.timeout) and not error.errno:
                raise OutOfTime from None
            raise Lost(_words(error.errno)) from None


class Race:
    """Connections to several endpoints begun at once, handed out as they are accepted.

    Iterating yields an endpoint with its connection, which is then the caller's to close. The first is
    waited for `seconds`, each further one `grace` seconds from when it is asked for, and none beyond the
    deadline: a host without IPv6 is told so at once, and a route that leads nowhere holds up nobody.
    Afterwards `faults` says what became of the others.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], deadline: Deadline, *, seconds: float, grace: float = 0.0
    ) -> None:
        self.faults: list[str] = []
        self._endpoints = endpoints
        self._deadline = deadline
        self._seconds = seconds
        self._grace = grace
        self._accepted: dict[Endpoint, BoundedSocket] = {}
        self._selector = selectors.DefaultSelector()
        for endpoint in endpoints:
            self._begin(endpoint)

    def __enter__(self) -> Race:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [*self._accepted.values(), *self._pending().values()]:
            connection.close()
        self._selector.close()

    def __iter__(self) -> Iterator[tuple[Endpoint, BoundedSocket]]:
        limit = self._deadline.within(self._seconds)
        while self._has_one(limit):
            if self._first(self._pending()) < self._first(self._accepted):
                self._collect(HEAD_START)
            winner = self._endpoints[self._first(self._accepted)]
            yield winner, self._accepted.pop(winner)
            limit = self._deadline.within(self._grace)
        self.faults += [f"{endpoint.url}: no connection in time" for endpoint in self._pending()]

    @property
    def others(self) -> int:
        """How many endpoints have accepted, or may yet, that were not handed out."""
        return len(self._accepted) + len(self._pending())

    def _has_one(self, limit: Deadline) -> bool:
        self._collect(0)
        while self._pending() and not self._accepted and limit.left > 0:
            self._collect(limit.left)
        return bool(self._accepted)

    def _begin(self, endpoint: Endpoint) -> None:
        try:
            connection = BoundedSocket(endpoint.family, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(endpoint, error.errno)
            return
        try:
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(endpoint.address)
        except BlockingIOError:
            pass  # under way (EINPROGRESS)
        except OSError as error:
            connection.close()
            self._fail(endpoint, error.errno)
            return
        self._selector.register(connection, selectors.EVENT_WRITE, endpoint)

    def _collect(self, seconds: float) -> None:
        """Note what became of the connections under way, waiting so long for the first news."""
        for key, _ in self._selector.select(seconds) if self._pending() else ():
            connection = key.fileobj
            assert isinstance(connection, BoundedSocket)  # noqa: S101 - for the type checker
            self._selector.unregister(connection)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                connection.close()
                self._fail(key.data, error)
            else:
                self._accepted[key.data] = connection

    def _pending(self) -> dict[Endpoint, BoundedSocket]:
        return {key.data: key.fileobj for key in self._selector.get_map().values()}  # type: ignore[misc]

    def _first(self, some: dict[Endpoint, BoundedSocket]) -> int:
        return min(map(self._endpoints.index, some), default=len(self._endpoints))

    def _fail(self, endpoint: Endpoint, error: int | None) -> None:
        self.faults.append(f"{endpoint.url}: {_words(error)}")


def connect(endpoint: Endpoint, deadline: Deadline) -> BoundedSocket:
    """A connection to one endpoint. Raises Lost."""
    with Race((endpoint,), deadline, seconds=deadline.left) as race:
        for _, connection in race:
            return connection
        raise Lost(race.faults[0].partition(": ")[2])


def _words(error: int | None) -> str:
    return os.strerror(error).lower() if error else "connection failed"
