"""A service manager's end of $NOTIFY_SOCKET: what it was told, in which order and when."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import processes

MARK = "HEARD="


class Told(NamedTuple):
    """One message: its assignments, and when it came, on time.monotonic()."""

    assignments: list[str]
    at: float


class Manager:
    """Listens from the moment it is made until it is closed."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "notify")
        self.messages: list[Told] = []
        self._marks = self._received = 0
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(self.address)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Manager:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send(b"")
        self._thread.join()
        self._channel.close()
        os.unlink(self.address)

    def _listen(self) -> None:
        while message := self._channel.recv(65536).decode():
            if message.startswith(MARK):
                self._received = int(message[len(MARK) :])
            else:
                self.messages.append(Told(message.splitlines(), time.monotonic()))

    def _send(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message, self.address)

    def catch_up(self) -> None:
        """Hear all that was sent up to now: messages arrive in their order."""
        self._marks += 1
        self._send(b"%s%d" % (MARK.encode(), self._marks))
        processes.wait_for(lambda: self._received == self._marks, "the manager's own message")

    @property
    def said(self) -> list[str]:
        """Everything that it was told, one assignment after the other."""
        return [assignment for logged in self.messages for assignment in logged.assignments]

    def was_told(self, assignment: str) -> bool:
        """Whether it was told exactly that."""
        return assignment in self.said

    def count(self, assignment: str) -> int:
        """How often it was told that."""
        return self.said.count(assignment)

    def wait(self, assignment: str) -> float:
        """When it was first told what begins like that; waits for it."""
        processes.wait_for(lambda: any(said.startswith(assignment) for said in self.said), assignment)
        return next(
            logged.at
            for logged in self.messages
            if any(said.startswith(assignment) for said in logged.assignments)
        )
