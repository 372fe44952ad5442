"""One firstkey at a time: the lock goes with the process that holds it, however that ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import places
import processes
import pytest

from firstkey import events, reasons
from firstkey.cli.common import locked
from firstkey.events import Entry
from firstkey.reasons import FirstkeyError
from firstkey.system.tree import Tree

HOLDING = """
    import sys, time
    from firstkey.cli.common import locked
    from firstkey.system import child
    from firstkey.system.tree import Tree
    with Tree(sys.argv[1]) as tree, locked(tree, 0, print):
        inner = child.start(lambda send: (send(b"!"), time.sleep(60)))
        inner.receive()
        print(inner.pid, flush=True)
        time.sleep(60)
"""


def quiet(_: Entry) -> None:
    """Nobody wants to know."""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """An empty tree."""
    with Tree(str(tmp_path)) as opened:
        yield opened


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, and has a child."""
    other = processes.start(HOLDING, tmp_path)
    yield other
    other.kill()
    other.communicate()


def child_of(holder: subprocess.Popen[str]) -> int:
    """The holder's child; the lock is held once this is known."""
    assert holder.stdout
    return int(holder.stdout.readline())


def test_it_is_held_and_let_go(tmp_path: Path, tree: Tree) -> None:
    """Again and again in one process, and nothing stays open; the file is for its owner alone."""
    with locked(tree, 0, quiet):
        pass
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with locked(tree, 0, quiet):
            pass
    assert os.listdir("/proc/self/fd") == before
    file = tmp_path / "run" / "firstkey" / "lock"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755


def test_a_second_one_waits_and_then_says_so(tree: Tree, holder: subprocess.Popen[str]) -> None:
    """It is told once, waits as long as it was asked to, and the reason is already-running."""
    child_of(holder)
    logged: list[Entry] = []
    begin = time.monotonic()
    with (
        pytest.raises(FirstkeyError) as caught,
        locked(tree, 0.6, logged.append),
    ):
        pass
    assert 0.6 <= time.monotonic() - begin < 20
    assert caught.value.reason is reasons.ALREADY_RUNNING
    assert [entry.event for entry in logged] == [events.ALREADY_RUNNING]


def test_the_second_goes_on_when_the_first_ends(tree: Tree, holder: subprocess.Popen[str]) -> None:
    """Without end, if it is asked to wait like that."""
    child_of(holder)

    def end(_: Entry) -> None:
        holder.send_signal(signal.SIGKILL)

    with locked(tree, float("inf"), end):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_of_the_holder_does_not_keep_it(
    tree: Tree, holder: subprocess.Popen[str], number: int
) -> None:
    """A child that hangs on a dead disk for ever may not keep every later firstkey from its work."""
    pid = child_of(holder)
    os.kill(pid, signal.SIGSTOP)
    processes.wait_for(lambda: processes.state(pid) == "T", "the child's standstill")
    holder.send_signal(number)
    holder.wait(processes.PATIENCE)
    try:
        # The kernel may wake what was stopped when nobody is left to do so (setpgid(2)); it is there still.
        assert processes.state(pid) in {"T", "R", "S"}
        with locked(tree, processes.PATIENCE, quiet):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_child_that_ends_does_not_lose_it(tree: Tree) -> None:
    """What the holder forks ends without letting the holder's lock go."""
    with locked(tree, 0, quiet):
        assert processes.in_child(lambda: b"x") == b"x"
        assert processes.in_child(lambda: attempt(tree)) == b"already-running"


@pytest.mark.root
def test_a_tree_of_root_s_is_for_root(tree: Tree) -> None:
    """Somebody else is told whose it is, with the tree's name: /run is not the running system's here."""

    def as_nobody() -> bytes:
        os.setresuid(65534, 65534, 65534)
        try:
            with locked(tree, 0, quiet):
                return b"held"
        except FirstkeyError as error:
            return f"{error.exit_status} {error.reason.code} {error.message}".encode()

    said = processes.in_child(as_nobody)
    assert said
    assert said.decode().startswith(f"77 needs-root in the tree under {tree.root}: cannot ")


def attempt(tree: Tree) -> bytes:
    """What another process gets."""
    try:
        with locked(tree, 0, quiet):
            return b"held"
    except FirstkeyError as error:
        return error.reason.code.encode()


def test_an_old_file_is_no_lock(tmp_path: Path, tree: Tree) -> None:
    """Only a living holder counts, not a file that an earlier boot or a crash left."""
    file = tmp_path / "run" / "firstkey" / "lock"
    file.parent.mkdir(parents=True)
    file.write_text(f"{os.getpid()}\n")
    with locked(tree, 0, quiet):
        assert attempt_elsewhere(tree) == b"already-running"


def attempt_elsewhere(tree: Tree) -> bytes | None:
    """What another process gets, asked from here."""
    return processes.in_child(lambda: attempt(tree))


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_odd_things_in_its_place_are_refused(tmp_path: Path, tree: Tree, kind: str) -> None:
    """Neither followed, nor waited for, nor written to; nothing of it counts as no room for a lock."""
    spot = tmp_path / "run" / "firstkey" / "lock"
    spot.parent.mkdir(parents=True)
    target = tmp_path / "target"
    if kind == "symlink":
        spot.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(spot)
    else:
        spot.mkdir()
    with pytest.raises(FirstkeyError) as caught, locked(tree, 0, quiet):
        pass
    assert caught.value.reason in (reasons.SYMLINK_REFUSED, reasons.NOT_A_REGULAR_FILE)
    assert not target.exists()


WITHOUT = """
    import os, sys
    from firstkey.cli.common import locked
    from firstkey.system.tree import Tree
    assert os.system(f"mount -o remount,ro {sys.argv[1]}") == 0
    with Tree(sys.argv[1]) as tree:
        with locked(tree, 0, lambda entry: print("told", entry.event.name, entry.fields["reason"])):
            print("went on")
"""


@pytest.mark.root
def test_no_room_for_a_lock_keeps_nobody_out(tmp_path: Path) -> None:
    """With a read-only /run the work goes on without, for those who can say so."""
    assert places.run_on_tmpfs(WITHOUT, tmp_path) == "told state-not-saved read-only\nwent on\n"
