"""Child processes that do the work: heard, stopped, given up, and never left over."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest

from firstkey.reasons import FirstkeyError
from firstkey.system import child
from firstkey.system.child import Child

Send = Callable[[bytes], None]


def started(work: Callable[[Send], None]) -> Child:
    """A worker whose first word was heard, so that it is at work."""

    def speaking(send: Send) -> None:
        send(b"!")
        work(send)

    found = child.start(speaking)
    assert found.receive() == b"!"
    return found


def forever(_show: Send) -> None:
    """Work that never ends by itself."""
    while True:
        time.sleep(0.01)  # a signal just before a long one would be seen only after it


def stubborn(send: Send) -> None:
    """Work that does not stop when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(b"!")
    forever(send)


def test_what_it_says_is_heard_to_the_end() -> None:
    """All of it, more than a pipe holds, then the end, and no zombie."""
    said = os.urandom(300_000)
    made = child.start(lambda send: send(said))
    received = b""
    while part := made.receive():
        received += part

    assert received == said
    assert made.finish() is None
    assert processes.state(made.pid) is None


@pytest.mark.parametrize(
    "work, trouble",
    [
        (lambda _show: os.kill(os.getpid(), signal.SIGKILL), "signal 9"),
        (lambda _show: 1 / 0, "status 1"),
        (lambda _show: os._exit(3), "status 3"),
    ],
    ids=["killed", "raised", "exited"],
)
def test_a_bad_end_is_told_from_a_good_one(work: Callable[[Send], None], trouble: str) -> None:
    """Silence is not success."""
    made = child.start(work)
    assert made.receive() == b""
    assert trouble in str(made.finish())


def test_stopping_lets_it_tidy_up(tmp_path: object) -> None:
    """SIGTERM is an exception in the child, so what it opened is closed and what it made is removed."""
    file = os.path.join(str(tmp_path), "temporary")

    def tidy(send: Send) -> None:
        try:
            with open(file, "w", encoding="ascii"):
                pass
            send(b"!")
            forever(send)
        finally:
            os.unlink(file)

    made = child.start(tidy)
    assert made.receive() == b"!"
    assert os.path.exists(file)
    made.stop()
    assert not os.path.exists(file)


def test_one_that_does_not_stop_is_killed() -> None:
    """A worker that ignores SIGTERM is ended all the same, soon after its time to tidy up."""
    made = child.start(stubborn)
    assert made.receive() == b"!"
    begin = time.monotonic()
    made.stop(patience=0.2)
    assert time.monotonic() - begin < 20
    assert processes.state(made.pid) is None


def test_a_frozen_one_is_killed() -> None:
    """A stopped process takes no SIGTERM (it stands for one that hangs in the kernel)."""
    made = started(forever)
    os.kill(made.pid, signal.SIGSTOP)
    processes.wait_for(lambda: processes.state(made.pid) == "T")
    made.stop(patience=0.1)
    assert processes.state(made.pid) is None


def test_it_hears_nothing_of_hangups() -> None:
    """SIGHUP and SIGINT are for the supervisor: a terminal sends them to the whole group."""
    made = started(forever)
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(made.pid, number)
    assert not select.select([made.pipe], [], [], 0.3)[0]
    made.stop()


def test_no_descriptor_is_left() -> None:
    """Neither finishing nor stopping nor a failed question leaves one open."""
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        child.ask("a test", lambda _: "x", seconds=processes.PATIENCE)
        with pytest.raises(FirstkeyError):
            child.ask("a test", lambda _: time.sleep(60), seconds=0.05)
        started(forever).stop()
    assert os.listdir("/proc/self/fd") == before


def test_a_question_is_answered_or_given_up() -> None:
    """The answer, whatever it is, or an error where it takes too long."""
    for answer in ("answer", "", None, False):
        assert child.ask("a test", lambda _: answer, seconds=processes.PATIENCE) == answer  # noqa: B023
    begin = time.monotonic()
    with pytest.raises(FirstkeyError, match="a test did not answer"):
        child.ask("a test", lambda _: time.sleep(60), seconds=0.2)
    assert 0.2 <= time.monotonic() - begin < 20


HOLDING = """
    import os, sys, time
    from firstkey.system import child
    def rest(_=None):
        while True:
            time.sleep(0.01)  # a signal just before a long one would be seen only after it
    def work(send):
        inner = child.start(rest)
        send(b"%d %d" % (os.getpid(), inner.pid))
        rest()
    made = child.start(work)
    print(made.receive().decode(), flush=True)
    rest()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_it_does_not_outlive_its_parent(number: int) -> None:
    """However the parent ends, its worker ends too, and so does what that one started."""
    parent = processes.start(HOLDING)
    assert parent.stdout
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(parent.pid, number)
    parent.communicate(timeout=processes.PATIENCE)
    for pid in pids:
        processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]


def test_a_hanging_grandchild_does_not_hide_the_end() -> None:
    """The end of file comes with the worker's end, though a child of its own hangs on (a dead disk)."""

    def work(send: Send) -> None:
        grandchild = child.start(stubborn)
        assert grandchild.receive() == b"!"
        send(b"%d" % grandchild.pid)

    made = child.start(work)
    grandchild = int(made.receive())
    try:
        assert select.select([made.pipe], [], [], 30)[0]
        assert made.receive() == b""
        assert not processes.is_gone(grandchild)
        assert made.finish() is None
    finally:
        os.kill(grandchild, signal.SIGKILL)


