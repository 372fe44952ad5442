"""SELinux labels, with a policy and its program played: there is no SELinux where tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firstkey.system import command
from firstkey.system.files import Looks
from firstkey.system.tree import Tree

LABEL = "system_u:object_r:ssh_home_t:s0"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with SELinux on, and a matchpathcon on PATH that notes how it is called."""
    enforce = tmp_path / "sys" / "fs" / "selinux" / "enforce"
    enforce.parent.mkdir(parents=True)
    enforce.write_text("1")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    answer(tmp_path, f"printf '{LABEL}\\n'")
    return tmp_path


def answer(root: Path, script: str) -> None:
    """Have matchpathcon do this."""
    program = root / "bin" / "matchpathcon"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >{root}/called\n{script}\n')
    program.chmod(0o755)


def label(root: Path) -> str | None:
    """What a new authorized_keys should have."""
    with Tree(str(root)) as tree:
        return command.selinux_label(tree, "/home/a b/.ssh/authorized_keys", "file")


def test_the_policys_own_program_is_asked(policy: Path) -> None:
    """For the path as the tree has it, and for the kind of file."""
    assert label(policy) == LABEL
    assert (policy / "called").read_text() == "-n -m file /home/a b/.ssh/authorized_keys\n"


@pytest.mark.parametrize(
    "script", ["exit 1", "echo '<<none>>'", ":", "echo nonsense", "printf '\\377\\n'", "kill -9 $$"]
)
def test_no_answer_is_no_label(policy: Path, script: str) -> None:
    """A file without a label of its own has the one that its directory hands down: no login is lost."""
    answer(policy, script)
    assert label(policy) is None


def test_without_selinux_nothing_is_asked(policy: Path) -> None:
    """No program is started where there is no policy."""
    (policy / "sys" / "fs" / "selinux" / "enforce").unlink()
    assert label(policy) is None
    assert not (policy / "called").exists()


@pytest.mark.root
def test_a_label_is_put_on_before_the_file_has_its_name(tmp_path: Path) -> None:
    """The attribute that SELinux reads is on the new file."""
    with Tree(str(tmp_path)) as tree, tree.opened("/") as directory:
        directory.replace("file", b"x", Looks(0o600, label=LABEL))
    assert os.getxattr(tmp_path / "file", "security.selinux") == LABEL.encode() + b"\0"
