"""The door to other programs: what they are given, what is heard of them, and that all of them end."""

from __future__ import annotations

import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import processes
import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command


def shell(script: str) -> list[str]:
    """A program out of a line of shell."""
    return ["/bin/sh", "-c", script]


def test_what_it_says_and_how_it_ends() -> None:
    """Both streams apart, bytes as they are; a failing program is an outcome and no error."""
    outcome = command.run(shell(r"printf 'out\0\377'; printf 'one\ntwo\n\n' >&2; exit 3"))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (3, b"out\0\xff", b"one\ntwo\n\n")
    assert outcome.words == "two"
    assert command.run(shell("kill -9 $$")).status == -signal.SIGKILL
    assert command.run(shell("exit 4")).words == "exit status 4"
    assert command.run(shell("echo said")).words == "said"


def test_more_than_a_pipe_holds_on_both_streams() -> None:
    """Neither stream holds up the other."""
    script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"
    outcome = command.run(shell(script))
    assert (len(outcome.stdout), len(outcome.stderr)) == (300_000, 600_000)


def test_it_gets_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH, the C locale and UTC, and nothing of the caller's."""
    monkeypatch.setenv("LD_PRELOAD_X", "evil")
    monkeypatch.setenv("http_proxy", "http://evil")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/evil")
    lines = command.run(["/usr/bin/env"]).stdout.decode().splitlines()
    assert sorted(line.split("=")[0] for line in lines) == ["LC_ALL", "PATH", "TZ"]


def test_it_gets_nothing_to_read_and_no_terminal() -> None:
    """Its input is at its end, its directory `/`, its session and group its own, without a terminal."""
    outcome = command.run(shell("cat; pwd; ps -o sid=,pgid=,tty= -p $$ || true; echo $$"))
    lines = outcome.stdout.decode().split("\n")
    assert lines[0] == "/"
    if len(lines) > 3:
        session, group, terminal = lines[1].split()
        assert session == group == lines[2]
        assert terminal == "?"


def test_what_it_reads_is_in_memory_and_can_be_read_twice() -> None:
    """A private key for ssh-keygen is in no file and no argument; nobody else may read it."""
    script = "cat /dev/stdin; cat /dev/stdin; stat -L -c %a /dev/stdin"
    assert command.run(shell(script), stdin=b"secret\n").stdout == b"secret\nsecret\n600\n"
    large = os.urandom(3_000_00)
    assert command.run(["/bin/cat"], stdin=large).stdout == large


def test_no_descriptor_is_handed_on() -> None:
    """Not even one that was made inheritable."""
    inherited = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        outcome = command.run(["/bin/ls", "-l", "/proc/self/fd"])
    finally:
        os.close(inherited)
    assert b"/dev/zero" not in outcome.stdout


@pytest.mark.parametrize(
    "script",
    ["sleep 60", "trap '' TERM; sleep 60 & sleep 60", "exec >/dev/null 2>&1; sleep 60", "sleep 60 & wait"],
)
def test_one_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path, script: str) -> None:
    """It is killed, and so is what it started in the background; the reason says so."""
    pids = tmp_path / "pids"
    begin = time.monotonic()
    for seconds in (0.3, 3, 30):  # on a busy machine it may not have come to its work in the shortest of them
        with pytest.raises(FirstkeyError, match="did not end within") as caught:
            command.run(shell(f"ps -o pid= --ppid $$ >/dev/null; echo $$ >{pids}; {script}"), seconds=seconds)
        if pids.exists():
            break
    assert time.monotonic() - begin < 55
    assert caught.value.reason is reasons.TIMED_OUT
    assert group_is_gone(int(pids.read_text()))