AT_THE_FORK = """
    import ctypes, functools, os, signal, sys
    from firstkey.system import child
    child.own_signals(0)
    # In C: what a handler of Python's raises within a function of Python's here would be lost.
    os.register_at_fork(after_in_child=functools.partial(ctypes.CDLL(None)["raise"], signal.SIGTERM))
    try:
        made = child.start(lambda send: send(b"x"))
        made.receive()
        made.finish()
    finally:
        with open(sys.argv[1], "a") as file:
            print(os.getpid(), file=file)
"""


def test_a_signal_in_the_instant_of_the_fork_does_not_run_the_parents_code(tmp_path: Path) -> None:
    """What the parent would do on its way out (removing its files) is the parent's alone."""
    parent = processes.start(AT_THE_FORK, tmp_path / "ran")
    parent.communicate(timeout=processes.PATIENCE)
    assert (tmp_path / "ran").read_text() == f"{parent.pid}\n"


IN_A_DESTRUCTOR = """
    import os, sys, time
    from firstkey.system import child
    child.own_signals(7)
    class Thing:
        def __del__(self):
            os.kill(os.getpid(), int(sys.argv[1]))
            time.sleep(0)
    thing = Thing()
    del thing
    time.sleep(60)
"""


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_not_lost_in_a_destructor(order: signal.Signals) -> None:
    """What is raised there (and in the callbacks of an import) is dropped, and told of at length."""
    child = processes.start(IN_A_DESTRUCTOR, int(order))
    out, err = child.communicate(timeout=processes.PATIENCE)
    assert (child.returncode, out, err) == (7, "", "")


STOPPED_AT_ANY_MOMENT = """
    import os, sys
    from firstkey.system import child
    from firstkey.system.files import Looks
    from firstkey.system.tree import Tree
    child.own_signals(0)
    def work(send):
        with Tree(sys.argv[1]) as tree, tree.opened("/") as directory:
            send(b"!")
            while True:
                directory.replace("file", b"x" * 5000, Looks(0o600))
    made = child.start(work)
    made.receive()
    print("at work", flush=True)
    try:
        made.receive()
    finally:
        made.stop()
"""


@pytest.mark.parametrize("round_", range(8))
@pytest.mark.sample(3)
def test_sigterm_at_any_moment_leaves_nothing_half_done(tmp_path: object, round_: int) -> None:
    """In the middle of writing file after file: the file is whole, and no temporary one lies about."""
    parent = processes.start(STOPPED_AT_ANY_MOMENT, tmp_path)
    assert parent.stdout
    assert parent.stdout.readline() == "at work\n"
    time.sleep(0.003 * round_)
    parent.send_signal(signal.SIGTERM)
    _, err = parent.communicate(timeout=processes.PATIENCE)
    assert parent.returncode == 0, err
    assert os.listdir(str(tmp_path)) in ([], ["file"])


def test_signals_are_taken_back_from_whoever_started_us() -> None:
    """A starter that ignored SIGCHLD or blocked SIGTERM changes neither how we end nor what we learn."""
    code = """
        import os, signal, subprocess, time
        from firstkey.system import command, child
        child.own_signals(7)
        assert child.ask("a test", lambda _: "x", seconds=30) == "x"
        assert command.run(["/bin/false"]).status == 1
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """

    def burden() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    child = subprocess.Popen(
        processes.program(code),
        stdout=subprocess.PIPE,
        text=True,
        env=processes.environment(),
        preexec_fn=burden,  # noqa: PLW1509 - no threads run here
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=processes.PATIENCE)
    assert child.returncode == 7


def test_no_room_for_a_process_is_an_error_with_a_reason() -> None:
    """Where the kernel has no process left, it is said, and nothing stays open (RLIMIT_NPROC binds users)."""
    code = """
        import os, resource, sys
        from firstkey.reasons import FirstkeyError
        from firstkey.system import child
        if os.geteuid() == 0:
            os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        before = os.listdir("/proc/self/fd")
        try:
            child.start(lambda send: None)
        except FirstkeyError as error:
            print(error.reason.code, before == os.listdir("/proc/self/fd"))
    """
    assert processes.run(code) == "internal-error True\n"
