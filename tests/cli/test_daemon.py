"""`firstkey daemon` as systemd and people start it: a program, its service manager and a real service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import places
import processes
import pytest
from daemons import Ended, Lab
from machine import fingerprint

from firstkey.metadata.emulator import Fault

ROUNDS = 24
MEMORY_LIMIT = 40 * 1024  # KiB (DESIGN: Speed)


# --- readiness ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sshd_may_start_once_the_keys_are_in_place(lab: Lab) -> None:
    """READY comes after the launch key and the host keys are there; then the daemon ends, and all is tidy."""
    lab.machine.ask_for_all_host_keys()
    lab.machine.configure(f"[Keys]\nUsers={lab.machine.user}\n[HostKeys]\nBackground=\n")
    daemon = lab.daemon()
    ready = daemon.manager.wait("READY=1")
    on_the_wall = time.time() - (time.monotonic() - ready)
    ended = daemon.end()

    assert ended.status == 0, ended.said
    assert lab.machine.keys == [lab.key]
    assert len(lab.machine.host_keys()) == 3
    for file in (lab.machine.keys_file, *lab.machine.path("/etc/ssh").glob("ssh_host_*")):
        assert file.stat().st_ctime < on_the_wall + 0.1
    assert lab.manager.count("READY=1") == 1
    assert lab.manager.was_told("STATUS=Done: ok")
    assert lab.manager.said[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert lab.left_over == []


@pytest.mark.slow
def test_a_second_boot_changes_nothing(lab: Lab) -> None:
    """Everything is there already: ready, done, and not a file touched."""
    lab.daemon().end()
    before = lab.machine.snapshot()
    assert lab.daemon().end().status == 0
    assert lab.machine.snapshot() == before
    assert lab.manager.count("READY=1") == 2


@pytest.mark.parametrize("fault", [Fault("reset"), Fault("status", 503), Fault("html"), Fault("delay", 30)])
@pytest.mark.sample(4)
def test_the_boot_goes_on_at_the_deadline_and_the_work_after_it(lab: Lab, fault: Fault) -> None:
    """Without an answer, READY at BootTimeoutSec=, host keys made; with one, the launch key comes at last."""
    lab.configure("[IMDS]\nBootTimeoutSec=2\nRequestTimeoutSec=5\n")
    lab.service.inject(fault)
    daemon = lab.daemon()
    ready = daemon.manager.wait("READY=1")
    assert 1.9 <= ready - daemon.started < 20
    assert lab.machine.keys == []
    processes.wait_for(lambda: len(lab.machine.host_keys()) == 2, "host keys")  # late on a busy machine
    lab.service.inject()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert lab.machine.keys == [lab.key]
    assert lab.manager.count("READY=1") == 1
    assert lab.left_over == []


@pytest.mark.slow
def test_another_instance_trusts_none_of_the_old_keys_before_its_own_can_be_had(
    lab: Lab, keys: dict[str, str]
) -> None:
    """Sshd starts at the deadline: by then what is the old instance's is gone; the new key comes at last."""
    assert lab.machine.run(lab.service).status == 0
    before = lab.machine.host_keys()
    lab.configure("[IMDS]\nBootTimeoutSec=15\n")
    lab.service.change(instance_id="i-0000000000000002", keys=(("new", keys["ecdsa"]),))
    lab.service.inject(Fault("status", 503, path="/latest/meta-data/public-keys/"))
    daemon = lab.daemon()
    daemon.manager.wait("READY=1")
    assert lab.machine.keys == []
    assert not set(before.values()) & set(lab.machine.host_keys().values())
    lab.service.inject()
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert lab.machine.keys == [keys["ecdsa"]]
    assert ended.said.count("This is a new instance") == 1
    (user,) = json.loads(lab.machine.path("/run/firstkey/report.json").read_text())["users"]
    assert (user["added"], user["revoked"]) == ([fingerprint(keys["ecdsa"])], [fingerprint(lab.key)])


