"""The processes that run now, as far as proc(5) tells; and ending one at once.

A process is named by its number and its start time together: numbers are used again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from firstkey.named_tuple import NamedTuple

PROC = "/proc"


class Process(NamedTuple):
    """A running process. `terminal` tells whether it has a controlling one."""

    pid: int
    parent: int
    started: int
    """In clock ticks since the boot."""
    terminal: bool
    argv: tuple[str, ...]


def running() -> list[Process]:
    """Every process that can be seen; those that end meanwhile are left out."""
    return list(_seen())


def end(process: Process) -> bool:
    """End it in a way that it cannot notice (SIGKILL); returns whether it was still there."""
    if _read(process.pid) != process:
        return False
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
        return True
    return False


def ancestors(processes: list[Process], pid: int) -> set[int]:
    """The numbers of that process and of all that it descends from."""
    parents = {process.pid: process.parent for process in processes}
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def outlive_terminal() -> None:
    """Let the end of the terminal, which comes with the end of its shell, not end this process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _seen() -> Iterator[Process]:
    with suppress(OSError):
        for name in os.listdir(PROC):
            process = _read(int(name)) if name.isdecimal() else None
            if process:
                yield process


def _read(pid: int) -> Process | None:
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as source:
            # The name in parentheses may have blanks and parentheses in it.
            fields = source.read().rpartition(b")")[2].split()
        with open(f"{PROC}/{pid}/cmdline", "rb") as source:
            words = source.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    argv = tuple(word.decode("utf-8", "replace") for word in words)
    # Fields 4, 7 and 22 of the whole line; the first two are gone.
    return Process(pid, int(fields[1]), int(fields[19]), int(fields[4]) != 0, argv)
