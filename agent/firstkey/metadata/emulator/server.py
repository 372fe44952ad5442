"""The emulator on a socket: threads and connections, with answers as slow or as wrong as asked for.

HTTP is written out here, since `http.server` would correct or refuse most of what the faults ask for.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any, BinaryIO, NamedTuple, final

from firstkey.metadata.emulator.faults import Delivery, Fault, changed, refusal_time, spoiled
from firstkey.metadata.emulator.rules import Request, Settings, Tokens, error, phrase, reply

LONGEST_LINE = 8192  # bytes of a request line; common servers take as much
LONGEST_BODY = 65536  # bytes of a request's body; no request here needs any
FILLER = b"filler. " * 1024
IDLE_LIMIT = 60.0  # seconds until a connection that does nothing is dropped
REMEMBERED = 10_000  # requests
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger, socket(7)


class Asked(NamedTuple):
    """One request, as it is remembered. `status` is None where no answer was given.

    The token itself is not kept.
    """

    method: str
    path: str
    had_token: bool
    status: int | None


@final
class Emulator:
    """A metadata service on `host` (an address of this machine) and `port` (0: any free one).

        with Emulator(Settings(instance_id="i-1"), faults=[Fault.parse("delay=2")]) as service:
            ask(service.url)

    The port is bound at once; `start` or `with` begins to answer. `log` is called with each
    request, in the thread of its connection. Raises OSError where the port cannot be had.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        faults: Iterable[Fault] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        log: Callable[[Asked], None] | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._tokens = Tokens()
        self._log = log
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._asked: deque[Asked] = deque(maxlen=REMEMBERED)
        self._open: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, name="metadata-emulator", daemon=True)
        self.inject(*faults)
        self._refusal = refusal_time(self._faults)
        self._listener = _bound(host, port)
        self._address: tuple[str, int] = self._listener.getsockname()[:2]

    # --- what its owner does with it ----------------------------------------------------------

    @property
    def url(self) -> str:
        """The endpoint: `http://127.0.0.1:PORT` or `http://[::1]:PORT`."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def port(self) -> int:
        """The port, chosen by the system where 0 was asked for."""
        return self._address[1]

    @property
    def requests(self) -> list[Asked]:
        """What was asked until now, oldest first; a copy."""
        with self._lock:
            return list(self._asked)

    @property
    def settings(self) -> Settings:
        """The instance as it is now."""
        with self._lock:
            return self._settings

    def change(self, **settings: Any) -> None:  # noqa: ANN401 - as many types as settings
        """Replace single settings by name, from the next request on. Faults stay as they are."""
        with self._lock:
            self._settings = replace(self._settings, **settings)

    def inject(self, *faults: Fault) -> None:
        """Put these faults in place of all that were, their counts at zero; none: no fault.

        "refuse" takes effect only where it was given to the constructor.
        """
        with self._lock:
            self._faults = tuple(faults)
            self._spent = [0] * len(faults)

    def start(self) -> None:
        """Begin to answer, in threads of its own; nothing new if it has begun."""
        if self._acceptor.ident is not None:
            return
        if not self._refusal:
            self._listener.listen(128)
        self._acceptor.start()

    def close(self) -> None:
        """Stop answering, cut every connection and end the threads; well within a second."""
        self._stop.set()
        _shut(self._listener)  # wakes the thread that waits in accept(2)
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        with self._lock:
            connections = dict(self._open)
            for connection in connections:
                _shut(connection)
        for thread in connections.values():
            thread.join(timeout=1)

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- connections --------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._refusal:
            # A bound port that does not listen refuses connections, and no other program gets it.
            if self._stop.wait(None if math.isinf(self._refusal) else self._refusal):
                return
            self._listener.listen(128)
        while not self._stop.is_set():
            self._take_one()

    def _take_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:  # held over both, so that the thread finds itself listed when it ends
                thread.start()
                self._open[connection] = thread
        except (OSError, RuntimeError):
            # Closed, or short of descriptors or threads: then others must end before it goes on.
            self._stop.wait(0.05)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(IDLE_LIMIT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as reader:
                while self._exchange(connection, reader):
                    pass
        except OSError:
            pass  # The client hung up, or `close` did: both are everyday business here.
        finally:
            with self._lock:
                del self._open[connection]
                connection.close()

    def _exchange(self, connection: socket.socket, reader: BinaryIO) -> bool:
        """One request and its answer; whether another may follow on the same connection."""
        line = reader.readline(LONGEST_LINE)
        if not line:
            return False
        request = _read_request(line, reader)
        if request is None:
            self._deliver(connection, Delivery(error(400)), keep=False, bodiless=False)
            return False
        delivery = self._decide(request)
        keep = self.settings.keep_alive and not _ends_connection(request, delivery)
        self._deliver(connection, delivery, keep=keep, bodiless=request.method == "HEAD")
        return keep

    # --- answers ------------------------------------------------------------------------------

    def _decide(self, request: Request) -> Delivery:
        with self._lock:
            faults = self._striking(request)
            settings = changed(self._settings, faults)
            delivery = spoiled(reply(request, settings=settings, tokens=self._tokens), faults)
            status = None if delivery.reset or delivery.silent else delivery.reply.status
            asked = Asked(request.method, request.path, request.token is not None, status)
            self._asked.append(asked)
        if self._log:
            self._log(asked)
        return delivery

    def _striking(self, request: Request) -> list[Fault]:
        """The faults that this request meets; it counts towards their `first`."""
        striking = []
        for position, fault in enumerate(self._faults):
            if fault.concerns(request) and (fault.first is None or self._spent[position] < fault.first):
                self._spent[position] += 1
                striking.append(fault)
        return striking

    def _deliver(self, connection: socket.socket, delivery: Delivery, *, keep: bool, bodiless: bool) -> None:
        self._pause(delivery.wait)
        if delivery.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            return
        if delivery.silent:
            # Nothing is said until the client gives up, or until `close` cuts the connection.
            connection.settimeout(None)
            while connection.recv(4096):
                pass
            return
        self._send(connection, [_head(delivery, keep=keep)], delivery.head_pause)
        if not bodiless:
            self._send(connection, _body(delivery), delivery.body_pause)

    def _send(self, connection: socket.socket, pieces: Iterable[bytes], pause: float) -> None:
        for piece in pieces:
            step = 1 if pause else len(piece) or 1
            for start in range(0, len(piece), step):
                connection.sendall(piece[start : start + step])
                self._pause(pause)

    def _pause(self, seconds: float) -> None:
        if seconds and self._stop.wait(seconds):
            raise ConnectionAbortedError("the emulator was closed")


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # By a look at the text alone: the zone of a link-local address becomes a number.
        ((*_, where),) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


def _shut(connection: socket.socket) -> None:
    """End a connection under the hands of the thread that waits on it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


# --- HTTP as bytes ----------------------------------------------------------------------------


def _read_request(line: bytes, reader: BinaryIO) -> Request | None:
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


def _head(delivery: Delivery, *, keep: bool) -> bytes:
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


def _body(delivery: Delivery) -> Iterator[bytes]:
    """The body in pieces; without end where that was asked for."""
    yield delivery.reply.body
    if delivery.endless:
        yield from itertools.repeat(FILLER)


def _ends_connection(request: Request, delivery: Delivery) -> bool:
    """Whether the client wants it so, or could not know where this answer ends and another begins."""
    wanted = request.headers.get("connection", "").lower() == "close"
    odd_length = delivery.claimed_length is not None or delivery.endless
    return wanted or odd_length or delivery.reset or delivery.silent


def _length(delivery: Delivery) -> list[str]:
    if delivery.claimed_length is not None:
        return [f"Content-Length: {delivery.claimed_length}"]
    return [] if delivery.endless else [f"Content-Length: {len(delivery.reply.body)}"]
