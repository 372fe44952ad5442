"""The installer: what it puts where, and that the command runs there as it will in an image."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from installed import TOP, Installed, install
from machine import Machine, new_key

import firstkey
from firstkey.metadata.emulator import Emulator
from firstkey.metadata.emulator import Settings as Service

BESIDE_THE_CODE = """
/usr/bin/firstkey
/usr/lib/firstkey/firstkey.conf
/usr/lib/systemd/catalog/firstkey.catalog
/usr/lib/systemd/system-preset/90-firstkey.preset
/usr/lib/systemd/system/firstkey.service
/usr/lib/systemd/system/ssh@.service.d/firstkey.conf
/usr/lib/systemd/system/sshd@.service.d/firstkey.conf
/usr/lib/systemd/system/sshd-keygen.service.d/firstkey.conf
/usr/lib/systemd/system/sshd-keygen@.service.d/firstkey.conf
/usr/lib/systemd/system/sshdgenkeys.service.d/firstkey.conf
/usr/share/doc/firstkey/examples/authorized-keys-command/sshd.conf
/usr/share/doc/firstkey/examples/authorized-keys-command/sysusers.conf
/usr/share/doc/firstkey/examples/authorized-keys-command/tmpfiles.conf
/usr/share/doc/firstkey/examples/await-host-keys
/usr/share/bash-completion/completions/firstkey
/usr/share/firstkey/firstkey.spdx.json
/usr/share/fish/vendor_completions.d/firstkey.fish
/usr/share/licenses/firstkey/LICENSE
/usr/share/man/man5/firstkey.conf.5
/usr/share/man/man8/firstkey.8
/usr/share/zsh/site-functions/_firstkey
"""
README, CHANGELOG = TOP / "README.md", TOP / "CHANGELOG.md"
CODE = "/usr/lib/firstkey/firstkey/"


def test_everything_is_in_its_place(installed: Installed) -> None:
    """The code with its bytecode in the private directory, and beside it exactly what is listed here."""
    modules = {f"{CODE}{path.relative_to(TOP / 'agent/firstkey')}" for path in TOP.rglob("agent/**/*.py")}
    found = set(installed.files())
    sources = [README, CHANGELOG, *TOP.glob("docs/*")]
    pages = {f"/usr/share/doc/firstkey/{path.relative_to(TOP)}" for path in sources}
    others = {path for path in found if not path.startswith(CODE)}
    assert others == {*BESIDE_THE_CODE.split(), *pages}
    assert {path for path in found if path.endswith(".py")} == modules
    assert len([path for path in found if path.endswith(".pyc")]) == len(modules)
    assert installed.path("/etc/firstkey/firstkey.conf.d").is_dir()


def test_modes_are_a_packages(installed: Installed) -> None:
    """Everybody can read it, only root can write it, two files are programs, whatever the caller's umask."""
    modes = {path: stat.S_IMODE(file.stat().st_mode) for path, file in installed.files().items()}
    assert modes.pop("/usr/bin/firstkey") == 0o755
    assert modes.pop("/usr/share/doc/firstkey/examples/await-host-keys") == 0o755
    assert set(modes.values()) == {0o644}
    directories = [path for path in installed.root.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o755}


def test_the_command_knows_its_version(installed: Installed) -> None:
    """It runs from the private directory of its own tree."""
    done = installed.firstkey("--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"firstkey {firstkey.__version__}\n", "", 0)


def test_any_python_can_be_the_systems(installed: Installed, tmp_path: Path) -> None:
    """The installed command on the Python that runs this test: the oldest, the newest, the distribution's."""
    program = str(installed.path("/usr/bin/firstkey"))
    done = subprocess.run(
        [sys.executable, "-BIS", program, "host-keys", "--dry-run", "--root", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "ed25519" in done.stdout


def test_nothing_around_it_says_where_code_comes_from(installed: Installed, tmp_path: Path) -> None:
    """Neither the current directory, nor the environment, nor start-up files of other packages."""
    for name in ("firstkey", "requests", "argparse", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')\n")
    environ = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "firstkey.py")}
    done = installed.firstkey("run", "--help", cwd=str(tmp_path), **environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: firstkey run")
    launcher = installed.path("/usr/bin/firstkey").read_text()
    assert launcher.startswith("#!/usr/bin/python3 -BIS\n")


def test_the_job_is_done_with_the_distributions_packages(installed: Installed, tmp_path: Path) -> None:
    """The whole job, over HTTP by the distribution's requests, run as it is installed."""
    (tmp_path / "root").mkdir()
    machine = Machine(tmp_path / "root")
    key = new_key(tmp_path, "laptop")
    with Emulator(Service(keys=(("laptop", key),))) as service:
        done = installed.firstkey("run", "--root", str(machine.root), "--imds", service.url)
    assert done.returncode == 0, done.stderr
    assert machine.keys == [key]
    assert len(machine.host_keys()) == 1


@pytest.mark.slow
def test_bytecode_is_what_runs(tmp_path: Path) -> None:
    """A start compiles nothing again: a module that could not be read as source runs all the same."""
    found = install(tmp_path, "--compile", SOURCE_DATE_EPOCH="1700000000")
    for path, file in found.files().items():
        if path.endswith("firstkey/__init__.py"):
            before = file.stat()
            file.write_text("(" * before.st_size)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found.firstkey("--version").stdout == f"firstkey {firstkey.__version__}\n"


@pytest.mark.slow
def test_a_run_writes_nothing_to_usr(tmp_path: Path) -> None:
    """Without bytecode the command is slower, and leaves none behind that no package owns."""
    found = install(tmp_path)
    before = set(found.files())
    assert found.firstkey("run", "--help").returncode == 0
    assert set(found.files()) == before


@pytest.mark.slow
def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Two installations at different times and places differ in nothing, with the bytecode."""
    trees = [install(tmp_path / name, "--compile", SOURCE_DATE_EPOCH="1700000000") for name in ("a", "bb/c")]
    first, second = ({path: file.read_bytes() for path, file in tree.files().items()} for tree in trees)
    assert first == second


@pytest.mark.parametrize("argv", [[], ["relative"], ["--nonsense", "/x"], ["--compile"]])
def test_a_wrong_call_installs_nothing(argv: list[str], tmp_path: Path) -> None:
    """It says what is wrong, with status 2."""
    done = subprocess.run(
        [str(TOP / "packaging/install"), *argv], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("packaging/install: ")
    assert not list(tmp_path.iterdir())
