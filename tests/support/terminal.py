"""A terminal with a shell in it, for what only happens while somebody types."""

from __future__ import annotations

import os
import pty
import select
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def typed(argv: list[str], lines: Sequence[str], *, until: str, seconds: float = 60) -> str:
    """Start the program on a terminal, type the lines, and return what it shows once it shows `until`.

    Each line is typed when the one before has been echoed to its end; none gets a newline that it does not
    have. After `seconds` what is there is returned as it is, for the caller to find the mistake in.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="dumb", PS1="> ", LC_ALL="C.UTF-8")
        os.execvp(argv[0], argv)
    try:
        return _conversation(terminal, lines, until, time.monotonic() + seconds)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def _conversation(terminal: int, lines: Sequence[str], until: str, deadline: float) -> str:
    shown = ""
    for line in lines:
        shown += _read(terminal, deadline, quiet=0.5)
        os.write(terminal, line.encode())
    while until not in shown and time.monotonic() < deadline:
        shown += _read(terminal, deadline, quiet=0.5)
    return shown


def _read(terminal: int, deadline: float, *, quiet: float) -> str:
    """What comes until nothing has come for `quiet` seconds."""
    shown = b""
    while time.monotonic() < deadline and select.select([terminal], [], [], quiet)[0]:
        shown += os.read(terminal, 4096)
    return shown.decode(errors="replace")


def recorded(log: Path) -> int:
    """A terminal at which nobody ever types; what it shows goes to the file. The caller closes it."""
    screen, terminal = pty.openpty()

    def record() -> None:
        # Reading fails once nobody has the terminal open any more.
        with log.open("wb", buffering=0) as file, suppress(OSError):
            while shown := os.read(screen, 4096):
                file.write(shown)
        os.close(screen)

    threading.Thread(target=record, daemon=True).start()
    return terminal
