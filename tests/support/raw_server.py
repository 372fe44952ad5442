"""A server that answers with whatever bytes a test wants: for what no HTTP server would send."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Union, final

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0bDCPBe8Z1tF8NYvZ7yDyM0Zr8TYBDx4TtMk0T0X1m launch\n"
TOKEN = "PUT /latest/api/token"
INSTANCE_ID = "GET /latest/meta-data/instance-id"
INDEX = "GET /latest/meta-data/public-keys/"
FIRST_KEY = "GET /latest/meta-data/public-keys/0/openssh-key"
SECRET = b"AQAEAOaLUQnv-secret-token-of-the-service=="

Pieces = Union[bytes, Iterable[bytes]]


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answer(head: str, body: bytes = b"") -> bytes:
    """An answer whose headers are the test's own; lines are ended here."""
    return "\r\n".join([*head.splitlines(), "", ""]).encode("latin-1") + body


def slowly(pieces: Iterable[bytes], pause: float) -> Iterator[bytes]:
    """The pieces, one at a time, with so many seconds before each."""
    for piece in pieces:
        time.sleep(pause)
        yield piece


GOOD = {TOKEN: ok(SECRET), INSTANCE_ID: ok(b"i-1"), INDEX: ok(b"0=launch"), FIRST_KEY: ok(KEY)}


@final
class RawServer:
    """Answers as `answers` has it by method and path, otherwise like a good metadata service.

    An answer is bytes or pieces, or a function of the request's number (from 0) that returns them.
    `keep`: the connection stays open afterwards. `requests` has the heads of the requests that came.
    """

    def __init__(
        self,
        answers: dict[str, Pieces | Callable[[int], Pieces]] | None = None,
        *,
        keep: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        self._answers = {**GOOD, **(answers or {})}
        self._keep = keep
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.requests: list[str] = []
        self.connections = 0
        self._last = "nothing"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        port = self._listener.getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join()

    def headers(self, request: str) -> list[dict[str, str]]:
        """The headers of each request of that kind, names in lower case."""
        heads = (head.split("\r\n") for head in self.requests if head.startswith(f"{request} "))
        pairs = ([line.split(": ", 1) for line in lines[1:] if line] for lines in heads)
        return [{name.lower(): value for name, value in found} for found in pairs]

    def close_after(self, request: str) -> None:
        """Go away once such a request is answered."""
        self._last = request

    def _accept(self) -> None:
        """One connection after the other: the client has never more than one."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                with contextlib.suppress(OSError), connection:
                    while self._exchange(connection) and self._keep:
                        pass

    def _exchange(self, connection: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = connection.recv(1)
            if not part:
                return False
            head += part
        self.requests.append(head.decode("latin-1"))
        found = self._answers[" ".join(self.requests[-1].split(" ")[:2])]
        pieces = found(len(self.requests) - 1) if callable(found) else found
        if self.requests[-1].startswith(f"{self._last} "):
            self._listener.close()
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            connection.sendall(piece)
        return True


@contextlib.contextmanager
def silent_server(host: str = "127.0.0.1") -> Iterator[str]:
    """The URL of a server that accepts connections and never says anything."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=64) as listener:
        port = listener.getsockname()[1]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a port that neither accepts nor refuses: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
