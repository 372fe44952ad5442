"""`firstkey demo`: what it shows is so, it needs nobody's rights, and it leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hostkeys import fake_keygen
from machine import AGENT

PAGE = Path(__file__).resolve().parents[2] / "docs/demo.md"
LONGEST = 100  # columns
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def argv(*options: str) -> list[str]:
    """The demo, as a program."""
    return [sys.executable, "-m", "firstkey", "demo", *options]


def scratch_root(text: str) -> Path:
    """Where the demo that printed this worked: other demos may run on this machine."""
    found = re.search(r"\s(/\S*/firstkey-demo-\w+)", text)
    assert found
    return Path(found[1])


def masked(text: str) -> str:
    """The text without what differs from one demo to the next: lines are filled, so their ends go too."""
    for pattern, name in (
        (r"/\S*/firstkey-demo-\w+", "DIRECTORY"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"SHA256:[A-Za-z0-9+/]{43}", "FINGERPRINT"),
        (r"AAAAC3NzaC1l\.\.\.\S{8}", "KEY"),
        (r"/home/[\w.-]+", "HOME"),
        (r"--user \S+", "--user NAME"),
        (r"one user,\s+\S+\.", "one user, NAME."),
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


@pytest.mark.slow
def test_every_step_comes_out_as_it_should(shown: str) -> None:
    """Each step was really done and checked."""
    assert "[FAIL]" not in shown
    assert shown.count("=== ") == 4
    for promise in (
        "No file was written.",
        "The launch key stays removed.",
        "person's own key is still there",
    ):
        assert f"[ ok ] {promise}" in shown or promise in shown
    assert shown.rstrip().endswith("Every check passed.")


@pytest.mark.slow
def test_the_files_are_shown_with_modes_and_owners(shown: str) -> None:
    """Those of a first boot: the report among them, and directories."""
    owner = re.escape(pwd.getpwuid(os.geteuid()).pw_name)
    for mode, path in (
        ("drwx------", "/home/demo/.ssh"),
        ("-rw-------", "/home/demo/.ssh/authorized_keys"),
        ("-rw-------", "/etc/ssh/ssh_host_ed25519_key"),
        ("-rw-------", "/var/lib/firstkey/ledger.json"),
        ("-rw-r--r--", "/run/firstkey/report.json"),
    ):
        assert re.search(rf"(?m)^  {mode} {owner} +{path}$", shown)


@pytest.mark.sshd
@pytest.mark.slow
def test_a_real_login_is_shown(shown: str) -> None:
    """With the launch key it works, with the one of another instance it does not."""
    assert "ssh with first-key: logged in." in shown
    assert "ssh with second-key: logged in." in shown
    assert "ssh with first-key: refused." in shown


def test_a_directory_with_an_odd_name(tmp_path: Path) -> None:
    """Its paths are words of OpenSSH's configuration, where % begins a token.

    This is the quick run of the demo to its end.
    """
    place = tmp_path / "temporary files, 100%home"
    place.mkdir()
    environ = homeless(tmp_path, TMPDIR=str(place))
    done = subprocess.run(argv(), capture_output=True, text=True, timeout=110, check=False, env=environ)
    assert (done.returncode, done.stderr, "[FAIL]" in done.stdout) == (0, "", False)
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_lines_fit_a_terminal_and_have_no_colours(shown: str) -> None:
    """Standard output is no terminal here."""
    assert max(map(len, shown.splitlines())) <= LONGEST + 30  # the command lines are not broken
    assert "\x1b" not in shown
    assert shown.isascii()


def names(*places: Path) -> set[str]:
    """Everything below these directories, by path; byte code of Python's own is no trace of the demo."""
    found = (path for place in places for path in place.rglob("*"))
    return {str(path) for path in found if path.suffix != ".pyc" and path.name != "__pycache__"}


