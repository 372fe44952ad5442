"""The console block, read as its known readers read it, and writing it to terminals in every state."""

from __future__ import annotations

import base64
import os
import pty
import re
import subprocess
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import console

PREFIX = "<14>Nov 24 04:00:00 firstkey: "
KINDS = {"ssh-rsa": "RSA", "ecdsa-sha2-nistp256": "ECDSA", "ssh-ed25519": "ED25519"}


def key(kind: str, comment: str = "root@host") -> tuple[str, str]:
    """A fingerprint line and a public line as the caller has them."""
    blob = base64.b64encode(b"blob of " + kind.encode()).decode()
    return (f"256 SHA256:{blob[:20]} {comment} ({KINDS[kind]})", f"{kind} {blob} {comment}")


def on_a_terminal(block: bytes) -> str:
    """The console's text as the cloud shows it: other lines around, and carriage returns of the terminal."""
    text = "[    1.0] Booting\nip-10-0-0-1 login: " + block.decode() + "[    9.9] random line\n"
    return text.replace("\n", "\r\n")


def jenkins(text: str, algorithm: str) -> tuple[str, bytes]:
    """The Jenkins EC2 plugin's way: the first occurrence of the algorithm, to the end of the line."""
    start = text.index(algorithm)
    words = text[start : text.index("\n", start)].split(" ")
    return words[0], base64.b64decode(words[1].encode("ascii"), validate=True)


def keys_block(text: str) -> list[list[str]]:
    """How readers of cloud-init's block take it: what stands between the markers, a line a key."""
    found = re.search(
        r"-----BEGIN SSH HOST KEY KEYS-----\r\n(.*)\r\n-----END SSH HOST KEY KEYS-----", text, re.DOTALL
    )
    assert found
    return [line.split(" ", 2)[:2] for line in found[1].split("\r\n")]


def fingerprints(text: str) -> list[str]:
    """Readers of the other block: SHA256 words between the markers."""
    block = text[text.index("BEGIN SSH HOST KEY FINGERPRINTS") : text.index("END SSH HOST KEY FINGERPRINTS")]
    return re.findall(r"SHA256:[A-Za-z0-9+/=]{20,}", block)


HOSTILE = [
    "",
    "root@host",
    "ssh-rsa AAAA",
    "not-ssh-ed25519",
    "a ecdsa-sha2-nistp256 AAAA",
    "sk-ssh-ed25519@openssh.com",
    "rsa-sha2-512",
    "-----END SSH HOST KEY FINGERPRINTS-----",
    "-----BEGIN SSH HOST KEY KEYS-----",
    "-----END SSH HOST KEY KEYS-----",
    "two\r\nssh-rsa lines",
    "\x1b[2J\x1b[8m",
    "grüße\u202e",
    "x" * 100_000,
]


@pytest.mark.parametrize("comment", HOSTILE)
@pytest.mark.parametrize("order", [list(KINDS), list(reversed(KINDS))], ids=["rsa-first", "ed25519-first"])
def test_known_readers_find_the_keys(comment: str, order: list[str]) -> None:
    """Whatever the comments are, each reader finds each key, and nothing else."""
    block = console.fingerprint_block([key(kind, comment) for kind in order], prefix=PREFIX)
    text = on_a_terminal(block)
    for kind in order:
        assert jenkins(text, kind) == (kind, b"blob of " + kind.encode())
    assert [kind for kind, _ in keys_block(text)] == order
    assert len(fingerprints(text)) == len(order)
    assert all(f"({KINDS[kind]})" in text for kind in order) or len(comment) > 1000


def test_shape() -> None:
    """The block is, byte for byte, what DESIGN promises to its readers."""
    lines = ("256 SHA256:abc root@host (ED25519)", "ssh-ed25519 AAAA root@host")
    assert console.fingerprint_block([lines], prefix=PREFIX).decode() == (
        "\n"
        f"{PREFIX}-----BEGIN SSH HOST KEY FINGERPRINTS-----\n"
        f"{PREFIX}256 SHA256:abc root@host (ED25519)\n"
        f"{PREFIX}-----END SSH HOST KEY FINGERPRINTS-----\n"
        "-----BEGIN SSH HOST KEY KEYS-----\n"
        "ssh-ed25519 AAAA root@host\n"
        "-----END SSH HOST KEY KEYS-----\n"
    )


def test_key_without_comment_gets_one() -> None:
    """The carriage return of a terminal would otherwise be taken for a part of the base64."""
    block = console.fingerprint_block([("256 SHA256:abc no comment (RSA)", "ssh-rsa AAAA")], prefix="")
    assert b"\nssh-rsa AAAA firstkey\n" in block


def test_real_keys(tmp_path: Path) -> None:
    """With ssh-keygen's own lines."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ssh-ed25519 -----END", "-f", tmp_path / "k"],
        check=True,
        timeout=60,
    )
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "k.pub"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    public = (tmp_path / "k.pub").read_text()
    text = on_a_terminal(console.fingerprint_block([(listed, public)], prefix=console.syslog_prefix()))
    assert jenkins(text, "ssh-ed25519")[1] == base64.b64decode(public.split()[1])
    assert fingerprints(text) == [listed.split()[1]]


def test_prefix_is_like_loggers() -> None:
    """`<14>Mon DD HH:MM:SS name: ` is what readers expect in front; days are padded with a space."""
    assert console.syslog_prefix(0) == "<14>Jan  1 00:00:00 firstkey: "
    assert console.syslog_prefix(1_700_000_000) == "<14>Nov 14 22:13:20 firstkey: "


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal in place of the console: our end and the name of the other."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_writes_to_a_terminal(terminal: tuple[int, str]) -> None:
    """All bytes arrive."""
    ours, name = terminal
    console.write(b"hello\n", path=name)
    assert os.read(ours, 100) == b"hello\n"


def test_terminal_that_takes_nothing(terminal: tuple[int, str]) -> None:
    """A console whose other end stands still is given up in time, as a FirstkeyError."""
    _, name = terminal
    begin = time.monotonic()
    with pytest.raises(FirstkeyError, match="cannot write to") as caught:
        console.write(b"x" * 10_000_000, path=name, seconds=0.5)
    assert caught.value.reason is reasons.CONSOLE_FAILED
    assert time.monotonic() - begin < 20


def test_slow_terminal_gets_all(terminal: tuple[int, str]) -> None:
    """A slow console gets the whole text, in pieces."""
    ours, name = terminal
    data = os.urandom(40_000)
    child = os.fork()
    if child == 0:
        try:
            console.write(data, path=name, seconds=60)
        finally:
            os._exit(0)
    got = b""
    while len(got) < len(data):
        got += os.read(ours, 700)
    os.waitpid(child, 0)
    assert got == data


@pytest.mark.parametrize("kind", ["missing", "directory", "symlink", "fifo", "full"])
def test_broken_consoles(tmp_path: Path, kind: str) -> None:
    """A missing or odd console is one error with one reason, and never a hang."""
    path = tmp_path / "console"
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        (tmp_path / "elsewhere").touch()
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "full":
        path = Path("/dev/full")
    with pytest.raises(FirstkeyError) as caught:
        console.write(b"x", path=str(path))
    assert caught.value.reason is reasons.CONSOLE_FAILED
    assert str(path) in caught.value.message


def test_file_is_appended_to(tmp_path: Path) -> None:
    """A regular file in place of the console (a tree under test) keeps what it had."""
    path = tmp_path / "console"
    path.write_bytes(b"before\n")
    console.write(b"after\n", path=str(path))
    assert path.read_bytes() == b"before\nafter\n"
