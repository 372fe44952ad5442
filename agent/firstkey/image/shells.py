"""Interactive shells of the running system: each writes its history when it ends, if it notices that."""

from __future__ import annotations

import os

from firstkey.named_tuple import NamedTuple
from firstkey.system import processes
from firstkey.system.processes import Process

NAMES = frozenset(
    {"ash", "bash", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "rbash", "sh", "tcsh", "zsh"}
)


class Shells(NamedTuple):
    """The shells of others, and those that this process was started from, the nearest first."""

    others: tuple[Process, ...]
    own: tuple[Process, ...]


def interactive() -> Shells:
    """All that have a person at them; a shell that runs a script is none of them."""
    seen = processes.running()
    shells = [process for process in seen if is_interactive(process)]
    mine = processes.ancestors(seen, os.getpid())
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


def end(shells: tuple[Process, ...]) -> int:
    """End them, so that none can write its history; returns how many there still were."""
    return sum(processes.end(shell) for shell in shells)