def test_a_program_that_hangs_does_not_hold_the_boot(lab: Lab, tmp_path: Path) -> None:
    """An sshd that does not answer (a dead name service, say) costs no more than the deadline."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sshd").write_text("#!/bin/sh\nsleep 60\n")
    (programs / "sshd").chmod(0o755)
    lab.configure("[IMDS]\nBootTimeoutSec=1\n")
    daemon = lab.daemon(PATH=f"{programs}:{os.environ['PATH']}")
    ready = daemon.manager.wait("READY=1")
    assert 0.9 <= ready - daemon.started < 9, "sshd is given up after 10 s at the earliest"
    below = processes.descendants(daemon.process.pid)
    assert below
    assert daemon.end(signal.SIGTERM).status == 0
    for pid in below:
        processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]


def test_an_account_that_comes_late_gets_its_key(lab: Lab) -> None:
    """Of a directory service, say, that the network brings: the others have theirs, and it is tried again."""
    lab.machine.configure("[Keys]\nUsers=admin second\n[HostKeys]\nTypes=ed25519\n")
    daemon = lab.daemon()
    daemon.manager.wait("READY=1")
    assert lab.machine.keys == [lab.key]
    daemon.manager.wait("STATUS=Done: partial; going on with the attempts for second")
    lab.machine.add_user("second")
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert lab.machine.path("/home/second/.ssh/authorized_keys").read_text() == f"{lab.key}\n"


def test_no_key_pair_is_nothing_to_wait_for(lab: Lab) -> None:
    """Ready at once, status 0."""
    lab.service.change(keys=())
    assert lab.daemon().end().status == 0
    assert lab.manager.was_told("READY=1")
    assert lab.manager.was_told("STATUS=Done: no-key")


def test_an_answer_that_cannot_be_used_up_fails_the_unit_and_not_the_boot(lab: Lab) -> None:
    """A user who cannot be served: READY all the same, the others served, and the status tells."""
    lab.machine.add_user("linked")
    lab.machine.path("/home/linked/.ssh").symlink_to("/home/admin")
    lab.machine.configure("[Keys]\nUsers=linked admin\n")
    assert lab.daemon().end().status == 1
    assert lab.manager.was_told("READY=1")
    assert lab.machine.keys == [lab.key]


@pytest.mark.parametrize("link", [False, True], ids=["missing", "link"])
@pytest.mark.sample(2)
def test_a_home_that_comes_late_gets_its_key(lab: Lab, link: bool) -> None:
    """A later unit makes it (systemd-tmpfiles, where /root is a link to /var/roothome): nobody else waits."""
    lab.machine.add_user("second", home="/late/second", make_home=False)
    lab.machine.configure("[Keys]\nUsers=admin second\n[HostKeys]\nTypes=ed25519\n")
    home = lab.machine.path("/late/second")
    if link:
        home.parent.mkdir()
        home.symlink_to("/var/second")
        home = lab.machine.path("/var/second")
    daemon = lab.daemon()
    daemon.manager.wait("READY=1")
    assert lab.machine.keys == [lab.key]
    daemon.manager.wait("STATUS=Done: partial; going on with the attempts for second")
    home.mkdir(parents=True)
    ended = daemon.end()
    assert ended.status == 0, ended.said
    assert (home / ".ssh/authorized_keys").read_text() == f"{lab.key}\n"
    assert lab.manager.count("READY=1") == 1
    assert lab.manager.said[-1] == "STATUS=Done: ok"


@pytest.mark.slow
def test_without_a_service_manager_it_does_the_same(lab: Lab) -> None:
    """No NOTIFY_SOCKET, or one that is gone, is no reason to fail."""
    for address in ("", "/nonexistent/notify"):
        daemon = lab.daemon(NOTIFY_SOCKET=address)
        assert daemon.end().status == 0
    assert lab.machine.keys == [lab.key]
    assert lab.manager.said == []


# --- what keeps it from beginning -----------------------------------------------------------------


def test_switched_off_by_a_file(lab: Lab) -> None:
    """Ready, so that nothing waits; nothing done; and it is said."""
    lab.machine.write("/etc/firstkey/disabled", "")
    ended = lab.daemon().end()
    assert ended.status == 0
    assert "/etc/firstkey/disabled is there" in ended.said
    assert lab.manager.was_told("READY=1")
    assert not lab.machine.keys_file.exists()
    assert lab.machine.host_keys() == {}


def test_switched_off_on_the_kernel_command_line(lab: Lab) -> None:
    """The word itself, not one like it."""
    lab.machine.write("/proc/cmdline", "root=/dev/sda1 firstkey=offline\n")
    assert lab.daemon().end().status == 0
    assert lab.machine.keys == [lab.key]
    lab.machine.write("/proc/cmdline", "root=/dev/sda1 firstkey=off quiet\n")
    lab.machine.keys_file.unlink()
    assert "kernel command line" in lab.daemon().end().said
    assert not lab.machine.keys_file.exists()


@pytest.mark.parametrize(
    "options, status",
    [
        (("--config", "/nonexistent/firstkey.conf"), 78), (("--imds", "http://example.com"), 2),
        (("--root", "/etc/passwd"), 2), (("--nonsense",), 2),
    ],
)  # fmt: skip
def test_what_keeps_it_from_beginning_is_told_at_once(
    lab: Lab, options: tuple[str, ...], status: int
) -> None:
    """One sentence with its remedy, the promised exit status, no traceback, and no READY that would lie."""
    ended = lab.daemon(*options).end()
    assert ended.status == status
    assert "Traceback" not in ended.said
    assert not lab.manager.was_told("READY=1")
    assert lab.left_over == []


@pytest.mark.root
def test_the_running_system_is_roots() -> None:
    """Anybody else is told so, with the status for it."""
    if missing := processes.missing_for_others():
        pytest.skip(missing)
    code = """
        import os, sys
        os.setgid(64102); os.setuid(64102)
        from firstkey.cli.main import main
        sys.exit(main(["daemon"]))
    """
    done = subprocess.run(
        processes.program(code), capture_output=True, text=True, check=False, env=processes.environment()
    )
    assert done.returncode == 77
    assert "needs-root" in done.stderr


def test_a_broken_configuration_locks_nobody_out(lab: Lab) -> None:
    """Each mistake is a warning, told once however often the work is tried; the rest counts."""
    lab.configure("[IMDS\n[Watch]\nIntervalSec=60\n[IMDS]\nBootTimeoutSec=1\nTokenTTLSec=often\nNonsense=1\n")
    lab.service.inject(Fault("html", first=2))
    ended = lab.daemon().end()
    assert ended.status == 0, ended.said
    assert lab.machine.keys == [lab.key]
    assert ended.said.count("gave no usable answer") >= 2, "it was tried again"
    warnings = [line for line in ended.said.splitlines() if "firstkey.conf:" in line]
    mistakes = ("Watch", "TokenTTLSec=", "Nonsense")
    assert [sum(word in line for line in warnings) for word in mistakes] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["file", "fifo", "directory", "link"])
@pytest.mark.sample(4)
def test_odd_things_in_place_of_the_configuration_lock_nobody_out(lab: Lab, kind: str) -> None:
    """Whatever stands where /etc/firstkey or its file belongs, the defaults serve root."""
    lab.machine.add_user("root", home="/root")
    file = lab.machine.path("/etc/firstkey/firstkey.conf")
    file.unlink()
    if kind == "file":
        file.parent.rmdir()
        file.parent.write_text("x")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.symlink_to("firstkey.conf")
    ended = lab.daemon().end()
    assert lab.manager.was_told("READY=1"), ended.said
    assert lab.machine.path("/root/.ssh/authorized_keys").read_text() == f"{lab.key}\n", ended.said


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "round_",
    [pytest.param(number, marks=[] if number % 4 == 0 else pytest.mark.slow) for number in range(ROUNDS)],
)
@pytest.mark.sample(8)
def test_sigterm_at_any_moment(lab: Lab, round_: int) -> None:
    """Status 0, no process and no temporary file left; and the next run completes the job.

    Before Python has handed over to firstkey, the signal itself is the end, a clean one to systemd too.
    """
    daemon = lab.daemon()
    time.sleep(0.03 * round_)
    below = processes.descendants(daemon.process.pid)
    ended = daemon.end(signal.SIGTERM)
    has_begun = bool(lab.manager.said) or "started" in ended.said
    assert ended.status == 0 or (ended.status == -signal.SIGTERM and not has_begun), ended.said
    assert "Traceback" not in ended.said
    for pid in below:
        processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]
    assert lab.left_over == []

    done = lab.machine.run(lab.service)
    assert done.status == 0, done.err
    assert lab.machine.keys == [lab.key]
    assert len(lab.machine.host_keys()) == 1
    assert lab.left_over == []


# --- two at once ----------------------------------------------------------------------------------


def test_two_daemons_at_once(lab: Lab) -> None:
    """Both are ready, both end well, and the key is there once."""
    first, second = lab.daemon(), lab.daemon()
    assert (first.end().status, second.end().status) == (0, 0)
    assert lab.manager.count("READY=1") == 2
    assert lab.machine.keys == [lab.key]
    assert len(lab.machine.host_keys()) == 1
    assert lab.left_over == []


@pytest.mark.slow
def test_the_second_is_not_held_by_the_first_beyond_its_deadline(lab: Lab) -> None:
    """While the first asks without end, the second waits for it, says so, and is ready in time."""
    lab.configure("[IMDS]\nBootTimeoutSec=1\n")
    lab.service.inject(Fault("status", 503))
    first = lab.daemon()
    first.manager.wait("READY=1")
    second = lab.daemon()
    processes.wait_for(lambda: lab.manager.count("READY=1") == 2)
    lab.service.inject()
    assert first.end().status == 0
    ended = second.end()
    assert ended.status == 0
    assert "Another firstkey is at work" in ended.said
    assert lab.machine.keys == [lab.key]


def test_it_does_not_outlive_its_supervisor(lab: Lab) -> None:
    """SIGKILL to the supervisor ends the worker too, and what that one started."""
    lab.service.inject(Fault("status", 503))
    daemon = lab.daemon()
    processes.wait_for(lambda: lab.service.requests)
    below = processes.descendants(daemon.process.pid)
    assert below
    daemon.end(signal.SIGKILL)
    for pid in below:
        processes.wait_for(lambda pid=pid: processes.is_gone(pid))  # type: ignore[misc]


# --- memory ---------------------------------------------------------------------------------------

MEASURING = """
    import os, sys
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    print(status, usage.ru_maxrss)
"""
# A process starts with the peak of the one that it was forked from, so a small one measures.
DISTRIBUTION = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


@pytest.mark.parametrize("command", ["daemon", "run"])
@pytest.mark.sample(2)
def test_memory_stays_small(lab: Lab, command: str) -> None:
    """Peak memory of each process, a worker's included, is below 40 MiB with the distribution's Python."""
    argv = [DISTRIBUTION, "-m", "firstkey", command, *lab.argv()[4:], "-q"]
    status, peak = processes.run(MEASURING, *argv).split()
    assert status == "0"
    assert lab.machine.keys == [lab.key]
    assert int(peak) < MEMORY_LIMIT


# --- detached -------------------------------------------------------------------------------------


class Detached:
    """Starts detached daemons, and ends the one that the PID file names."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self.pid_file = directory / "run" / "firstkey.pid"
        self.pid_file.parent.mkdir(mode=0o755)

    def start(self, *options: str, **environ: str) -> Ended:
        """What whoever starts it sees."""
        pid_file = () if "--pid-file" in options else ("--pid-file", str(self.pid_file))
        done = subprocess.run(
            self._lab.argv("--detach", *pid_file, *options),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=processes.PATIENCE,
            env=processes.environment(**environ),
        )
        return Ended(done.returncode, done.stdout)

    @property
    def pid(self) -> int:
        """The daemon's number, as soon as it is written."""
        processes.wait_for(lambda: self.pid_file.exists() and self.pid_file.read_text().strip())
        return int(self.pid_file.read_text())


