"""HTTP with the metadata service, on `requests`: the one module that imports it.

Requests go through an adapter without a `requests.Session`: nothing of the environment (proxies, .netrc,
trust_env), no cookie jar and no redirect handling is there to be switched off. A Session reads the
target of a redirect and inflates its body even where it must not follow it.
"""

from __future__ import annotations

import http.client
from typing import NamedTuple

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

HEADERS = {"User-Agent": f"firstkey/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class Reply(NamedTuple):
    """What the service answered; the body only where the status is 200, for an error's is for people."""

    status: int
    body: bytes


class Conversation:
    """Requests to one endpoint, over one connection for as long as the service keeps it open.

    Takes over the connection, which the endpoint has accepted.
    """

    def __init__(self, endpoint: Endpoint, connection: BoundedSocket) -> None:
        self.endpoint = endpoint
        self._unused: BoundedSocket | None = connection
        self._connection = connection
        self._adapter = _Adapter(self)

    def __enter__(self) -> Conversation:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._adapter.close()
        self._connection.close()

    def ask(self, method: str, path: str, *, headers: dict[str, str], deadline: Deadline) -> Reply:
        """One request and its answer, whatever its status.

        Raises NoAnswer or Retriable where it may help to ask again; FirstkeyError for an answer that is
        too large or not HTTP.
        """
        what = f"{method} {self.endpoint.url}{path}"
        self._deadline = deadline
        allowed = deadline.left
        try:
            return self._ask(method, path, {**HEADERS, **headers})
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

    def dial(self) -> BoundedSocket:
        """The connection for the next request: the one that was handed over, then new ones. Raises Lost."""
        self._connection = self._unused or connect(self.endpoint, self._deadline)
        self._unused = None
        self._connection.begin(self._deadline)
        return self._connection

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> Reply:
        request = requests.Request(method, self.endpoint.url + path, headers=headers).prepare()
        kept = None if self._unused else self._connection
        self._connection.begin(self._deadline)
        try:
            return self._exchange(request)
        except Lost:
            # Whoever keeps a connection open may close it just when the next request is on its way.
            if kept is not self._connection or kept.received:
                raise
        return self._exchange(request)

    def _exchange(self, request: requests.PreparedRequest) -> Reply:
        try:
            response = self._adapter.send(request, stream=True)
            try:
                return Reply(response.status_code, _body(response) if response.status_code == 200 else b"")
            finally:
                response.close()
        except (requests.RequestException, HTTPError) as error:
            raise self._meaning(error) from None

    def _meaning(self, error: Exception) -> Exception:
        """What an error of the library says of the answer. Those of the socket do not come here."""
        if not self._connection.received:
            return Lost("the connection was closed without an answer")
        if self._connection.ended:
            return Lost("the connection was closed in the middle of the answer")
        # http.client limits the length of a header and their number; for the latter it has no class.
        too_large = type(_cause(error)) in (http.client.LineTooLong, http.client.HTTPException)
        return TooMuch() if too_large else _Garbled("the answer is not HTTP")


class _Garbled(Exception):  # noqa: N818 - the name of what happened
    """What came is not an answer; the text says in which way."""


class _Adapter(HTTPAdapter):
    """Makes each connection through the conversation, which knows its endpoint and deadline."""

    def __init__(self, conversation: Conversation) -> None:
        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = conversation.dial()

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool}


def _body(response: requests.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise _Garbled(f"the answer is encoded ({ascii(encoding)[:40]}), which was not asked for")
    body: bytes = response.raw.read(decode_content=False)
    # Older versions of urllib3 take a body that ends too early for a whole one.
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" not in response.headers and length.isdecimal() and len(body) < int(length[:18]):
        raise Lost("the connection was closed in the middle of the answer")
    return body


def _cause(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error
