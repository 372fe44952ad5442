"""Running shells: which have a person at them, and ending one so that it writes no history."""

from __future__ import annotations

import os
import pty
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import is_gone, wait_for

from firstkey.system import shells
from firstkey.system.shells import Process


@pytest.mark.parametrize(
    "argv,expected",
    [
        (("-bash",), True),
        (("/bin/bash",), True),
        (("bash", "-i"), True),
        (("zsh", "-l"), True),
        (("bash", "--rcfile", "/x", "-i"), True),
        (("bash", "/opt/build.sh"), False),
        (("sh", "-c", "make"), False),
        (("bash", "-ec"), False),
        (("python3",), False),
        (("",), False),
    ],
)
def test_a_person_is_told_from_a_script(argv: tuple[str, ...], expected: bool) -> None:
    """A shell with a terminal and nothing to run has a person at it."""
    assert shells.is_interactive(Process(7, 1, 1, terminal=True, argv=argv)) is expected
    assert not shells.is_interactive(Process(7, 1, 1, terminal=False, argv=argv))


@pytest.fixture
def person(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A bash that somebody types into: its number, and the terminal."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(HOME=str(tmp_path), HISTFILE=str(tmp_path / "history"), HISTSIZE="100")
        os.execvp("bash", ["bash", "--norc", "-i"])
    os.write(terminal, b"echo typed; echo ready-$((40+2))\n")
    shown = b""
    while b"ready-42" not in shown:
        shown += os.read(terminal, 4096)
    yield pid, terminal
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    os.close(terminal)


def find(pid: int) -> Process:
    """The running process of that number."""
    return next(process for process in shells.running() if process.pid == pid)


def test_ending_a_shell_keeps_its_history_from_the_disk(person: tuple[int, int], tmp_path: Path) -> None:
    """The kernel ends it; it cannot notice, so it writes nothing."""
    shell = find(person[0])
    assert shells.is_interactive(shell)
    assert shells.end((shell,)) == 1
    assert os.WTERMSIG(os.waitpid(shell.pid, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "history").exists()
    assert shells.end((shell,)) == 0


def test_a_shell_that_notices_would_write(person: tuple[int, int], tmp_path: Path) -> None:
    """What this is good for: the end of its terminal makes the same shell write what was typed."""

    def has_ended() -> bool:
        # Said just before it reads, bash would notice only what comes after that: so it is said again.
        os.kill(person[0], signal.SIGHUP)
        return is_gone(person[0])

    wait_for(has_ended, "the shell's end")
    assert "echo typed" in (tmp_path / "history").read_text()


def test_a_number_that_is_used_again_is_spared(person: tuple[int, int]) -> None:
    """Another process with the same number is not the one that was meant."""
    shell = find(person[0])
    assert shells.end([shell._replace(started=shell.started - 1)]) == 0
    assert find(person[0]) == shell


def test_own_shells_are_told_from_others(person: tuple[int, int]) -> None:
    """A shell that this process does not descend from is another's."""
    found = shells.interactive()
    assert person[0] in [shell.pid for shell in found.others]
    assert person[0] not in [shell.pid for shell in found.own]
