"""Lines of known_hosts and SSHFP records, compared with OpenSSH's own programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firstkey.ssh import known_hosts
from firstkey.ssh.public_key import parse_launch_key

LINE = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEi/OkmThs50pV0c2EzGl7cpzTtWayPLyJcLYshCortw root@host"
KEY = parse_launch_key(LINE)


@pytest.mark.parametrize(
    "host,port,name",
    [("Www.Example.com", 22, "www.example.com"), ("10.0.0.1", 2222, "[10.0.0.1]:2222"), ("::1", 22, "::1")],
)
def test_names(host: str, port: int, name: str) -> None:
    """Ssh looks hosts up in lower case, and with the port where it is not its own."""
    assert known_hosts.name_of(host, port) == name


@pytest.mark.parametrize(
    "text", ["", "a b", "a,b", "*", "a?", "!a", "|1|x", "#a", "a\n", "a\0b", "[a]:1", "@revoked"]
)
def test_what_is_no_host(text: str) -> None:
    """Nothing that would make a line mean more hosts, other ones, or another line."""
    assert not known_hosts.is_host(text)


def test_one_line_for_all_names() -> None:
    """Without the comment, which names whoever made the key."""
    assert known_hosts.lines(["a", "[b]:2222"], KEY) == [f"a,[b]:2222 {' '.join(LINE.decode().split()[:2])}"]


@pytest.mark.sshd
@pytest.mark.parametrize("kind", [pytest.param("rsa", marks=pytest.mark.slow), "ecdsa", "ed25519"])
def test_records_are_those_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    """Numbers and digests, line for line."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)
    argv = ["ssh-keygen", "-r", "host.example.", "-f", f"{key}.pub"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    public = parse_launch_key((tmp_path / "key.pub").read_bytes())
    assert known_hosts.sshfp("host.example.", public) == said.splitlines()
