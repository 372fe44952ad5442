"""Who listens, by the kernel's own table, and what a server says before it is spoken to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from firstkey.reasons import FirstkeyError
from firstkey.system import sockets
from firstkey.system.sockets import Listener
from firstkey.system.tree import Tree

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_real_listener_is_found(address: str) -> None:
    """The table of the running kernel names what this test listens on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError as error:
        pytest.skip(f"needs {address}: {error}")
    with server, Tree("/") as tree:
        found = sockets.listeners(tree)
        assert Listener(address, server.getsockname()[1]) in found


def test_only_what_listens_counts(tmp_path: Path) -> None:
    """Connections and broken lines are passed over; IPv4 in IPv6 is IPv4."""
    table = tmp_path / "proc/self/net"
    table.mkdir(parents=True)
    (table / "tcp").write_text(
        HEADER
        + "   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n"
        + "   1: 0100007F:1F90 0100007F:0050 01 00000000:00000000\n"
        + "rubbish\n"
    )
    (table / "tcp6").write_text(
        HEADER
        + "   0: 00000000000000000000000000000000:0016 0:0000 0A 00000000:00000000\n"
        + "   1: 0000000000000000FFFF00000100007F:0017 0:0000 0A 00000000:00000000\n"
    )
    with Tree(str(tmp_path)) as tree:
        found = sockets.listeners(tree)
    assert found == [Listener("0.0.0.0", 22), Listener("::", 22), Listener("127.0.0.1", 23)]
    assert [listener.is_any for listener in found] == [True, True, False]
    assert [listener.reachable for listener in found] == ["127.0.0.1", "::1", "127.0.0.1"]
    assert [str(listener) for listener in found] == ["0.0.0.0:22", "[::]:22", "127.0.0.1:23"]


def test_no_table_is_an_error(tmp_path: Path) -> None:
    """A tree without /proc is not taken for a system on which nobody listens."""
    with Tree(str(tmp_path)) as tree, pytest.raises(FirstkeyError):
        sockets.listeners(tree)


@pytest.mark.parametrize(
    "parts,received",
    [
        ([b"SSH-2.0-Test\r\n"], b"SSH-2.0-Test\r\n"),
        ([b"hello\r\nSSH-", b"2.0-Test\r\n"], b"hello\r\nSSH-2.0-Test\r\n"),
        ([b"220 mail\r\n"], b"220 mail\r\n"),
        ([], b""),
    ],
)
def test_the_first_words(parts: list[bytes], received: bytes) -> None:
    """All that is said until the banner is there, the server hangs up or the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for part in parts:
                    connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        assert sockets.first_words("127.0.0.1", server.getsockname()[1], seconds=60) == received
        thread.join()


def test_silence_ends_in_time() -> None:
    """A server that says nothing is given up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert sockets.first_words("127.0.0.1", server.getsockname()[1], seconds=0.2) == b""


def test_nobody_there() -> None:
    """A refused connection is an error with the published reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FirstkeyError) as caught:
        sockets.first_words("127.0.0.1", port, seconds=60)
    assert caught.value.reason.code == "sshd-not-running"
