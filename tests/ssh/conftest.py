"""Real keys of every type, what ssh-keygen says of a text, and an sshd that needs no port."""

from __future__ import annotations

import re
import subprocess
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pipe_sshd import Sshd

GENERATED = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa521": ("-t", "ecdsa", "-b", "521"),
}


def string(content: bytes) -> bytes:
    """A field of a key's data: its length, and itself."""
    return len(content).to_bytes(4, "big") + content


def line_of(kind: str, *fields: bytes, comment: str = "made by hand") -> bytes:
    """A public key's line, out of the fields behind the type."""
    data = b2a_base64(b"".join(map(string, (kind.encode(), *fields))), newline=False)
    return b" ".join((kind.encode(), data, comment.encode())) + b"\n"


def _security_key(plain: bytes, kind: str) -> bytes:
    """No hardware is needed for what looks like a key on it: the plain key and an application."""
    word, data, _ = plain.split(b" ", 2)
    behind_type = a2b_base64(data)[len(string(word)) :]
    whole = string(kind.encode()) + behind_type + string(b"ssh:")
    return b" ".join((kind.encode(), b2a_base64(whole, newline=False), b"on hardware\n"))


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys that ssh-keygen made, by a short name; the public ones lie beside them."""
    directory = tmp_path_factory.mktemp("keys")
    for name, options in GENERATED.items():
        command = [
            "ssh-keygen",
            "-q",
            *options,
            "-N",
            "",
            "-C",
            f"{name} of a test",
            "-f",
            str(directory / name),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return {name: directory / name for name in GENERATED}


@pytest.fixture(scope="session")
def lines(key_files: dict[str, Path]) -> dict[str, bytes]:
    """The public line of every type that is a launch key, each with its newline."""
    made = {name: path.with_suffix(".pub").read_bytes() for name, path in key_files.items()}
    made["ed25519-sk"] = _security_key(made["ed25519"], "sk-ssh-ed25519@openssh.com")
    made["ecdsa-sk"] = _security_key(made["ecdsa256"], "sk-ecdsa-sha2-nistp256@openssh.com")
    return made


# --- ssh-keygen -----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A line of `ssh-keygen -l`."""

    bits: int
    fingerprint: str


def keygen(text: bytes) -> list[Seen]:
    """The keys that ssh-keygen finds in a text."""
    command = ["ssh-keygen", "-l", "-f", "-"]
    outcome = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
    shown = re.findall(rb"^(\d+) (SHA256:\S+) ", outcome.stdout, re.MULTILINE)
    return [Seen(int(bits), fingerprint.decode()) for bits, fingerprint in shown]


@pytest.fixture(scope="session")
def ssh_keygen() -> Callable[[bytes], list[Seen]]:
    """What ssh-keygen reads in a text."""
    return keygen


@pytest.fixture(scope="session")
def make_line() -> Callable[..., bytes]:
    """A public key's line out of any fields."""
    return line_of


# --- sshd -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, key_files: dict[str, Path]) -> Sshd:
    """An sshd."""
    return Sshd(tmp_path_factory.mktemp("sshd"), key_files["ed25519"])
