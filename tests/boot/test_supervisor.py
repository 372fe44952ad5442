"""The daemon's promises about time and its end, with workers that do anything but what they should."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from manager import Manager

from firstkey import reasons
from firstkey.boot.supervisor import Plan, Ready, Refused, Result, as_line, from_line
from firstkey.model import FAILED, NO_KEY, OK, PARTIAL, UNCHANGED, UNREACHABLE, Report, UserResult
from firstkey.reasons import Reason, Refusal

PROGRAM = """
    import os, signal, sys, time
    from pathlib import Path
    from firstkey.boot.supervisor import Plan, Ready, Refused, Result, Supervisor, as_line
    from firstkey.reasons import FirstkeyError
    from firstkey.system import child

    note = Path(sys.argv[1])
    note.touch()

    def noted(is_first):
        with note.open("a") as file:
            print("first" if is_first else "again", os.getpid(), file=file)
        return len(note.read_text().splitlines())

    def hang():
        while True:
            time.sleep(0.01)  # a signal just before a long one would be seen only after it

    def work(is_first, send):
        number = noted(is_first)
        said = lambda word: send(as_line(word))
        WORK

    def log(entry):
        print(entry.event.name, *sorted(entry.fields.values()), flush=True)

    child.own_signals(0)
    try:
        # As the command does it: a signal that comes while Python ends would kill it.
        os._exit(Supervisor(work=work, log=log, started=time.monotonic() - AGE).run())
    except FirstkeyError as error:
        print("raised", error.reason.code, error.message)
        sys.exit(error.exit_status)
"""


class Daemon:
    """A supervisor as a program of its own, and what can be seen of it."""

    def __init__(self, manager: Manager, note: Path, work: str, age: float) -> None:
        self.manager = manager
        self.note = note
        self.started = time.monotonic()
        lines = work.strip().replace("\n", "\n        ")
        self.process = subprocess.Popen(
            processes.program(PROGRAM.replace("WORK", lines).replace("AGE", str(age)), note),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=processes.environment(NOTIFY_SOCKET=manager.address),
        )

    @property
    def orders(self) -> list[list[str]]:
        """Whether each worker was the first to read the configuration, and its number."""
        return [line.split() for line in self.note.read_text().splitlines()] if self.note.exists() else []

    def wait_for_workers(self, number: int) -> None:
        """Wait until so many have been started."""
        processes.wait_for(lambda: len(self.orders) >= number, f"worker {number}")

    def end(self) -> tuple[int, str]:
        """Its exit status and all that it said, once it has ended by itself."""
        out, _ = self.process.communicate(timeout=processes.PATIENCE)
        self.manager.catch_up()
        return self.process.returncode, out

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        self.process.send_signal(number)


class Start:
    """Starts daemons, and ends those that a test left."""

    def __init__(self, manager: Manager, directory: Path) -> None:
        self._manager = manager
        self._directory = directory
        self.made: list[Daemon] = []

    def __call__(self, work: str, *, age: float = 0.0) -> Daemon:
        self.made.append(Daemon(self._manager, self._directory / f"note{len(self.made)}", work, age))
        return self.made[-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor with the work that is given in words of Python."""
    with Manager(tmp_path) as manager:
        starting = Start(manager, tmp_path)
        yield starting
        for daemon in starting.made:
            daemon.process.kill()
            daemon.process.communicate()


def is_clean(daemon: Daemon) -> bool:
    """Whether none of its workers is left."""
    for order in daemon.orders:
        processes.wait_for(lambda pid=int(order[1]): processes.is_gone(pid), "the worker's end")  # type: ignore[misc]
    return True


DONE = "said(Plan(30)); said(Result('ok', None))"


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Plan(1.5),
        Ready("it is"),
        Result(OK, None),
        Result(PARTIAL, None, "a b"),
        Result(FAILED, "io-error"),
        Refused("m\n", "x", "h", 78),
    ],
)
def test_a_word_arrives_as_it_was_said(value: Plan | Ready | Result | Refused) -> None:
    """On one line, whatever is in it."""
    said = as_line(value)
    assert said.count(b"\n") == 1
    assert said.endswith(b"\n")
    assert from_line(said) == value


