"""`firstkey` itself: whatever goes wrong, one clear sentence, the right exit status, and no traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import fork_server
import pytest
from machine import AGENT, Machine, Run

from firstkey.cli.usage import COMMANDS
from firstkey.metadata.emulator import Emulator, Settings

USAGE, FAILED, NO_ANSWER, NEEDS_ROOT, BAD_CONFIG = 2, 1, 75, 77, 78
QUIET_COMMANDS = (
    "status",
    "config",
    "config --json",
    "host-keys --dry-run",
    "--help",
    "run --help",
    "help run",
)


def firstkey(
    *argv: str, out: int | None = subprocess.PIPE, prefix: tuple[str, ...] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run it as people do."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), **environ}
    if out == subprocess.PIPE and not prefix:
        done = fork_server.firstkey(*argv, environ=environment)
        return subprocess.CompletedProcess(argv, done.status, done.out.decode(), done.err.decode())
    return subprocess.run(
        [*prefix, sys.executable, "-m", "firstkey", *argv],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """--help, with a sentence, examples that can be typed, and no exit but 0."""
    done = firstkey(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: firstkey {command}")
    assert "example" in done.stdout.split("\n\n", 1)[1]
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_without_a_command_it_tells_which_there_are() -> None:
    """Asked for, that is no mistake; otherwise it is one."""
    assert firstkey("--help").returncode == 0
    done = firstkey()
    assert done.returncode == USAGE
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", ["run", "imds"])
def test_help_explains_a_command(command: str) -> None:
    """As the command itself does."""
    assert firstkey("help", command).stdout == firstkey(command, "--help").stdout != ""


def test_help_without_a_command_lists_them() -> None:
    """As --help does; a command that is not there is a mistake."""
    assert firstkey("help").stdout == firstkey("--help").stdout == firstkey("--help", "-v").stdout
    assert firstkey("help", "sttus").returncode == USAGE
    assert firstkey("help", "help").stdout == firstkey("--help").stdout
    assert "did you mean status?" in firstkey("help", "sttus").stderr
    for words in ([""], ["help", ""]):
        done = firstkey(*words)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert "there is no command ''" in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        "version", "--version", "-V", "-q --version", "--version --root /x -v", "-V status", "status -V",
        "run --version",
    ],
)  # fmt: skip
def test_the_version_is_told_however_it_is_asked_for(argv: str) -> None:
    """One line: the name and the version."""
    done = firstkey(*argv.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"firstkey \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("ahead", ["--root {root}", "--root={root}", "-q --root {root}", "--root {root} -v"])
@pytest.mark.sample(2)
def test_options_may_stand_before_the_command(machine: Machine, ahead: str) -> None:
    """Those that all commands take; the value of one may be the name of a command."""
    machine.configure("[Keys]\nUsers=admin\n")
    done = firstkey(*ahead.format(root=machine.root).split(), "config", "--json")
    assert done.returncode == 0
    assert "admin" in done.stdout
    absent = firstkey("--config", "run", "config", "--root", str(machine.root))
    assert (absent.returncode, "run" in absent.stderr) == (BAD_CONFIG, True)


@pytest.mark.parametrize("argv", ["-q", "--root /", "--root"])
def test_options_without_a_command_are_not_enough(argv: str) -> None:
    """The commands are listed, as where nothing was typed at all."""
    done = firstkey(*argv.split())
    assert (done.returncode, done.stdout) == (USAGE, firstkey("--help").stdout)


@pytest.mark.parametrize("command", ["status", "audit", "seal", "host-keys", "known-hosts"])
def test_help_has_no_option_that_means_nothing_there(machine: Machine, command: str) -> None:
    """These ask no metadata service; that they are given its address all the same is no mistake."""
    assert "--imds" not in firstkey(command, "--help").stdout
    words = (command, "--root", str(machine.root), "--imds", "http://127.0.0.1:9", "--help")
    assert firstkey(*words).returncode == 0


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("sttus", "status"),
        ("hostkeys", "host-keys"),
        ("key", "keys"),
        ("sael", "seal"),
        ("--verson", "version"),
    ],
)
def test_a_mistyped_command_is_guessed(typed: str, meant: str) -> None:
    """One sentence, with the command that was probably meant."""
    done = firstkey(typed)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == (
        f"firstkey: there is no command {typed!r} (did you mean {meant}?) (bad-usage)\n"
        "  What to do: See: firstkey --help\n"
    )


@pytest.mark.parametrize(
    "argv, status",
    [
        ("run --nope", USAGE),
        ("run --wait banana", USAGE),
        ("run --user ../x", USAGE),
        ("keys --imds http://example.com", USAGE),
        ("keys --imds ftp://127.0.0.1", USAGE),
        ("run --dry-run --imds=", USAGE),  # as of a script's unset variable
        ("doctor --key= --imds http://127.0.0.1:9", USAGE),
        ("known-hosts --host a.example ''", USAGE),
        ("config --config=", BAD_CONFIG),
        ("config --config ROOT/absent", BAD_CONFIG),
        ("config --check", BAD_CONFIG),
        ("status --root ROOT/absent", USAGE),
        ("config --root ROOT/etc/passwd", USAGE),
        ("keys --imds http://127.0.0.1:9 --wait 0.1", NO_ANSWER),
    ],
)
def test_each_mistake_has_its_status_and_its_remedy(machine: Machine, argv: str, status: int) -> None:
    """A sentence that begins with the program's name, and what to do next."""
    machine.configure("[Keys]\nUsers=admin\nNonsense=1\n")
    words = [word.replace("ROOT", str(machine.root)) for word in shlex.split(argv)]
    root = () if "--root" in words else ("--root", str(machine.root))
    done = firstkey(*words, *root)
    assert (done.returncode, done.stdout) == (status, "")
    assert "firstkey" in done.stderr
    assert "Traceback" not in done.stderr
    assert status == USAGE or "What to do: " in done.stderr


