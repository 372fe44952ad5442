"""`firstkey demo`: what it shows is so, it needs nobody's rights, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from machine import AGENT

README = Path(__file__).resolve().parents[2] / "README.md"
LONGEST = 100  # columns
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def argv(*options: str) -> list[str]:
    """The demo, as a program."""
    return [sys.executable, "-m", "firstkey", "demo", *options]


def left_behind() -> set[str]:
    """Scratch roots of demos, wherever they are made."""
    places = [tempfile.gettempdir(), "/run", os.path.expanduser("~")]
    return {str(path) for place in places for path in Path(place).glob("firstkey-demo-*")}


def masked(text: str) -> str:
    """The text without what differs from one demo to the next: lines are filled, so their ends go too."""
    for pattern, name in (
        (r"/\S*/firstkey-demo-\w+", "DIRECTORY"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"SHA256:[A-Za-z0-9+/]{43}", "FINGERPRINT"),
        (r"AAAAC3NzaC1l\.\.\.\S{8}", "KEY"),
        (r"/home/[\w.-]+", "HOME"),
        (r"--user \S+", "--user NAME"),
        (r"one user,\s+\S+;", "one user, NAME;"),
        (r"lets\s+\S+\s+in", "lets NAME in"),
        (r"authorized_keys\s+of\s+\S+\.", "authorized_keys of NAME."),
        (r"(?m)^(  [d-][rwx-]{9}) \S+ +", r"\1 NAME "),
        (r"\s+", " "),
    ):
        text = re.sub(pattern, name, text)
    return text.strip()


@pytest.fixture(scope="module")
def shown() -> str:
    """What the demo prints."""
    done = subprocess.run(argv(), capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_step_comes_out_as_it_should(shown: str) -> None:
    """Each step was really done and checked."""
    assert "[FAIL]" not in shown
    assert shown.count("=== ") == 4
    for promise in ("No file was written.", "The launch key stays out.", "person's own key is still there"):
        assert f"[ ok ] {promise}" in shown or promise in shown
    assert shown.rstrip().endswith("Everything came out as it should.")


@pytest.mark.sshd
def test_a_real_login_is_shown(shown: str) -> None:
    """With the launch key it works, with the one of another instance it does not."""
    assert "ssh with first-key: logged in." in shown
    assert "ssh with second-key: logged in." in shown
    assert "ssh with first-key: refused." in shown


def test_lines_fit_a_terminal_and_have_no_colours(shown: str) -> None:
    """Standard output is no terminal here."""
    assert max(map(len, shown.splitlines())) <= LONGEST + 30  # the command lines are not broken
    assert "\x1b" not in shown
    assert shown.isascii()


def test_nothing_is_left_behind() -> None:
    """Not after its end, and not after Ctrl-C in the middle."""
    before = left_behind()
    unbuffered = [sys.executable, "-u", *argv()[1:]]
    process = subprocess.Popen(unbuffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    line = next(line for line in process.stdout if "Exit status" in line)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert line
    assert (process.returncode, err) == (130, "")
    assert left_behind() == before


def test_it_can_be_kept_to_look_at() -> None:
    """--keep says where it is."""
    done = subprocess.run(argv("--keep"), capture_output=True, text=True, timeout=110, check=False)
    kept = Path(done.stdout.rsplit("Kept: ", 1)[1].strip())
    assert (kept / "etc/ssh/ssh_host_ed25519_key").is_file()
    shutil.rmtree(kept)


@pytest.mark.root
def test_somebody_without_rights_or_home_sees_it_too(tmp_path: Path) -> None:
    """Uid 65534 may write nowhere but in the directory for temporary files."""
    agent = tmp_path / "agent"
    shutil.copytree(AGENT, agent, ignore=shutil.ignore_patterns("__pycache__"))
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o1777)
        shutil.move(str(agent), place / "agent")
        subprocess.run(["chmod", "-R", "a+rX", str(place / "agent")], check=True)
        done = subprocess.run(
            [
                *[
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "/usr/bin/python3",
                    "-m",
                    "firstkey",
                    "demo",
                ]
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "agent"), "HOME": "/nonexistent"}
            | {"TMPDIR": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not list(place.glob("firstkey-demo-*"))
    finally:
        shutil.rmtree(place)


def test_the_readme_shows_what_the_demo_prints(shown: str) -> None:
    """Passages that are left out are marked; the others stand in this order in what is printed now."""
    block = README.read_text(encoding="utf-8").split("```console\n$ ./dev demo\n")[1].split("```")[0]
    passages = [masked(passage) for passage in block.split("[...]")]
    assert len(passages) >= 3
    rest = masked(shown)
    for passage in passages:
        assert passage in rest, "a passage of the README's is not (in this place) in what the demo prints"
        rest = rest.split(passage, 1)[1]
