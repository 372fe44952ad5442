"""Asking ssh-keygen about keys, and for new ones."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import command, keygen

pytestmark = pytest.mark.sshd


def generated(kind: str, directory: Path) -> Path:
    """A new private key of that type."""
    path = directory / "key"
    process = keygen.start_generating(kind, str(path), comment="someone@somewhere")
    keygen.check_generated(kind, process.finish())
    return path


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A private key, its public half beside it."""
    return generated("ed25519", tmp_path)


def test_a_pair_is_made_for_its_owner_alone(private: Path) -> None:
    """As ssh-keygen makes it, with the comment."""
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.with_suffix(".pub").read_text().endswith(" someone@somewhere\n")


def test_the_public_half_is_told_by_the_private_one(private: Path) -> None:
    """Of a good key; None of a torn, empty, foreign or encrypted one."""
    content = private.read_bytes()
    line = keygen.public_half(content)
    assert line
    assert line.split()[:2] == private.with_suffix(".pub").read_bytes().split()[:2]
    for bad in (b"", b"\0" * 400, content[:200], b"x", content.replace(b"OPENSSH", b"NONSENSE")):
        assert keygen.public_half(bad) is None
        assert not keygen.is_encrypted(bad)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", private], check=True, capture_output=True)
    assert keygen.public_half(private.read_bytes()) is None
    assert keygen.is_encrypted(private.read_bytes())


def test_openssh_judges_a_key_file_with_its_mode(private: Path) -> None:
    """A key that others may read is none to sshd."""
    assert keygen.loads(str(private))
    private.chmod(0o644)
    assert keygen.loads(str(private)) == (os.geteuid() != private.stat().st_uid)
    assert not keygen.loads(str(private) + ".none")


def test_a_type_that_is_refused_has_its_reason(tmp_path: Path) -> None:
    """FIPS mode refuses ed25519; here it is a type that no ssh-keygen makes."""
    with pytest.raises(FirstkeyError) as caught:
        generated("nonsense", tmp_path)
    assert caught.value.reason is reasons.KEYGEN_REFUSED
    assert os.listdir(tmp_path) == []


def test_without_ssh_keygen_each_question_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the key is broken."""
    monkeypatch.setattr(command, "SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("ssh-keygen") is None
    for question in (
        lambda: generated("rsa", tmp_path),
        lambda: keygen.public_half(b"x"),
    ):
        with pytest.raises(FirstkeyError) as caught:
            question()
        assert caught.value.reason is reasons.KEYGEN_MISSING
