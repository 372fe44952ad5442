"""HTTP with the metadata service, on `requests`: the one module that imports it.

Requests go through an adapter without a `requests.Session`: nothing of the environment (proxies, .netrc,
trust_env), no cookie jar and no redirect handling is there to be switched off. A Session reads the
target of a redirect and inflates its body even where it must not follow it.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from firstkey import __version__, reasons
from firstkey.errors import FirstkeyError
from firstkey.metadata.endpoint import (
    ANSWER_LIMIT,
    BoundedSocket,
    Deadline,
    Endpoint,
    Lost,
    OutOfTime,
    TooMuch,
    connect,
)
from firstkey.metadata.values import NoAnswer, Retriable
from firstkey.named_tuple import NamedTuple

HEADERS = {
    "User-Agent": f"firstkey/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class Reply(NamedTuple):
    """What the service answered; the body only where the status is 200, for an error's is for people."""

    status: int
    body: bytes


class Conversation:
    """Requests to one endpoint, each on a connection of its own, as the genuine service wants it.

    So what a server sends too much is never taken for the next answer. The first connection, which the
    endpoint has accepted, is taken over.
    """

    def __init__(self, endpoint: Endpoint, connection: BoundedSocket) -> None:
        self.endpoint = endpoint
        self._first: BoundedSocket | None = connection

    def __enter__(self) -> Conversation:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        if self._first:
            self._first.hang_up()

    def ask(self, method: str, path: str, *, headers: dict[str, str], deadline: Deadline) -> Reply:
        """One request and its answer, whatever its status.

        Raises NoAnswer or Retriable where it may help to ask again; FirstkeyError for an answer that is
        too large or not HTTP.
        """
        what = f"{method} {self.endpoint.url}{path}"
        allowed = deadline.left
        try:
            request = requests.Request(method, self.endpoint.url + path, headers={**HEADERS, **headers})
            return self._exchange(request.prepare(), deadline)
        except OutOfTime:
            text = f"{what}: no complete answer within {max(allowed, 0):.1f} s"
            raise NoAnswer(text, reason=reasons.IMDS_UNREACHABLE) from None
        except Lost as fault:
            raise Retriable(f"{what}: {fault}", reason=reasons.IMDS_UNREACHABLE) from None
        except TooMuch:
            text = f"{what}: the answer is larger than {ANSWER_LIMIT // 1024} KiB or has too many headers"
            raise FirstkeyError(text, reason=reasons.ANSWER_TOO_LARGE) from None
        except _Garbled as fault:
            raise FirstkeyError(f"{what}: {fault}", reason=reasons.BAD_ANSWER) from None

    def _exchange(self, request: requests.PreparedRequest, deadline: Deadline) -> Reply:
        connection = self._first or connect(self.endpoint, deadline)
        self._first = None
        connection.begin(deadline)
        try:
            response = _Adapter(connection).send(request, stream=True)
            return Reply(response.status_code, _body(response) if response.status_code == 200 else b"")
        except (requests.RequestException, HTTPError, *_PASSED_ON) as error:
            raise _meaning(error, connection) from None
        finally:
            # The library leaves it to the garbage collector where it cannot make sense of the headers.
            connection.hang_up()


_PASSED_ON = (http.client.HTTPException, ValueError, OverflowError)
"""What comes out as it is: http.client takes a chunk's length as it stands there, be it below zero."""


class _Garbled(Exception):  # noqa: N818 - the name of what happened
    """What came is not an answer; the text says in which way."""


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


def _meaning(error: Exception, connection: BoundedSocket) -> Exception:
    """What an error of the library says of the answer. Those of the connection itself do not come here."""
    if not connection.received:
        return Lost("the connection was closed without an answer")
    if connection.ended:
        return Lost("the connection was closed in the middle of the answer")
    # http.client limits the length of a header and their number; for the latter it has no class.
    too_large = {http.client.LineTooLong, http.client.HTTPException} & set(map(type, _causes(error)))
    return TooMuch() if too_large else _Garbled("the answer is not HTTP")


def _body(response: requests.Response) -> bytes:
    headers = response.headers
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise _Garbled(f"the answer is encoded ({ascii(encoding)[:40]}), which was not asked for")
    length = _length(headers.get("Content-Length", ""))
    if length is not None and length > ANSWER_LIMIT:
        raise TooMuch
    # Never without a limit: Python would set as much memory aside as a length or a chunk claims to need.
    body: bytes = response.raw.read(ANSWER_LIMIT + 1, decode_content=False)
    if "Transfer-Encoding" in headers:
        return body
    # Older versions of urllib3 take a body that ends too early for a whole one. And where no length was
    # said, nothing at all is no empty answer, but more likely one that was cut off.
    if len(body) < (1 if length is None else length):
        raise Lost("the connection was closed in the middle of the answer")
    return body


def _length(text: str) -> int | None:
    return int(text[:18]) if text.isascii() and text.isdecimal() else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__
