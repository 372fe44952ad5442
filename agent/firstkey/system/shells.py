"""Interactive shells of the running system: each writes its history when it ends, if it notices that.

A process is named by its number and its start time together: numbers are used again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

from firstkey import NamedTuple

PROC = "/proc"
NAMES = frozenset(
    {"ash", "bash", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "rbash", "sh", "tcsh", "zsh"}
)


class Process(NamedTuple):
    """A running process. `terminal`: whether it has a controlling one."""

    pid: int
    parent: int
    started: int
    """In clock ticks since the boot."""
    terminal: bool
    argv: tuple[str, ...]


class Shells(NamedTuple):
    """The shells of others, and those that this process was started from, the nearest first."""

    others: tuple[Process, ...]
    own: tuple[Process, ...]


def interactive() -> Shells:
    """All that have a person at them; a shell that runs a script is none of them."""
    seen = running()
    shells = [process for process in seen if is_interactive(process)]
    mine = _ancestors(seen, os.getpid())
    own = sorted((shell for shell in shells if shell.pid in mine), key=lambda shell: -shell.started)
    return Shells(tuple(shell for shell in shells if shell.pid not in mine), tuple(own))


def is_interactive(process: Process) -> bool:
    """Whether it is a shell with a terminal and without a script or command to run."""
    name, *arguments = process.argv
    if not process.terminal or os.path.basename(name).removeprefix("-") not in NAMES:
        return False
    # A script, or -c (alone or as -ec) with a command behind it.
    is_work = (word[:1] != "-" or (word[1:2] != "-" and "c" in word) for word in arguments)
    return "-i" in arguments or not any(is_work)


def end(shells: Iterable[Process]) -> int:
    """End them in a way that they cannot notice, so that none writes its history; returns how many."""
    ended = 0
    for process in shells:
        if _read(process.pid) == process:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
                ended += 1
    return ended


def outlive_terminal() -> None:
    """Let the end of the terminal, which comes with the end of its shell, not end this process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def running() -> list[Process]:
    """Every process that can be seen; those that end meanwhile are left out."""
    numbers: list[str] = []
    with suppress(OSError):
        numbers = os.listdir(PROC)
    return list(filter(None, (_read(int(number)) for number in numbers if number.isdecimal())))


def _ancestors(processes: list[Process], pid: int) -> set[int]:
    """The numbers of that process and of all that it descends from."""
    parents = {process.pid: process.parent for process in processes}
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


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