@pytest.fixture
def detached(lab: Lab, tmp_path: Path) -> Iterator[Detached]:
    """A detached daemon that never gets an answer, until the service is repaired."""
    pytest.importorskip("daemon")
    lab.service.inject(Fault("status", 503))
    made = Detached(lab, tmp_path)
    yield made
    if made.pid_file.is_file() and made.pid_file.read_text().strip():
        number = int(made.pid_file.read_text())
        if not processes.is_gone(number) and number != os.getpid():
            os.kill(number, signal.SIGKILL)


def test_detached_it_does_the_job_and_goes(lab: Lab, detached: Detached) -> None:
    """Its starter returns at once; the daemon works on, ends when all is done, and its PID file with it."""
    assert detached.start() == (0, "")
    pid = detached.pid
    assert os.getsid(pid) != os.getsid(0)
    lab.service.inject()
    processes.wait_for(lambda: processes.is_gone(pid))
    assert lab.machine.keys == [lab.key]
    assert not detached.pid_file.exists()
    assert lab.left_over == []


def test_sigterm_ends_a_detached_daemon(detached: Detached) -> None:
    """With its worker and its PID file."""
    detached.start()
    pid = detached.pid
    processes.wait_for(lambda: processes.children(pid))
    below = processes.descendants(pid)
    os.kill(pid, signal.SIGTERM)
    for each in (pid, *below):
        processes.wait_for(lambda each=each: processes.is_gone(each))  # type: ignore[misc]
    assert not detached.pid_file.exists()


