"""hosts_access(5): which rule decides about a client, and which cannot be decided without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstkey.login import tcp_wrappers
from firstkey.ssh.restrictions import Client
from firstkey.system.tree import Tree


@pytest.mark.parametrize(
    "allow,deny,known,unknown",
    [
        ("", "", True, True),
        ("", "ALL: ALL", False, False),
        ("", "sshd: ALL", False, False),
        ("", "sshd, vsftpd : ALL", False, False),
        ("", "vsftpd: ALL", True, True),
        ("sshd: ALL", "ALL: ALL", True, True),
        ("sshd: 192.0.2.", "ALL: ALL", True, None),
        ("sshd: 10.", "ALL: ALL", False, None),
        ("sshd: 192.0.2.0/255.255.255.0", "ALL: ALL", True, None),
        ("sshd: 192.0.2.0/24", "ALL: ALL", True, None),
        ("sshd: [2001:db8::]/32", "ALL: ALL", False, None),
        ("sshd: .example.com", "ALL: ALL", None, None),
        ("", "sshd: .example.com", None, None),
        ("", "ALL: ALL EXCEPT 192.0.2.7", True, None),
        ("", "ALL EXCEPT sshd: ALL", True, True),
        ("sshd: ALL: deny", "", False, False),
        ("sshd: ALL: allow", "ALL: ALL", True, True),
        ("", "sshd: ALL: allow", True, True),
        ("", "# ALL: ALL", True, True),
        ("", "ALL: \\\n ALL", False, False),
        ("sshd@10.0.0.1: ALL", "ALL: ALL", None, None),
        ("sshd: 192.0.2.7\nsshd: .example.com", "", True, True),
    ],
)
def test_decisions(tmp_path: Path, allow: str, deny: str, known: bool | None, unknown: bool | None) -> None:
    """The first rule that fits decides; a doubt counts only where it could turn the answer."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts.allow").write_text(f"{allow}\n")
    (etc / "hosts.deny").write_text(f"{deny}\n")
    with Tree(str(tmp_path)) as tree:
        assert tcp_wrappers.decide(tree, Client("192.0.2.7", "192.0.2.7")).lets is known
        assert tcp_wrappers.decide(tree, None).lets is unknown


def test_the_rule_is_named(tmp_path: Path) -> None:
    """With its file and line, lines that go on counted."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts.deny").write_text("# first\nftpd: \\\n ALL\n\nsshd: ALL\n")
    with Tree(str(tmp_path)) as tree:
        assert tcp_wrappers.decide(tree, None) == tcp_wrappers.Decision(lets=False, place="/etc/hosts.deny:5")


def test_only_an_sshd_with_the_library_asks(tmp_path: Path) -> None:
    """Elsewhere the files are of no account; and without a rule there is nothing to ask."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "sshd").write_bytes(b"\x7fELF\0libwrap.so.0\0")
    (tmp_path / "other").write_bytes(b"\x7fELF\0libc.so.6\0")
    with Tree(str(tmp_path)) as tree:
        assert not tcp_wrappers.are_asked(tree, "/sshd")
        (tmp_path / "etc/hosts.deny").write_text("ALL: ALL\n")
        assert tcp_wrappers.are_asked(tree, "/sshd")
        assert not tcp_wrappers.are_asked(tree, "/other")
        session = tmp_path / "usr/lib/openssh/sshd-session"
        session.parent.mkdir(parents=True)
        session.write_bytes(b"\x7fELF\0libwrap.so.0\0")
        assert tcp_wrappers.are_asked(tree, "/other")
