"""What the tests' fork server starts is what `python3 -m firstkey` starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import fork_server
import pytest
from machine import Machine
from raw_server import silent_server

pytestmark = pytest.mark.skipif(not fork_server.ENABLED, reason="the gate starts Python afresh for each call")
ENVIRON = {"PATH": os.environ["PATH"], "PYTHONPATH": str(fork_server.AGENT), "HOME": "/nonexistent"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fresh image."""
    return Machine(tmp_path / "root")


@pytest.mark.parametrize(
    "argv, environ",
    [
        ("--help", {"COLUMNS": "50"}),
        ("no-such-command", {}),
        ("run --wait banana", {}),
        ("config --json --root ROOT", {}),
        ("config --check --config absent --root ROOT", {}),
        ("status --root ROOT", {}),
        ("audit --root ROOT", {}),
        ("keys --imds http://name.example --root ROOT", {}),
        ("host-keys --dry-run --root ROOT", {"PATH": "/nonexistent"}),
        ("config --root ROOT", {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}),
    ],
)
@pytest.mark.sample(5)
def test_a_call_is_as_a_fresh_start(machine: Machine, argv: str, environ: dict[str, str]) -> None:
    """It ends with the same status and has said the same."""
    machine.configure("[Keys]\nUsers=admin\nNonsense=1\n[Image]\nPublisher=B\u00fccher\n")
    words = argv.replace("ROOT", str(machine.root)).split()
    forked = fork_server.firstkey(*words, environ={**ENVIRON, **environ})
    fresh = subprocess.run(
        [sys.executable, "-m", "firstkey", *words],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**ENVIRON, **environ},
    )  # fmt: skip
    assert forked == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_a_call_has_as_much_memory_as_it_is_given(machine: Machine) -> None:
    """As prlimit does it: what comes on top of that is refused."""
    words = ("audit", "--root", str(machine.root))
    assert b"rules pass" in fork_server.firstkey(*words, environ=ENVIRON, memory=1 << 30).out
    limited = fork_server.firstkey(*words, environ=ENVIRON, memory=1 << 20)
    assert (limited.status, b"rules pass" in limited.out) == (1, False), limited


def test_a_call_that_takes_too_long_is_ended() -> None:
    """As subprocess.run does it: killed, and an exception."""
    started = time.monotonic()
    with silent_server() as url:
        argv = ("keys", "--imds", url, "--wait", "100")
        with pytest.raises(subprocess.TimeoutExpired):
            fork_server.firstkey(*argv, environ=ENVIRON, timeout=0.5)
    assert time.monotonic() - started < 60


def test_a_call_that_goes_on_can_be_signalled() -> None:
    """As one that subprocess.Popen started."""
    with silent_server() as url, TemporaryFile() as said:
        going = fork_server.start("keys", "--imds", url, "--wait", "100", environ=ENVIRON, out=said)
        assert isinstance(going, fork_server.Forked)
        assert going.poll() is None
        going.kill()
        assert going.wait(60) == going.poll() == -signal.SIGKILL