def test_a_second_start_names_the_first(detached: Detached) -> None:
    """It is refused to the face of who starts it, and the first is not disturbed."""
    detached.start()
    pid = detached.pid
    again = detached.start()
    assert again.status == 1
    assert "already-running" in again.said
    assert f"process {pid}" in again.said
    assert not processes.is_gone(pid)
    assert detached.pid == pid


def test_a_killed_daemon_makes_room(detached: Detached) -> None:
    """A stale PID file is taken over; whoever has its number now is left alone."""
    detached.start()
    pid = detached.pid
    below = processes.descendants(pid)
    os.kill(pid, signal.SIGKILL)
    for each in (pid, *below):
        processes.wait_for(lambda each=each: processes.is_gone(each))  # type: ignore[misc]
    detached.pid_file.write_text(f"{os.getpid()}\n")
    assert detached.start().status == 0
    processes.wait_for(lambda: detached.pid != os.getpid())


def test_a_bad_place_for_the_pid_file_is_told_before_anything_is_detached(
    detached: Detached, tmp_path: Path
) -> None:
    """A link, a directory that is missing or open to others: the reason, status 1, nothing written."""
    target = tmp_path / "precious"
    target.write_text("precious\n")
    detached.pid_file.symlink_to(target)
    refused = detached.start()
    assert (refused.status, "symlink-refused" in refused.said) == (1, True)
    assert target.read_text() == "precious\n"
    detached.pid_file.unlink()

    missing = detached.start("--pid-file", str(tmp_path / "none" / "pid"))
    assert (missing.status, "not-a-directory" in missing.said) == (1, True)
    detached.pid_file.parent.chmod(0o777)
    unsafe = detached.start()
    assert (unsafe.status, "unsafe-directory" in unsafe.said) == (1, True)
    assert os.listdir(detached.pid_file.parent) == []


