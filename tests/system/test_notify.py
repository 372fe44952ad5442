"""Telling the service manager, against a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstkey
from firstkey.system import notify

AGENT = str(Path(firstkey.__file__).parents[1])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's end of $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(30)
        yield server


def logged(manager: socket.socket, call: str, *, address: str = "") -> list[str]:
    """What arrives when a process of its own makes the call."""
    script = f"from firstkey.system import notify; notify.{call}"
    environ = {**os.environ, "PYTHONPATH": AGENT, "NOTIFY_SOCKET": address or manager.getsockname()}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env=environ, timeout=60
    )
    assert done.stderr == b""
    return manager.recv(4096).decode().splitlines()


def test_states(manager: socket.socket) -> None:
    """A state, a status and both arrive as sd_notify(3) has them."""
    assert logged(manager, "send('READY=1', status='3 keys')") == ["READY=1", "STATUS=3 keys"]
    assert logged(manager, "send('STOPPING=1')") == ["STOPPING=1"]
    assert logged(manager, "send(status='waiting')") == ["STATUS=waiting"]


def test_abstract_socket() -> None:
    """A socket in the abstract namespace is reached too (a leading @)."""
    name = f"firstkey-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        server.settimeout(30)
        assert logged(server, "send('READY=1')", address=f"@{name}") == ["READY=1"]


def test_status_cannot_forge_another_state(manager: socket.socket) -> None:
    """A line break in a status does not become an assignment of its own."""
    assert logged(manager, "send(status='a\\nMAINPID=1')") == [r"STATUS=a\nMAINPID=1"]


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1234", "relative"])
def test_nobody_listens(address: str) -> None:
    """Without a manager, or with one that is gone, nothing happens and nothing is raised."""
    script = "from firstkey.system import notify; notify.send('READY=1'); print('went on')"
    environ = {**os.environ, "PYTHONPATH": AGENT, "NOTIFY_SOCKET": address}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environ, timeout=60
    )
    assert (done.stdout, done.stderr) == ("went on\n", "")


@pytest.mark.slow
def test_it_does_not_wait_for_ever(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that reads nothing costs a moment."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setattr(notify, "SEND_LIMIT_SEC", 0.5)
    filled = False
    while not filled:
        begin = time.monotonic()
        notify.send("READY=1")
        filled = time.monotonic() - begin > 0.4
    assert time.monotonic() - begin < 20