def test_a_remedy_is_about_what_was_named(machine: Machine) -> None:
    """No path for --config is none, and not this directory; the route is that of the named endpoint."""
    assert "--config ''" in firstkey("config", "--config=").stderr
    said = firstkey("doctor", "--key", "/etc/passwd").stderr.splitlines()
    assert "/etc/passwd is no public key: " in said[0]
    assert "id_ed25519.pub" in said[1]
    assert "--live" in firstkey("known-hosts", "/dev/null").stderr
    words = ("keys", "--imds", "http://127.0.0.1:9", "--wait", "0.1", "--root", str(machine.root))
    assert "169.254.169.254" not in firstkey(*words).stderr


@pytest.mark.root
def test_the_running_system_is_root_s(tmp_path: Path) -> None:
    """Somebody else is told what to do instead, and nothing is tried."""
    place = tmp_path.parents[2] if not tmp_path.parents[2].stat().st_mode & 0o005 else None
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if place or not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("the checkout or Python cannot be reached by others than root here")
    done = subprocess.run(
        [*nobody, "/usr/bin/python3", "-I", "-c", f"import os; os.listdir({str(AGENT)!r})"],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("the checkout cannot be read by others than root")
    done_as_nobody = subprocess.run(
        [*nobody, "/usr/bin/python3", "-m", "firstkey", "run"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done_as_nobody.returncode == NEEDS_ROOT
    assert "(needs-root)" in done_as_nobody.stderr


@pytest.mark.parametrize("command", QUIET_COMMANDS)
@pytest.mark.sample(6)
def test_a_full_disk_is_no_riddle(machine: Machine, command: str) -> None:
    """What could not be printed is said, in a sentence."""
    root = () if "help" in command else ("--root", str(machine.root))
    with Path("/dev/full").open("wb") as full:
        done = firstkey(*command.split(), *root, out=full.fileno())
    assert done.returncode == FAILED
    assert done.stderr.endswith("firstkey: the result could not be printed: No space left on device\n")


@pytest.mark.parametrize("command", [command for command in QUIET_COMMANDS if "dry-run" not in command])
@pytest.mark.sample(5)
def test_a_reader_that_stops_reading_ends_it_quietly(machine: Machine, command: str) -> None:
    """As `| head` does."""
    root = () if "help" in command else ("--root", str(machine.root))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = firstkey(*command.split(), *root, out=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_standard_output_is_no_failure(machine: Machine) -> None:
    """Nobody wanted to read it."""
    shell = ("sh", "-c", 'exec "$@" >&-', "sh")
    done = firstkey("config", "--root", str(machine.root), prefix=shell)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.sample(5)
def test_the_work_is_done_whatever_becomes_of_the_words(machine: Machine, closed: str) -> None:
    """A supervisor may close all three: no key may be missing for it, and no word get into a file."""
    machine.write("/dev/console", "")
    machine.write("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\n")
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    done = firstkey("host-keys", "--root", str(machine.root), prefix=shell)

    assert done.returncode == (FAILED if "full" in closed else 0)
    assert machine.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text().startswith("ssh-ed25519 ")
    assert machine.path("/var/lib/firstkey/ledger.json").read_text().startswith('{"version"')
    assert machine.path("/run/firstkey/lock").read_text() == ""


def test_ctrl_c_ends_it_quietly(machine: Machine) -> None:
    """While it waits for an answer; 130 is what a shell makes of it."""
    machine.configure("[IMDS]\nRequestTimeoutSec=60\n")  # it has no other word to say before the signal comes
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asking = subprocess.Popen(
            [sys.executable, "-m", "firstkey", "keys", "--imds", url, "--root", machine.root, "--wait", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)},
        )
        silent.settimeout(60)
        with silent.accept()[0]:
            asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=60)
    assert (asking.returncode, out, err) == (130, b"", b"")


NOBODY_THERE = ("--imds", "http://127.0.0.1:9")


@pytest.mark.slow
def test_ctrl_c_while_it_loads_is_quiet_too(machine: Machine) -> None:
    """At whatever moment it comes, once the package itself is found."""
    for pause in range(7, 60, 4):
        loading = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, str(pause), "keys", *NOBODY_THERE, "--root", str(machine.root)],
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)},
        )
        _, err = loading.communicate(timeout=60)
        assert (loading.returncode, err) == (130, b""), pause


