"""HTTP with the metadata service, on `requests`: the one module that imports it.

Requests go through an adapter without a `requests.Session`: nothing of the environment (proxies, .netrc,
trust_env), no cookie jar and no redirect handling is there to be switched off. A Session reads the
target of a redirect and inflates its body even where it must not follow it.

A connection has a deadline, not a timeout: a timeout starts anew with each byte of a dripping server.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from firstkey import NamedTuple, __version__, reasons, settings
from firstkey.reasons import FirstkeyError, NoAnswer, Retriable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

ANSWER_LIMIT = 65536
"""Bytes of one answer, status line and headers included. The largest genuine one is an RSA key, 3 KiB."""

HEADERS = {
    "User-Agent": f"firstkey/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}

SYSTEMD_SOCKET = "/run/systemd/io.systemd.InstanceMetadata"
"""Where systemd-imdsd(8) offers what it keeps for itself, by a `prohibit` route to the address."""


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
    """One address of the metadata service; `zone` is the interface of a link-local one."""

    url: str
    host: str
    port: int
    zone: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`http://IP[:PORT]`; raises ValueError for all else, a name above all: none is ever looked up."""
        url = settings.endpoint(text)
        v4, v6, zone, port = re.fullmatch(settings.ENDPOINT, url).groups("")  # type: ignore[union-attr]
        return cls(url, v4 or v6, int(port or 80), zone[1:])


