"""The supervisor through thousands of attempts: what lives as long as an outage may not grow with it.

A longer run: FIRSTKEY_ATTEMPTS=10000 ./dev test tests/boot/test_long_run.py -s
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest
from manager import Manager
from processes import Vitals

ATTEMPTS = int(os.environ.get("FIRSTKEY_ATTEMPTS", "1500"))
SEED = 20261124
HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE)
PROGRAM = """
    import os, random, signal, sys, time
    from firstkey.boot import supervisor
    from firstkey.boot.supervisor import Plan, Result, Supervisor, as_line
    from firstkey.system import child

    tally, seed = sys.argv[1], int(sys.argv[2])

    supervisor.FIRST_PAUSE = supervisor.LONGEST_PAUSE = 0.001  # a day of attempts in seconds

    def work(is_first, send):
        with open(tally, "ab") as file:
            file.write(b".")
            number = file.tell()
        fate = random.Random(seed + number).random() if number > 5 else 1.0
        send(as_line(Plan(0.1)))
        if fate < 0.002:
            os.kill(os.getpid(), signal.SIGKILL)
        if fate < 0.004:
            raise RuntimeError("fate")
        if fate < 0.05:
            time.sleep(0.02)
        send(as_line(Result("failed", "bad-answer")))

    def log(entry):
        print(entry.event.name, flush=True)

    child.own_signals(0)
    sys.exit(Supervisor(work=work, log=log, started=time.monotonic()).run())
"""
TROUBLED = 0.004
"""The part of the attempts of which the supervisor has something to say."""


class Daemon:
    """A supervisor whose attempts take milliseconds."""

    def __init__(self, manager: Manager, directory: Path) -> None:
        self.tally = directory / "tally"
        self.said = directory / "said"
        self.manager = manager
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                processes.program(PROGRAM, self.tally, SEED),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=processes.environment(NOTIFY_SOCKET=manager.address),
            )

    @property
    def attempts(self) -> int:
        """How many have been begun."""
        return self.tally.stat().st_size if self.tally.exists() else 0

    def go_on(self, until: int, choice: random.Random) -> None:
        """Let it run until that attempt, with a signal now and then."""
        while self.attempts < until:
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(choice.uniform(0, 0.2))
            self.process.send_signal(choice.choice(HARMLESS))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that runs."""
    with Manager(tmp_path) as manager:
        made = Daemon(manager, tmp_path)
        yield made
        made.process.kill()
        made.process.wait()


@contextmanager
def forgotten(manager: Manager) -> Iterator[None]:
    """What a manager of ours would remember of thousands of attempts is our memory, not the daemon's."""
    yield
    manager.messages.clear()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_attempts(daemon: Daemon) -> None:
    """Workers that bring nothing, raise and are killed, signals at random: nothing grows, nothing is left."""
    choice = random.Random(SEED)
    with forgotten(daemon.manager):
        daemon.go_on(ATTEMPTS // 5, choice)
    early = Vitals.of(daemon.process.pid)
    with forgotten(daemon.manager):
        daemon.go_on(ATTEMPTS, choice)
    late = Vitals.of(daemon.process.pid)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(processes.PATIENCE) == 0, daemon.said.read_text()
    said = Counter(daemon.said.read_text().split())
    print(f"{daemon.attempts} attempts: {early} then {late}; said {dict(said)}")

    assert late.descriptors <= early.descriptors + 3, "a worker's pipe and lifeline may be open"
    assert late.threads == early.threads == 1
    assert late.children <= 2
    assert late.memory <= early.memory + 512
    troubles = sum(random.Random(SEED + number).random() < TROUBLED for number in range(daemon.attempts + 1))
    assert said.pop("internal-error", 0) <= troubles
    assert said == {"imds-unreachable-at-deadline": 1, "stopping": 1}
