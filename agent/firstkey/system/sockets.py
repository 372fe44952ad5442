"""Which TCP ports somebody listens on, and what a server says first; nothing is ever sent."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.system.tree import Tree

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
TABLE_LIMIT = 16 * 1024 * 1024
BANNER_LIMIT = 8192
_LISTENS = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
_MAPPED = bytes(10) + b"\xff\xff"


class Way(NamedTuple):
    """An address to connect to, and the one to come from; None: as the kernel chooses."""

    to: str
    source: str | None = None


class Listener(NamedTuple):
    """An address and port that a program on this machine listens on."""

    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        return self.address == "::1" or self.address.startswith("127.")

    @property
    def is_any(self) -> bool:
        """Whether it stands for all addresses of the machine."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

    @property
    def ways(self) -> tuple[Way, ...]:
        """How this machine itself can connect to it, best first.

        From an address of 127/8 that nobody else has: sshd counts failed connections by address, and bans one
        that has too many (PerSourcePenalties). IPv6 has one loopback address for all.
        """
        if self.address == "::":
            return (*Listener("0.0.0.0", self.port).ways, Way("::1"))  # noqa: S104 - as above
        if ":" in self.address:
            return (Way(self.address),)
        to = "127.0.0.1" if self.is_any else self.address
        high, middle, low = os.urandom(3)
        return (Way(to, f"127.{64 + high % 64}.{middle}.{low}"), Way(to))

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def listeners(tree: Tree) -> list[Listener]:
    """Everything that is listened on (proc(5): /proc/net/tcp). Raises FirstkeyError where that is hidden."""
    tables = [tree.read(path, limit=TABLE_LIMIT) for path in TABLES]
    if tables[0] is None:
        raise FirstkeyError(f"{TABLES[0]} is not there to look at", reason=reasons.IO_ERROR)
    return [found for table in tables for found in _listed((table or b"").decode("ascii", "replace"))]


def _listed(table: str) -> Iterator[Listener]:
    for line in table.split("\n")[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENS:
            address, _, port = fields[1].partition(":")
            yield Listener(_address(address), int(port, 16))


def _address(text: str) -> str:
    """The kernel prints each 32 bits as a number in its own byte order; here they are bytes again."""
    import sys

    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if packed.startswith(_MAPPED):
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def first_words(listener: Listener, *, seconds: float) -> bytes:
    """What the server there says before it is spoken to; empty where it says nothing in time.

    Reads until a line begins with "SSH-" (RFC 4253, 4.2: other lines may come before). Raises
    FirstkeyError(sshd-not-running) where nobody takes the connection.
    """
    deadline = time.monotonic() + seconds
    with _connected(listener, seconds) as connection:
        return _until_banner(connection, deadline)


def _connected(listener: Listener, seconds: float) -> socket.socket:
    for way in listener.ways:
        with suppress(OSError):
            source = (way.source, 0) if way.source else None
            return socket.create_connection((way.to, listener.port), timeout=seconds, source_address=source)
    from firstkey.login_reasons import SSHD_NOT_RUNNING

    raise FirstkeyError(f"nobody takes a connection to {listener}", reason=SSHD_NOT_RUNNING)


def _until_banner(connection: socket.socket, deadline: float) -> bytes:
    said = b""
    while len(said) < BANNER_LIMIT and not _is_complete(said) and time.monotonic() < deadline:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            part = connection.recv(1024)
        except OSError:
            break
        if not part:
            break
        said += part
    return said


def _is_complete(said: bytes) -> bool:
    return said.endswith(b"\n") and said.rstrip().split(b"\n")[-1].startswith(b"SSH-")
