"""Asking ssh-keygen about keys."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command
from firstkey.system.sshd import ask_keygen, knows_key, public_half

pytestmark = pytest.mark.sshd


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A private key, its public half beside it."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def test_the_public_half_is_told_by_the_private_one(private: Path) -> None:
    """Of a good key; nothing of a torn, empty, foreign or encrypted one."""
    content = private.read_bytes()
    line, is_encrypted = public_half(content)
    assert not is_encrypted
    assert line.split()[:2] == private.with_suffix(".pub").read_bytes().split()[:2]
    for bad in (b"", b"\0" * 400, content[:200], b"x", content.replace(b"OPENSSH", b"NONSENSE")):
        assert public_half(bad) == (b"", False)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", private], check=True, capture_output=True)
    assert public_half(private.read_bytes()) == (b"", True)


def test_a_public_key_is_known_by_its_type_and_its_point(private: Path) -> None:
    """What it does not know, it does not take."""
    line = private.with_suffix(".pub").read_bytes()
    assert knows_key(line)
    assert not knows_key(line.replace(b"ssh-ed25519", b"ssh-nonsense"))


def test_one_that_is_killed_says_nothing_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, say: that is an error, and not a bad key."""
    (tmp_path / "ssh-keygen").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FirstkeyError) as caught:
        public_half(b"x")
    assert caught.value.reason is reasons.KEYGEN_FAILED


def test_without_ssh_keygen_each_question_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the key is broken."""
    monkeypatch.setattr(command, "SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("ssh-keygen") is None
    with pytest.raises(FirstkeyError) as caught:
        ask_keygen("-A")
    assert caught.value.reason is reasons.KEYGEN_MISSING