# --- readiness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome, status", [(OK, 0), (NO_KEY, 0), (PARTIAL, 1), (FAILED, 1)])
def test_the_first_answer_lets_sshd_start(start: Start, outcome: str, status: int) -> None:
    """READY as soon as the work is done, whatever came of it, and then the daemon ends."""
    daemon = start(f"said(Plan(30)); said(Result({outcome!r}, None))")
    ended, out = daemon.end()
    assert ended == status, out
    assert daemon.manager.count("READY=1") == 1
    assert daemon.manager.was_told(f"STATUS=Done: {outcome}")
    assert [order[0] for order in daemon.orders] == ["first"]
    assert is_clean(daemon)


def test_systemd_is_asked_for_the_time_that_it_takes(start: Start) -> None:
    """More than the default before anything is read, and again once the configuration asks for more."""
    daemon = start("said(Plan(300)); time.sleep(0.2); said(Result('ok', None))")
    daemon.end()
    extensions = [said for said in daemon.manager.said if said.startswith("EXTEND_TIMEOUT_USEC=")]
    seconds = [int(said.split("=")[1]) / 1e6 for said in extensions]
    assert len(seconds) == 2
    assert 55 <= seconds[0] <= 60
    assert 325 <= seconds[1] <= 330
    assert daemon.manager.said[0] == extensions[0]


HANGS = {
    "before the configuration is read": "hang()",
    "while it asks": "said(Plan(DEADLINE)); hang()",
    "deaf to signals": "said(Plan(DEADLINE)); signal.signal(signal.SIGTERM, signal.SIG_IGN); hang()",
    "frozen": "said(Plan(DEADLINE)); os.kill(os.getpid(), signal.SIGSTOP)",
    "with half a word": "said(Plan(DEADLINE)); send(b'[\"Resu'); hang()",
}


@pytest.mark.parametrize("how", HANGS)
@pytest.mark.sample(5)
def test_a_worker_that_hangs_does_not_hold_the_boot(start: Start, how: str) -> None:
    """READY at the deadline, counted from the daemon's start, and not before; the worker goes on."""
    # Before a worker has read the configuration, the default of 30 s holds: this daemon says it is older.
    age = 28.5 if "before" in how else 0.0
    daemon = start(HANGS[how].replace("DEADLINE", "1.5"), age=age)
    ready = daemon.manager.wait("READY=1")
    assert 1.4 <= ready - daemon.started < 20
    assert daemon.manager.was_told(
        "STATUS=No answer from the metadata service yet; going on with the attempts"
    )
    assert not processes.is_gone(int(daemon.orders[0][1]))
    daemon.signal(signal.SIGTERM)
    ended, out = daemon.end()
    assert ended == 0, out
    assert "imds-unreachable-at-deadline" in out
    assert is_clean(daemon)


def test_the_time_before_the_daemon_counts(start: Start) -> None:
    """What Python took to load is a part of the deadline: one that has passed already holds nothing."""
    daemon = start("said(Plan(20)); hang()", age=25.0)  # not 30, the deadline until a worker has said Plan
    assert daemon.manager.wait("READY=1") - daemon.started < 15
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


def test_what_no_answer_is_expected_for_is_not_held(start: Start) -> None:
    """READY as soon as the worker says so, without a word on the deadline; the work goes on."""
    daemon = start("said(Plan(60)); said(Ready('not held')); hang()")
    assert daemon.manager.wait("READY=1") - daemon.started < 40
    assert not processes.is_gone(int(daemon.orders[0][1]))
    daemon.signal(signal.SIGTERM)
    ended, out = daemon.end()
    assert (ended, "imds-unreachable-at-deadline" in out) == (0, False), out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_ends_the_daemon_is_reported(start: Start, number: signal.Signals) -> None:
    """To the service manager and in the log, whichever of the usual signals it is."""
    daemon = start("said(Plan(60)); said(Ready('not held')); hang()")
    daemon.manager.wait("READY=1")
    daemon.signal(number)
    ended, out = daemon.end()
    assert (ended, "stopping asked to by a signal" in out) == (0, True), out
    daemon.manager.wait("STOPPING=1")
    assert is_clean(daemon)


