"""A daemon as systemd and people start it: a program, a machine, a service manager and a real service."""

from __future__ import annotations

import os
import sys
import time
from tempfile import TemporaryFile
from typing import NamedTuple

import fork_server
import processes
from machine import Machine
from manager import Manager

from firstkey.metadata.emulator import Emulator


class Ended(NamedTuple):
    """How a daemon ended, and all that it said."""

    status: int
    said: str


class Daemon:
    """A running daemon, and how it is looked at."""

    def __init__(self, manager: Manager, options: list[str], environ: dict[str, str]) -> None:
        self.manager = manager
        # A file, unlike a pipe, takes all that it says however long nobody reads.
        self._voice = TemporaryFile("w+b")  # noqa: SIM115 - for as long as the daemon lives
        self._received = 0
        self.started = time.monotonic()
        self.process = fork_server.start("daemon", *options, environ=environ, out=self._voice)

    def received(self) -> str:
        """What it said since this was asked last."""
        new = os.pread(self._voice.fileno(), 1 << 30, self._received)
        self._received += len(new)
        return new.decode()

    @property
    def workers(self) -> list[int]:
        """Its children."""
        return processes.children(self.process.pid)

    def end(self, number: int | None = None) -> Ended:
        """Wait for its end, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        self.process.wait(processes.PATIENCE)
        self.manager.catch_up()
        self._received = 0
        return Ended(self.process.wait(), self.received())

    def close(self) -> None:
        """End it in any case; nothing can be asked of it any more."""
        self.process.kill()
        self.process.wait()
        self._voice.close()


class Lab:
    """A machine, its metadata service, and a service manager that starts daemons."""

    def __init__(self, machine: Machine, service: Emulator, manager: Manager, key: str) -> None:
        self.machine = machine
        self.service = service
        self.manager = manager
        self.key = key
        self.daemons: list[Daemon] = []

    def argv(self, *options: str) -> list[str]:
        """The command line of a daemon on this machine."""
        return [sys.executable, "-m", "firstkey", "daemon", *self.options(*options)]

    def options(self, *options: str) -> list[str]:
        """What makes firstkey work on this machine."""
        return ["--root", str(self.machine.root), "--imds", self.service.url, *options]

    def daemon(self, *options: str, volume: str = "-v", **environ: str) -> Daemon:
        """Start one."""
        environment = processes.environment(**{"NOTIFY_SOCKET": self.manager.address, **environ})
        self.daemons.append(Daemon(self.manager, self.options(volume, *options), environment))
        return self.daemons[-1]

    def configure(self, text: str) -> None:
        """Settings beside those of the machine's user, and of host keys that take no time."""
        user = f"[Keys]\nUsers={self.machine.user}\n"
        self.machine.configure(f"{user}[HostKeys]\nTypes=ed25519 ecdsa\n{text}")

    def end(self) -> None:
        """End what a test left."""
        for daemon in self.daemons:
            daemon.close()

    @property
    def left_over(self) -> list[str]:
        """Temporary files that lie about in the tree."""
        return [str(path) for path in self.machine.root.rglob(".firstkey-*")]
