"""The whole daemon through bad days: a service that flaps, signals at random, and others that interfere.

A longer run: FIRSTKEY_STEPS=2000 ./dev test tests/cli/test_long_run.py -s
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from daemons import Daemon, Lab
from machine import new_key

from firstkey.metadata.emulator import Fault

STEPS = int(os.environ.get("FIRSTKEY_STEPS", "60"))
SEED = 20261124
FAULTS = [
    Fault("status", 503), Fault("status", 429), Fault("status", 401), Fault("reset"), Fault("html"),
    Fault("delay", 0.5), Fault("expired-tokens", 1), Fault("token-silence"),
]  # fmt: skip
HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
DEADLY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM, signal.SIGKILL)
SETTINGS = "[IMDS]\nBootTimeoutSec=1\nRequestTimeoutSec=0.3\n"


@pytest.fixture
def keys_to_offer(tmp_path: Path) -> list[str]:
    """Public key lines that the service may offer."""
    (tmp_path / "offered").mkdir()
    return [new_key(tmp_path / "offered", f"key{number}") for number in range(4)]


class Day:
    """One day with many troubles: each step is one, chosen by a seeded chance."""

    def __init__(self, lab: Lab, keys: list[str]) -> None:
        self.lab = lab
        self._keys = keys
        self._choice = random.Random(SEED)
        self.did: Counter[str] = Counter()
        self.daemon = self._start()

    def _start(self) -> Daemon:
        self.did["start"] += 1
        return self.lab.daemon(volume="-q")

    def step(self) -> None:
        """Something happens; what everybody may rely on holds right after it, whatever it was."""
        happening = self._choice.choice([self._fault, self._mend, self._offer, self._signal, self._interfere])
        if self._choice.random() < 0.15:
            happening = self._end
        happening()
        if self.daemon.process.poll() is not None:
            self._restart()
        self.did[happening.__name__.strip("_")] += 1
        time.sleep(self._choice.uniform(0, 0.2))
        assert set(self.lab.machine.keys) <= set(self._keys), "no torn line, and nobody else's"
        assert len(self.daemon.workers) <= 1

    def _fault(self) -> None:
        self.lab.service.inject(self._choice.choice(FAULTS))

    def _mend(self) -> None:
        self.lab.service.inject()

    def _offer(self) -> None:
        chosen = self._choice.sample(self._keys, self._choice.randint(1, len(self._keys)))
        self.lab.service.change(keys=tuple((f"key{number}", key) for number, key in enumerate(chosen)))

    def _signal(self) -> None:
        self.daemon.process.send_signal(self._choice.choice(HARMLESS))

    def _interfere(self) -> None:
        """Somebody runs firstkey by hand meanwhile: it waits for its turn, or says that it had none."""
        done = self.lab.machine.run(self.lab.service, "--wait", "0.5", "-q")
        assert done.status in (0, 1, 75), done.err
        assert "Traceback" not in done.err

    def _restart(self) -> None:
        """One that has nothing left to wait for has ended by itself; an operator starts it again."""
        ended = self.daemon.end()
        assert ended.status in (0, 1), ended.said
        self.daemon = self._start()

    def _end(self) -> None:
        """The daemon is ended in one of many ways, and is started again; nothing of it is left."""
        below = processes.descendants(self.daemon.process.pid)
        ended = self.daemon.end(self._choice.choice(DEADLY))
        assert "Traceback" not in ended.said
        for pid in below:
            processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]
        self.daemon = self._start()


@pytest.fixture
def day(lab: Lab, keys_to_offer: list[str]) -> Day:
    """A day that begins well."""
    lab.configure(SETTINGS.format(boot=1, request=0.3, interval=0.1))
    lab.service.change(keys=(("key0", keys_to_offer[0]),))
    return Day(lab, keys_to_offer)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bad_days(day: Day, keys_to_offer: list[str]) -> None:
    """Through all of it files stay whole, and when it is over everything is as on a good day, and quiet."""
    lab = day.lab
    processes.wait_for(lambda: lab.machine.keys == keys_to_offer[:1])
    host_keys = lab.machine.host_keys()
    for _ in range(STEPS):
        day.step()
    lab.service.inject()
    lab.service.change(keys=tuple(enumerate_names(keys_to_offer)))
    day.daemon.end(signal.SIGTERM)
    day.daemon = lab.daemon(volume="-q")
    processes.wait_for(lambda: set(lab.machine.keys) == set(keys_to_offer), "all keys in their place")
    assert sorted(lab.machine.keys) == sorted(keys_to_offer), "each of them once"
    assert lab.machine.host_keys() == host_keys
    assert day.daemon.end().status == 0
    print(dict(day.did), f"{len(lab.service.requests)} requests")
    assert lab.left_over == []


def enumerate_names(keys: list[str]) -> Iterator[tuple[str, str]]:
    """Names and keys as the service has them."""
    return ((f"key{number}", key) for number, key in enumerate(keys))