def test_a_signal_that_the_caller_ignores_stays_ignored(start: Start) -> None:
    """As nohup has SIGHUP ignored; the kernel itself tells (proc(5), SigIgn)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        daemon = start("said(Plan(60)); said(Ready('not held')); hang()")
    finally:
        signal.signal(signal.SIGHUP, before)
    daemon.manager.wait("READY=1")
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    ignored = int(status.split("SigIgn:")[1].split()[0], 16)
    assert [ignored >> number - 1 & 1 for number in (signal.SIGHUP, signal.SIGTERM)] == [1, 0]
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


@pytest.mark.slow
def test_a_late_answer_is_told(start: Start) -> None:
    """After the deadline the work goes on until there is an answer; then the daemon ends."""
    daemon = start("said(Plan(0.3)); time.sleep(4); said(Result('ok', None))")
    ended, out = daemon.end()
    assert ended == 0
    assert "imds-late-answer" in out
    assert daemon.manager.count("READY=1") == 1
    assert daemon.manager.was_told("STATUS=Done: ok")


def test_what_time_can_heal_is_tried_again(start: Start) -> None:
    """Sshd may start with the first answer; the home is looked for until it is there, and all is done."""
    daemon = start(
        "said(Plan(30)); said(Result('partial', None, 'ann') if number < 3 else Result('ok', None))"
    )
    ended, out = daemon.end()
    assert (ended, out) == (0, "")
    assert len(daemon.orders) == 3
    assert time.monotonic() - daemon.started > 1.4, "the pauses grow"
    assert daemon.manager.said[2:4] == ["READY=1", "STATUS=Done: partial; going on with the attempts for ann"]
    assert daemon.manager.count("READY=1") == 1
    assert daemon.manager.said[-1] == "STATUS=Done: ok"


@pytest.mark.parametrize(
    "failure",
    [
        "os.kill(os.getpid(), signal.SIGKILL)", "1 / 0", "os._exit(0)", "said(Result('unreachable', None))",
        "said(Plan(30)); said(Result('failed', 'internal-error'))", "said(Plan(30)); sys.exit(3)",
        "said(Plan(30)); said(Refused('x', 'io-error', 'h', 1))",
    ],
)  # fmt: skip
@pytest.mark.sample(3)
def test_what_is_no_answer_is_tried_again(start: Start, failure: str) -> None:
    """A worker that dies, or brings nothing, is followed by another after a growing pause; it is told why."""
    daemon = start(f"if number < 3: {failure}\nelse: {DONE}")
    ended, out = daemon.end()
    assert ended == 0, out
    assert len(daemon.orders) >= 3
    assert daemon.manager.count("READY=1") == 1
    if "Result" not in failure:
        assert "internal-error" in out or "run-failed" in out


def test_the_pauses_between_attempts_grow(start: Start) -> None:
    """A service that never gives a usable answer is not asked without end at full speed."""
    daemon = start("said(Plan(60)); said(Result('failed', 'bad-answer'))")
    daemon.wait_for_workers(3)
    assert time.monotonic() - daemon.started > 1.4
    assert [order[0] for order in daemon.orders[:3]] == ["first", "again", "again"], "mistakes are told once"
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


def test_one_that_cannot_begin_says_so_to_whoever_starts_it(start: Start) -> None:
    """A configuration file that is not there ends the daemon at once, with the status for it."""
    daemon = start("said(Refused('no such file', 'config-invalid', 'h', 78))")
    ended, out = daemon.end()
    assert ended == 78
    assert "raised config-invalid no such file" in out
    assert not daemon.manager.was_told("READY=1")


def test_switched_off(start: Start) -> None:
    """Ready at once, and done; the status goes on saying why."""
    daemon = start(
        "said(Plan(30)); said(Ready('Switched off: somebody said so')); said(Result('disabled', None))"
    )
    ended, out = daemon.end()
    assert ended == 0
    assert out == ""
    assert daemon.manager.was_told("READY=1")
    assert daemon.manager.said[-1] == "STATUS=Switched off: somebody said so"


def test_a_worker_that_hangs_on_its_way_out_is_not_waited_for(start: Start) -> None:
    """It has said that it is done; should its exit hang (a dead disk), the boot goes on all the same."""
    daemon = start(f"{DONE}; signal.signal(signal.SIGTERM, signal.SIG_IGN); hang()")
    ready = daemon.manager.wait("READY=1")
    assert daemon.end()[0] == 0
    assert time.monotonic() - ready < 20
    assert is_clean(daemon)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_asked_to(start: Start, number: int) -> None:
    """STOPPING, status 0, the worker ended politely."""
    daemon = start(
        """
        said(Plan(30))
        try:
            Path(str(note) + ".work").touch()
            hang()
        finally:
            Path(str(note) + ".tidy").touch()
    """.replace("\n        ", "\n")
    )
    processes.wait_for(Path(f"{daemon.note}.work").exists)
    daemon.signal(number)
    ended, out = daemon.end()
    assert ended == 0, out
    assert daemon.manager.was_told("STOPPING=1")
    assert not daemon.manager.was_told("READY=1")
    assert Path(f"{daemon.note}.tidy").exists()
    assert is_clean(daemon)


def test_many_signals_at_once_are_one(start: Start) -> None:
    """A storm of them neither kills it nor confuses it."""
    daemon = start("said(Plan(30)); hang()")
    daemon.wait_for_workers(1)
    for number in [signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH] * 100:
        daemon.signal(number)
    assert daemon.process.poll() is None
    for _ in range(20):
        daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0
    assert is_clean(daemon)


@pytest.mark.parametrize("millisecond", range(0, 60, 4))
@pytest.mark.sample(4)
def test_sigterm_at_any_moment_ends_it_with_status_0(start: Start, millisecond: int) -> None:
    """From its very first message on, through starting a worker, hearing it and collecting it."""
    daemon = start("said(Plan(30)); time.sleep(0.005); said(Result('failed', 'bad-answer'))")
    daemon.manager.wait("EXTEND_TIMEOUT_USEC=")
    time.sleep(millisecond / 1000)
    daemon.signal(signal.SIGTERM)
    ended, out = daemon.end()
    assert ended == 0, out
    assert daemon.manager.was_told("STOPPING=1")
    assert is_clean(daemon)


def test_the_end_of_the_daemon_is_the_end_of_its_worker(start: Start) -> None:
    """Even by SIGKILL."""
    daemon = start("said(Plan(30)); hang()")
    daemon.wait_for_workers(1)
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()
    assert is_clean(daemon)


@pytest.mark.parametrize(
    "reason, late",
    [
        (reasons.HOME_MISSING, "ann"),
        (reasons.READ_ONLY, "ann"),
        (reasons.NO_SPACE, "ann"),
        (reasons.NO_SUCH_USER, "ann"),
        (reasons.SYMLINK_REFUSED, ""),
        (None, ""),
    ],
)
def test_what_time_can_heal(reason: Reason | None, late: str) -> None:
    """A home or account that is missing, a file system that is read-only or full; not what needs repair."""
    refusal = Refusal(reason, "so it is") if reason else None
    users = (UserResult("bob", None, UNCHANGED), UserResult("ann", None, FAILED, refusal=refusal))
    assert Result.of(Report(PARTIAL, users=users)).late == late


def test_unreachable_is_no_final_word() -> None:
    """What is tried again, and what is not."""
    assert not Result(UNREACHABLE, None).is_final
    assert not Result(FAILED, "bad-answer").is_final
    assert Result(FAILED, "imds-disabled").is_final
    assert Result(PARTIAL, None).is_final