def test_what_keeps_a_detached_daemon_from_beginning_is_told_too(lab: Lab, detached: Detached) -> None:
    """The configuration is looked at while somebody is there to be told."""
    assert detached.start("--config", "/nonexistent/firstkey.conf").status == 78
    lab.machine.write("/etc/firstkey/disabled", "")
    off = detached.start()
    assert (off.status, "switched off" in off.said) == (0, True)
    assert not detached.pid_file.exists()


@pytest.mark.slow
def test_without_python_daemon_the_package_is_named(lab: Lab, detached: Detached, tmp_path: Path) -> None:
    """Detaching alone is refused; in the foreground the daemon needs no such package."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "daemon.py").write_text("raise ImportError('not installed')\n")
    path = f"{tmp_path / 'without'}:{processes.AGENT}"
    refused = detached.start(PYTHONPATH=path)
    assert refused.status == 1
    assert "dependency-missing" in refused.said
    assert "python3-daemon" in refused.said
    assert not detached.pid_file.exists()
    lab.service.inject()
    assert lab.daemon(PYTHONPATH=path).end().status == 0


FRESH_RUN = """
    import os, subprocess, sys, time
    done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(done.returncode, done.stderr, end=" ")
    for _ in range(3000):
        if not os.path.exists("/run/firstkey/firstkey.pid"):
            break
        time.sleep(0.01)
    print(os.path.isdir("/run/firstkey"), os.listdir("/run/firstkey"))
"""


@pytest.mark.root
@pytest.mark.slow
def test_the_usual_pid_file_needs_no_preparation(lab: Lab) -> None:
    """After a boot without systemd, /run is empty."""
    pytest.importorskip("daemon")
    said = places.run_on_tmpfs(FRESH_RUN, Path("/run"), *lab.argv("--detach"))
    assert said == "0  True []\n"
    assert lab.machine.keys == [lab.key]
