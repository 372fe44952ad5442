"""Detaching, in processes of their own: the PID file's lock says whether the daemon runs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstkey
from firstkey.system import detach

AGENT = str(Path(firstkey.__file__).parents[1])

DAEMON = """
import fcntl, json, os, resource, sys, time
from firstkey.reasons import FirstkeyError
from firstkey.cli.main import make_ready
from firstkey.system import child, detach
make_ready()
with open("/dev/zero") as zero:
    kept = fcntl.fcntl(zero, fcntl.F_DUPFD_CLOEXEC, 10)
print("before", flush=True)
try:
    with detach.detached(pid_file=sys.argv[1]):
        facts = {"pid": os.getpid(), "sid": os.getsid(0), "pgid": os.getpgid(0), "cwd": os.getcwd(),
                 "umask": os.umask(0), "fds": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
                 "kept": os.readlink(f"/proc/self/fd/{kept}"), "tty": os.path.exists("/dev/tty") and tty(),
                 "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                 "inherited": os.path.exists(f"/proc/self/fd/{sys.argv[3]}")}
        if "WORK" in globals():
            assert child.ask("a test", lambda _: "x", seconds=30) == "x"
        with open(sys.argv[2] + ".new", "w") as out:
            json.dump(facts, out)
        os.rename(sys.argv[2] + ".new", sys.argv[2])
        sys.stderr.write("daemon speaks\\n")
        sys.stderr.flush()
        time.sleep(60)
except FirstkeyError as error:
    print(error.reason.code, error.message, error.hint, sep="|")
    sys.exit(error.exit_status)
"""
HELPERS = """
def tty():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
"""


class Launch:
    """Starts the daemon in a private directory and knows how to end it."""

    def __init__(self, directory: Path) -> None:
        self.pid_file = directory / "run" / "firstkey.pid"
        self.pid_file.parent.mkdir(mode=0o755)
        self.facts_file = directory / "facts"
        self.log = directory / "log"

    def start(
        self, *, prelude: str = "", stderr: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run the starting process to its end."""
        inherited, other = os.pipe()
        os.set_inheritable(inherited, True)
        arguments = [str(self.pid_file), str(self.facts_file), str(inherited)]
        try:
            return subprocess.run(
                [sys.executable, "-c", prelude + HELPERS + DAEMON, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                timeout=60,
                close_fds=False,
                env={**os.environ, "PYTHONPATH": AGENT, "PYTHONUNBUFFERED": ""},
            )
        finally:
            os.close(inherited)
            os.close(other)

    def facts(self) -> dict[str, object]:
        """What the daemon wrote about itself."""
        wait_for(self.facts_file.exists)
        found: dict[str, object] = json.loads(self.facts_file.read_text())
        return found

    def number(self) -> int:
        """The process that the PID file names."""
        return int(self.pid_file.read_text())

    def is_locked(self) -> bool:
        """Whether somebody holds the lock."""
        try:
            with self.pid_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def wait_for(condition: object) -> None:
    """Wait until the condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has: nobody may be there to collect it)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """A launcher whose daemon is ended afterwards."""
    pytest.importorskip("daemon")
    made = Launch(tmp_path)
    yield made
    if made.is_locked() and made.pid_file.read_text():
        os.kill(made.number(), signal.SIGKILL)


def test_daemon_stands_alone(launch: Launch) -> None:
    """Own session without a terminal, umask 077, `/`; the starter returns at once and in success."""
    done = launch.start()
    assert (done.returncode, done.stdout) == (0, "before\n")
    facts = launch.facts()
    assert facts["pid"] == launch.number()
    assert facts["sid"] == facts["pgid"] != os.getsid(0)
    assert facts["sid"] != facts["pid"], "a session's leader could get a terminal again"
    assert (facts["cwd"], facts["umask"], facts["tty"]) == ("/", 0o077, False)
    assert facts["fds"] == ["/dev/null"] * 3
    assert facts["kept"] == "/dev/zero", "what the program opened itself stays open"
    assert facts["inherited"] is False, "what the starter left open is closed"
    assert int(str(facts["limit"])) <= detach.DESCRIPTORS, "python-daemon 2.3 takes memory by this limit"
    assert launch.is_locked()
    assert launch.pid_file.stat().st_mode & 0o7777 == 0o600


def test_sigterm_removes_the_file(launch: Launch) -> None:
    """SIGTERM ends the daemon, and the PID file goes with it."""
    launch.start()
    pid = int(str(launch.facts()["pid"]))
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: is_gone(pid))
    assert not launch.pid_file.exists()


def test_second_start_is_refused(launch: Launch) -> None:
    """While one daemon lives, another is refused to the face of who starts it, and nothing is disturbed."""
    launch.start()
    pid = launch.facts()["pid"]
    second = launch.start()
    assert second.returncode == 1
    assert second.stdout.startswith("before\nalready-running|")
    assert f"process {pid}" in second.stdout
    assert launch.number() == pid
    assert launch.is_locked()


def test_killed_daemon_leaves_no_claim(launch: Launch) -> None:
    """After SIGKILL the stale file is taken over, even where its number is somebody else's now."""
    launch.start()
    pid = int(str(launch.facts()["pid"]))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
    assert launch.pid_file.exists()
    launch.pid_file.write_text(f"{os.getpid()}\nand more, longer than before\n")
    launch.facts_file.unlink()
    assert launch.start().returncode == 0
    facts = launch.facts()
    assert launch.pid_file.read_text() == f"{facts['pid']}\n"


HOLD = """
import fcntl, sys, time
fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""


@pytest.mark.root
def test_nobody_else_can_keep_it_from_starting(launch: Launch) -> None:
    """The file of a killed daemon lies where everybody can enter, and is for root alone."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        launch.pid_file = Path(place) / "pid"
        launch.start()
        pid = int(str(launch.facts()["pid"]))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: is_gone(pid))
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", HOLD]
        with subprocess.Popen(
            [*argv, launch.pid_file], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as other:
            assert other.stdout
            held = other.stdout.readline()
            launch.facts_file.unlink()
            started = launch.start()
            other.kill()
            assert other.stderr
            assert b"PermissionError" in other.stderr.read()
        assert (held, started.returncode) == (b"", 0)
        os.kill(int(str(launch.facts()["pid"])), signal.SIGKILL)


def test_redirected_stderr_stays(launch: Launch) -> None:
    """Where standard error goes to a file, what the daemon says goes on arriving there."""
    with launch.log.open("w") as log:
        assert launch.start(stderr=log.fileno()).returncode == 0
    wait_for(lambda: "daemon speaks" in launch.log.read_text())


def test_closed_streams(launch: Launch) -> None:
    """A starter without standard streams (a bare init) does not confuse the PID file with one."""
    prelude = "import os, sys\nfor fd in 0, 2: os.close(fd)\nsys.stdin = sys.stderr = None\n"
    assert launch.start(prelude=prelude).returncode == 0
    assert launch.facts()["fds"] == ["/dev/null"] * 3
    assert launch.is_locked()
    assert launch.number() == launch.facts()["pid"]


def test_missing_python_daemon(launch: Launch) -> None:
    """Without python-daemon the refusal names the package, and no PID file appears."""
    done = launch.start(prelude="import sys; sys.modules['daemon'] = None\n")
    assert done.returncode == 1
    assert done.stdout.startswith("before\ndependency-missing|")
    assert "python3-daemon" in done.stdout
    assert not launch.pid_file.exists()


def test_symlink_is_refused(launch: Launch, tmp_path: Path) -> None:
    """A symbolic link in place of the PID file is neither followed nor written through."""
    target = tmp_path / "precious"
    target.write_text("precious\n")
    launch.pid_file.symlink_to(target)
    assert launch.start().stdout.startswith("before\nsymlink-refused|")
    assert target.read_text() == "precious\n"
    assert launch.pid_file.is_symlink()


def test_a_file_that_is_no_pid_file_stays(launch: Launch) -> None:
    """A mistyped --pid-file names a file of somebody's: it is neither overwritten nor removed."""
    launch.pid_file.write_text("precious\n")
    assert launch.start().stdout.startswith("before\nbad-usage|")
    assert launch.pid_file.read_text() == "precious\n"
    launch.pid_file.unlink()


@pytest.mark.parametrize(
    "path, reason",
    [
        ("fifo", "not-a-regular-file"),
        ("run", "not-a-regular-file"),
        ("missing/pid", "not-a-directory"),
        ("open/pid", "unsafe-directory"),
    ],
)
def test_odd_places_are_refused(launch: Launch, tmp_path: Path, path: str, reason: str) -> None:
    """Each with its reason, before anything is detached."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    launch.pid_file = tmp_path / path
    done = launch.start()
    assert done.returncode == 1
    assert done.stdout.startswith(f"before\n{reason}|")
    launch.pid_file = tmp_path / "nothing-to-end"


def test_child_of_the_daemon_leaves_the_file(launch: Launch) -> None:
    """A worker that the daemon forked ends without taking the PID file along."""
    launch.start(prelude="WORK = True\n")
    launch.facts()
    assert launch.is_locked()
    assert launch.number() == launch.facts()["pid"]