def homeless(tmp_path: Path, **environ: str) -> dict[str, str]:
    """An environment with a home and a place for temporary files of its own."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir(exist_ok=True)
    own = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), **own, **environ}


@pytest.mark.slow
def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Neither in the home, nor where temporary files go, nor in /run, where sshd's own may be new."""
    had_sshds = Path("/run/sshd").exists()
    environ = homeless(tmp_path)
    done = subprocess.run(argv(), capture_output=True, text=True, timeout=110, check=False, env=environ)
    assert done.returncode == 0
    assert not scratch_root(done.stdout).exists()
    assert names(tmp_path) == {str(tmp_path / "home"), str(tmp_path / "tmp")}
    assert Path("/run/sshd").exists() == had_sshds


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=str
)
@pytest.mark.parametrize("when", ["The machine is", "Exit status", "=== 3."])
def test_nothing_is_left_behind_by_a_signal(number: signal.Signals, status: int, when: str) -> None:
    """Ctrl-C twice, a request to end, a terminal that is closed: at the beginning, in the middle, later."""
    process = subprocess.Popen(
        argv(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    said = ""
    while when not in said:
        line = process.stdout.readline()
        assert line, "it ended before"
        said += line
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    assert not scratch_root(said).exists()


@pytest.mark.slow
@pytest.mark.root
def test_without_sshd_the_rest_is_shown(tmp_path: Path) -> None:
    """It says why no login is shown, and leaves no directory of sshd's behind that was not there."""
    hide = 'for name in sshd ssh; do mount --bind /dev/null "$(command -v $name)"; done; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, "sh", *argv()],
        capture_output=True, text=True, timeout=110, check=False, env=homeless(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not shown: a real SSH login, because sshd is not installed" in done.stdout
    assert "ssh with" not in done.stdout


@pytest.mark.slow
@pytest.mark.root
def test_sshd_s_directory_goes_again_where_there_was_none(tmp_path: Path) -> None:
    """Debian's sshd wants /run/sshd; on a machine without a running sshd, the demo takes it away again."""
    hide = 'mount -t tmpfs none /run && "$@" && ls -A /run'
    done = subprocess.run(
        ["unshare", "-mpf", "--mount-proc", "sh", "-c", hide, "sh", *argv()],
        capture_output=True, text=True, timeout=110, check=False, env=homeless(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("Every check passed.")


@pytest.mark.root
def test_a_user_without_an_account_is_told_so() -> None:
    """As in a container that was started with some number for its user: no traceback, nothing left behind."""
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o1777)
        agent = shutil.copytree(AGENT, place / "agent", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", str(agent)], check=True)
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(agent), "TMPDIR": str(place)}
        number = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "/usr/bin/python3"]
        done = subprocess.run(
            [*number, "-B", "-m", "firstkey", "demo"],
            capture_output=True, text=True, timeout=110, check=False, cwd="/", env=environ,
        )  # fmt: skip
        assert [path.name for path in place.iterdir()] == ["agent"]
    finally:
        shutil.rmtree(place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("firstkey: user id 54321 has no account on this machine")


@pytest.mark.slow
def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    """A ssh-keygen that makes no host keys: the demo says what is not as it should be, and exits with 1."""
    path = fake_keygen(tmp_path / "bin", 'case "$*" in *firstkey-hostkeys*) exit 1;; esac; exec $real "$@"')
    done = subprocess.run(
        argv(), capture_output=True, text=True, timeout=110, check=False, env=homeless(tmp_path, PATH=path)
    )
    assert done.returncode == 1
    assert "[FAIL] Exit status 0." in done.stdout
    assert "These checks failed:" in done.stdout
    assert "Every check passed" not in done.stdout


@pytest.mark.slow
def test_it_can_be_kept_to_look_at() -> None:
    """--keep says where it is."""
    done = subprocess.run(argv("--keep"), capture_output=True, text=True, timeout=110, check=False)
    kept = Path(done.stdout.rsplit("Kept: ", 1)[1].strip())
    assert (kept / "etc/ssh/ssh_host_ed25519_key").is_file()
    shutil.rmtree(kept)


@pytest.mark.slow
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
            [*NOBODY, "/usr/bin/python3", "-m", "firstkey", "demo"],
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


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints(shown: str) -> None:
    """Passages that are left out are marked; the others stand in this order in what is printed now."""
    block = PAGE.read_text(encoding="utf-8").split("```console\n$ ./dev demo\n")[1].split("```")[0]
    passages = [masked(passage) for passage in block.split("[...]")]
    assert len(passages) >= 3
    rest = masked(shown)
    for passage in passages:
        assert passage in rest, "a passage of the page is not (in this place) in what the demo prints"
        rest = rest.split(passage, 1)[1]
