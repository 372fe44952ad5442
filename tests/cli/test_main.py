"""`firstkey` itself: whatever goes wrong, one clear sentence, the right exit status, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import AGENT, Machine

from firstkey.cli.main import COMMANDS

USAGE, FAILED, NO_ANSWER, NEEDS_ROOT, BAD_CONFIG = 2, 1, 75, 77, 78
QUIET_COMMANDS = ("status", "config", "config --json", "host-keys --dry-run", "--help")


def firstkey(
    *argv: str, out: int | None = subprocess.PIPE, prefix: tuple[str, ...] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run it as people do."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "firstkey", *argv],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), **environ},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """--help, with a sentence and no exit but 0."""
    done = firstkey(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: firstkey {command}")
    assert len(done.stdout.splitlines()) > 5


def test_without_a_command_it_tells_which_there_are() -> None:
    """Asked for, that is no mistake; otherwise it is one."""
    assert firstkey("--help").returncode == 0
    done = firstkey()
    assert done.returncode == USAGE
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "typed, meant", [("sttus", "status"), ("hostkeys", "host-keys"), ("key", "keys"), ("sael", "seal")]
)
def test_a_mistyped_command_is_guessed(typed: str, meant: str) -> None:
    """One sentence, with the command that was probably meant."""
    done = firstkey(typed)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == (
        f"firstkey: there is no command {typed!r}. Did you mean {meant!r}? See: firstkey --help\n"
    )


@pytest.mark.parametrize(
    "argv, status",
    [
        ("run --nope", USAGE),
        ("run --wait banana", USAGE),
        ("run --user ../x", USAGE),
        ("keys --imds http://example.com", USAGE),
        ("keys --imds ftp://127.0.0.1", USAGE),
        ("config --config ROOT/absent", BAD_CONFIG),
        ("config --check", BAD_CONFIG),
        ("status --root ROOT/absent", FAILED),
        ("keys --imds http://127.0.0.1:9 --wait 0.1", NO_ANSWER),
    ],
)
def test_each_mistake_has_its_status_and_its_remedy(machine: Machine, argv: str, status: int) -> None:
    """A sentence that begins with the program's name, and what to do next."""
    machine.configure("[Keys]\nUsers=admin\nNonsense=1\n")
    words = [word.replace("ROOT", str(machine.root)) for word in argv.split()]
    root = () if "--root" in words else ("--root", str(machine.root))
    done = firstkey(*words, *root)
    assert (done.returncode, done.stdout) == (status, "")
    assert "firstkey" in done.stderr
    assert "Traceback" not in done.stderr
    assert status == USAGE or "What to do: " in done.stderr


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
def test_a_full_disk_is_no_riddle(machine: Machine, command: str) -> None:
    """What could not be printed is said, in a sentence."""
    root = () if command == "--help" else ("--root", str(machine.root))
    with Path("/dev/full").open("wb") as full:
        done = firstkey(*command.split(), *root, out=full.fileno())
    assert done.returncode == FAILED
    assert done.stderr.endswith("firstkey: the result could not be printed: No space left on device\n")


@pytest.mark.parametrize("command", [command for command in QUIET_COMMANDS if "dry-run" not in command])
def test_a_reader_that_stops_reading_ends_it_quietly(machine: Machine, command: str) -> None:
    """As `| head` does."""
    root = () if command == "--help" else ("--root", str(machine.root))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = firstkey(*command.split(), *root, "-q" if root else "--help", out=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_standard_output_is_no_failure(machine: Machine) -> None:
    """Nobody wanted to read it."""
    shell = ("sh", "-c", 'exec "$@" >&-', "sh")
    done = firstkey("config", "--root", str(machine.root), prefix=shell)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_every_locale_can_show_every_text(machine: Machine, locale: str) -> None:
    """A publisher's name with letters that the terminal does not have is no riddle either."""
    machine.configure("[Image]\nPublisher=Bücher ☃ GmbH\n")
    done = firstkey("config", "--root", str(machine.root), LC_ALL=locale, PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert "internal-error" not in done.stderr
