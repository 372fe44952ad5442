"""Interactive shells of the running system: each writes its history when it ends, if it notices that.

A process is named by its number and its start time together: numbers are used again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
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
    return "-i" in arguments or not any(map(_gives_work, arguments))


def _gives_work(argument: str) -> bool:
    """Whether the argument is a script, or -c (alone or as -ec) and a command behind it."""
    return not argument.startswith("-") or (argument[1:2] != "-" and "c" in argument)


def end(shells: Iterable[Process]) -> int:
    """End them, so that none can write its history; returns how many there still were."""
    return sum(map(_end, shells))


def outlive_terminal() -> None:
    """Let the end of the terminal, which comes with the end of its shell, not end this process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def running() -> list[Process]:
    """Every process that can be seen; those that end meanwhile are left out."""
    return list(_seen())


def _end(process: Process) -> bool:
    """End it in a way that it cannot notice (SIGKILL); returns whether it was still there."""
    if _read(process.pid) != process:
        return False
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
        return True
    return False


def _ancestors(processes: list[Process], pid: int) -> set[int]:
    """The numbers of that process and of all that it descends from."""
    parents = {process.pid: process.parent for process in processes}
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


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