SLOWLY = """\
import runpy, signal, sys
pause = int(sys.argv.pop(1))
left = [pause]
def trace(frame, event, _):
    if event == "call" and "firstkey" in frame.f_code.co_filename:
        left[0] -= 1
        if left[0] < 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)
sys.setprofile(trace)
runpy.run_module("firstkey", run_name="__main__")
"""


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
@pytest.mark.sample(3)
def test_every_locale_can_show_every_text(machine: Machine, locale: str) -> None:
    """A publisher's name with letters that the terminal does not have is no riddle either."""
    machine.configure("[Image]\nPublisher=Bücher ☃ GmbH\n")
    done = firstkey("config", "--root", str(machine.root), LC_ALL=locale, PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert "internal-error" not in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        "run -v -q",
        "status --json --timeline",
        "config --check --json",
        "audit --json --sarif",
    ],
)
def test_one_form_of_output(machine: Machine, argv: str) -> None:
    """Two in one call are a mistake, which names both."""
    done = machine.firstkey(*argv.split())
    assert (done.status, done.out) == (USAGE, "")
    assert re.search(r"argument \S+: not allowed with argument \S+", done.err)


@pytest.mark.parametrize("command", ["run", "host-keys", "keys", "status", "config"])
@pytest.mark.sample(5)
def test_quiet_is_silent_where_all_is_well(machine: Machine, keys: dict[str, str], command: str) -> None:
    """-q leaves warnings and errors, with every command."""
    machine.configure("[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n[Image]\nPublisher=x\n")
    machine.write("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\n")
    machine.write("/dev/console", "")
    with Emulator(Settings(keys=(("launch", keys["ed25519"]),))) as service:
        assert machine.run(service).status == 0
        loud = machine.firstkey(*command.split(), service=service)
        assert loud.out
        assert machine.firstkey(*command.split(), "-q", service=service) == Run(0, "", "")


def test_quiet_tells_what_is_wrong(machine: Machine, keys: dict[str, str]) -> None:
    """That is what it leaves: a key that is refused, a run that failed, a host key that is broken."""
    machine.write("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\n")
    machine.write("/etc/ssh/ssh_host_ed25519_key", "", mode=0o600)
    report = {"version": 1, "outcome": "failed", "reason": "imds-disabled", "detail": "switched off"}
    machine.write("/run/firstkey/report.json", json.dumps(report))
    status = machine.firstkey("status", "-q").out
    assert "failed" in status
    assert "(imds-disabled)" in status
    assert "Host key:  /etc/ssh/ssh_host_ed25519_key" in status
    assert "Users:" not in status
    pairs = (("good", keys["ed25519"]), ("bad", "nonsense"))
    with Emulator(Settings(keys=pairs)) as service:
        offered = machine.firstkey("keys", "-q", service=service).out
    assert offered.startswith("! 1 bad: refused\n")
    assert "good" not in offered