def group_is_gone(group: int) -> bool:
    """Whether no living process of that group is left, soon."""

    def members() -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(fields[2]) == group and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    processes.wait_for(lambda: not members(), f"the end of process group {group}")
    return True


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """A program that ends well but leaves a daemon with its output open is done, and the daemon is ended."""
    pids = tmp_path / "pids"
    begin = time.monotonic()
    outcome = command.run(shell(f"echo $$ >{pids}; sleep 60 & echo done"), seconds=30)
    assert (outcome.status, outcome.stdout) == (0, b"done\n")
    assert time.monotonic() - begin < 20
    assert group_is_gone(int(pids.read_text()))


def test_one_that_never_stops_talking_is_ended() -> None:
    """Memory is bounded whatever a program prints."""
    with pytest.raises(FirstkeyError, match="printed more than"):
        command.run(["/usr/bin/yes"], seconds=30)
    with pytest.raises(FirstkeyError, match="printed more than"):
        command.run(shell("yes >&2"), seconds=30)


@pytest.mark.parametrize("argv", [["/nonexistent"], ["/etc/passwd"], ["/"], ["/bin/echo", "a\0b"]])
def test_one_that_cannot_start_is_an_error_with_the_command_in_it(argv: list[str]) -> None:
    """Not installed, not executable, a directory, an impossible argument."""
    with pytest.raises(FirstkeyError, match="cannot run") as caught:
        command.run(argv)
    assert argv[0] in caught.value.message
    assert caught.value.reason is reasons.DEPENDENCY_MISSING


def test_started_ones_run_side_by_side_and_can_be_ended() -> None:
    """Starting does not wait; ending one that has ended is harmless; no zombie is left."""
    before = processes.children(os.getpid())
    begin = time.monotonic()
    first, second = command.start(shell("sleep 0.3; echo 1")), command.start(shell("sleep 60"))
    assert time.monotonic() - begin < 20
    second.kill()
    second.kill()
    assert first.finish().stdout == b"1\n"
    first.kill()
    assert processes.children(os.getpid()) == before


def has_input_open(pid: int) -> bool:
    """Whether the process has a program's input open: it does not wait for that program yet."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if "memfd:stdin" in os.readlink(file):
                return True
    return False


def test_an_interruption_ends_it() -> None:
    """Whatever is raised while a program is waited for (SIGTERM to us), it is not left running."""
    code = """
        import sys
        from firstkey.system import command, child
        child.own_signals(0)
        print("ready", flush=True)
        command.run(["/bin/sh", "-c", "echo $$ >$0; sleep 60; :", sys.argv[1]], seconds=60)
    """
    note = Path(os.environ["HOME"]) / "pid"
    note.unlink(missing_ok=True)
    child = processes.start(code, note)
    processes.wait_for(lambda: note.exists() and note.read_text())
    processes.wait_for(lambda: not has_input_open(child.pid), "the end of the start")
    child.terminate()
    child.communicate(timeout=processes.PATIENCE)
    assert child.returncode == 0
    assert group_is_gone(int(note.read_text()))


def test_no_descriptor_is_left() -> None:
    """However a program ends."""
    command.run(shell(":"))
    before = os.listdir("/proc/self/fd")
    for script in ("exit 1", "sleep 60", "yes", "sleep 60 &"):
        with suppress(FirstkeyError):
            command.run(shell(script), seconds=0.2)
    assert os.listdir("/proc/self/fd") == before


def test_programs_are_found_on_the_callers_path_and_then_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator's directories even where the caller's PATH lacks them; relative ones never."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "sshd").write_text("#!/bin/sh\n")
    (own / "sh").mkdir()
    monkeypatch.setenv("PATH", f".:relative:{own}")
    assert command.find("sh") in ("/usr/bin/sh", "/bin/sh", "/usr/local/bin/sh")
    assert command.find("sshd") != str(own / "sshd"), "it is not executable"
    (own / "sshd").chmod(stat.S_IRWXU)
    assert command.find("sshd") == str(own / "sshd")
    assert command.find("no-such-program") is None
    assert "." not in command.search_path()
    assert "/usr/sbin" in command.search_path()
