"""The TCP ports with a listener, and what a server says first; nothing is ever sent."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from firstkey import NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.tree import Tree

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
TABLE_LIMIT = 16 * 1024 * 1024
BANNER_LIMIT = 8192
_BANNER = re.compile(rb"(?:\A|\n)SSH-[^\n]*\n\Z")
_LISTENS = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
_MAPPED = bytes(10) + b"\xff\xff"


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
    def reachable(self) -> str:
        """An address under which this machine itself can connect to it."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)  # noqa: S104

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


def first_words(address: str, port: int, *, seconds: float, source: str | None = None) -> bytes:
    """What the server there says to a client at `source` before it is spoken to; empty where that is nothing.

    Reads until a line begins with "SSH-" (RFC 4253, 4.2: other lines may come before). Raises
    FirstkeyError(sshd-not-running) where no program takes the connection.
    """
    deadline = time.monotonic() + seconds
    own = (source, 0) if source and ":" not in address else None
    try:
        connection = socket.create_connection((address, port), timeout=seconds, source_address=own)
    except OSError as error:
        from firstkey.login_reasons import SSHD_NOT_RUNNING

        message = f"cannot connect to {address} port {port}: {error.strerror or error}"
        raise FirstkeyError(message, reason=SSHD_NOT_RUNNING) from error
    said = b""
    with connection, suppress(OSError):
        while len(said) < BANNER_LIMIT and not _BANNER.search(said) and time.monotonic() < deadline:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = connection.recv(1024)
            if not part:
                break
            said += part
    return said