class BoundedSocket(socket.socket):
    """A connection on which one exchange may last until a deadline and bring ANSWER_LIMIT bytes.

    `what` is the exchange in words, `allowed` the seconds that it had. `received` counts its bytes; `ended`:
    the other side closed. What is raised is no OSError: the HTTP library lets it pass.
    """

    what = ""
    allowed = 0.0
    received = 0
    ended = False
    deadline: Deadline

    def begin(self, what: str, deadline: Deadline) -> None:
        """The exchange starts, and has time until the deadline."""
        self.what, self.deadline, self.allowed = what, deadline, max(deadline.left, 0)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As recv(2); raises NoAnswer, Retriable or FirstkeyError (bad-answer)."""
        count: int = self.in_time(super().recv_into, buffer, nbytes, flags)
        self.received += count
        self.ended = count == 0
        if self.received > ANSWER_LIMIT:
            raise self.too_large()
        return count

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """As send(2) until all is sent; raises NoAnswer or Retriable."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.in_time(super().send, rest, flags) :]

    def in_time(self, call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as the call has it
        """What the call returns. Raises NoAnswer at the deadline, else Retriable."""
        left = self.deadline.left
        try:
            if left <= 0:
                raise socket.timeout
            # A timeout of 0 would mean not to wait at all, which is another kind of socket.
            self.settimeout(max(left, 0.001))
            return call(*arguments)
        except OSError as error:
            # The kernel has a timeout of its own, which ends the connection and has a number.
            if isinstance(error, socket.timeout) and not error.errno:
                text = f"{self.what}: no complete answer within {self.allowed:.1f} s"
                raise NoAnswer(text, reason=reasons.IMDS_UNREACHABLE) from None
            raise self.lost(
                os.strerror(error.errno).lower() if error.errno else "connection failed"
            ) from error

    def lost(self, text: str) -> Retriable:
        """The error for a connection that is not there (any more)."""
        return Retriable(f"{self.what}: {text}", reason=reasons.IMDS_UNREACHABLE)

    def cut_off(self) -> Retriable:
        """The error for an answer that ended too early."""
        when = "in the middle of the answer" if self.received else "without an answer"
        return self.lost(f"the connection was closed {when}")

    def too_large(self) -> FirstkeyError:
        """The error for an answer that is too large."""
        text = f"{self.what}: the answer is larger than {ANSWER_LIMIT // 1024} KiB"
        return FirstkeyError(text, reason=reasons.ANSWER_TOO_LARGE)

    def garbled(self, text: str) -> FirstkeyError:
        """The error for what came and is not an answer."""
        return FirstkeyError(f"{self.what}: {text}", reason=reasons.BAD_ANSWER)


class Reply(NamedTuple):
    """What the service answered; the body only where the status is 200, for an error's is for people."""

    status: int
    body: bytes


class Conversation:
    """Requests to one endpoint, each on a connection of its own, as the genuine service wants it.

    So what a server sends too much is never taken for the next answer. Another thread may `stop` it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connection: BoundedSocket | None = None
        self._is_over = False

    def stop(self) -> None:
        """End what is under way, and whatever would come after it."""
        self._is_over = True
        connection = self._connection
        if connection:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection:
            number = self._connection.detach()  # the library may still have a file on it
            if number >= 0:
                os.close(number)
            self._connection = None

    def connect(self, deadline: Deadline) -> BoundedSocket:
        """The connection for the next request. Raises Retriable, which is no NoAnswer."""
        if self._connection:
            return self._connection
        reason, text = reasons.IMDS_UNREACHABLE, "no connection in time"
        url, host, port, zone = self.endpoint
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._connection = connection = BoundedSocket(family, socket.SOCK_STREAM)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = deadline.left
            if left > 0 and not self._is_over:
                connection.settimeout(left)
                index = (0, socket.if_nametoindex(zone)) if zone else ()  # none where it is not there yet
                connection.connect((host, port, *index))
                if not self._is_over:
                    return connection
        except OSError as error:
            if not isinstance(error, socket.timeout):
                text = os.strerror(error.errno).lower() if error.errno else str(error)
            if error.errno == errno.EACCES and os.path.exists(SYSTEMD_SOCKET):
                reason = reasons.IMDS_LOCKED
        self.close()
        raise Retriable(f"{url}: {text}", reason=reason)

    def ask(self, method: str, path: str, *, headers: dict[str, str], deadline: Deadline) -> Reply:
        """One request and its answer, whatever its status.

        Raises NoAnswer or Retriable where it may help to ask again; FirstkeyError for an answer that is
        too large or not HTTP.
        """
        connection = self.connect(deadline)
        connection.begin(f"{method} {self.endpoint.url}{path}", deadline)
        url = self.endpoint.url.replace(f"%{self.endpoint.zone}]", "]") + path
        try:
            request = requests.Request(method, url, headers={**HEADERS, **headers})
            response = _Adapter(connection).send(request.prepare(), stream=True)
            body = _body(response, connection) if response.status_code == 200 else b""
            return Reply(response.status_code, body)
        except (requests.RequestException, HTTPError, *_PASSED_ON):
            # Of the answer: errors of the connection itself are no OSError, and do not come here.
            if connection.ended or not connection.received:
                raise connection.cut_off() from None
            raise connection.garbled("the answer is not HTTP, or has more headers than are read") from None
        finally:
            # The library leaves it to the garbage collector where it cannot make sense of the headers.
            self.close()


_PASSED_ON = (http.client.HTTPException, ValueError, OverflowError)
"""What comes out as it is: http.client takes a chunk's length as it stands there, be it below zero."""


class _Adapter(HTTPAdapter):
    """Sends one request on a connection that is there already."""

    def __init__(self, connection: BoundedSocket) -> None:
        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = connection

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool}


def _body(response: requests.Response, connection: BoundedSocket) -> bytes:
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        text = f"the answer is encoded ({ascii(encoding)[:40]}), which was not asked for"
        raise connection.garbled(text)
    text = headers.get("Content-Length", "")
    length = int(text) if text.isdecimal() else None
    if length is not None and length > ANSWER_LIMIT:
        raise connection.too_large()
    # Never without a limit: Python would set as much memory aside as a length or a chunk claims to need.
    body: bytes = response.raw.read(ANSWER_LIMIT + 1, decode_content=False)
    if "Transfer-Encoding" in headers:
        return body
    # Older versions of urllib3 take a body that ends too early for a whole one. And where no length was
    # said, nothing at all is no empty answer, but more likely one that was cut off.
    if len(body) < (1 if length is None else length):
        raise connection.cut_off()
    return body
