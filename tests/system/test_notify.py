"""Telling the service manager, against a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
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


def told(manager: socket.socket, call: str, *, blocked: bool = False, address: str = "") -> list[str]:
    """What arrives when a process of its own makes the call, with systemd-python or without it."""
    block = "sys.modules['systemd'] = None; " if blocked else ""
    script = f"import sys; {block}from firstkey.system import notify; print(notify.{call})"
    environ = {**os.environ, "PYTHONPATH": AGENT, "NOTIFY_SOCKET": address or manager.getsockname()}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environ, timeout=60
    )
    assert done.stdout == "True\n"
    return manager.recv(4096).decode().splitlines()


@pytest.mark.parametrize("blocked", [False, True], ids=["systemd-python", "own"])
def test_states(manager: socket.socket, blocked: bool) -> None:
    """Readiness, status, stopping and asking for time arrive as sd_notify(3) has them."""
    assert told(manager, "ready('3 keys')", blocked=blocked) == ["READY=1", "STATUS=3 keys"]
    assert told(manager, "ready()", blocked=blocked) == ["READY=1"]
    assert told(manager, "status('waiting')", blocked=blocked) == ["STATUS=waiting"]
    assert told(manager, "stopping()", blocked=blocked) == ["STOPPING=1"]
    assert told(manager, "need_time(90)", blocked=blocked) == ["EXTEND_TIMEOUT_USEC=90000000"]


@pytest.mark.parametrize("blocked", [False, True], ids=["systemd-python", "own"])
def test_abstract_socket(blocked: bool) -> None:
    """A socket in the abstract namespace is reached too (a leading @)."""
    name = f"firstkey-test-{os.getpid()}-{blocked}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        server.settimeout(30)
        assert told(server, "ready()", blocked=blocked, address=f"@{name}") == ["READY=1"]


def test_status_cannot_forge_another_state(manager: socket.socket) -> None:
    """A line break in a status does not become an assignment of its own."""
    assert told(manager, "status('a\\nMAINPID=1')") == [r"STATUS=a\nMAINPID=1"]


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1234", "relative"])
@pytest.mark.parametrize("blocked", [False, True], ids=["systemd-python", "own"])
def test_nobody_listens(address: str, blocked: bool) -> None:
    """Without a manager, or with one that is gone, nothing happens and nothing is raised."""
    block = "sys.modules['systemd'] = None; " if blocked else ""
    script = f"import sys; {block}from firstkey.system import notify; print(notify.ready())"
    environ = {**os.environ, "PYTHONPATH": AGENT, "NOTIFY_SOCKET": address}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environ, timeout=60
    )
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_own_sender_does_not_wait_for_ever(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that reads nothing costs a moment."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    with pytest.raises(OSError, match="timed out"):
        all(notify.send_datagram("READY=1") for _ in range(100_000))
