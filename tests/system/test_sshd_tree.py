"""Match blocks: whom to ask sshd about, and groups that mean the tree's own."""

from __future__ import annotations

import ipaddress

import pytest

from firstkey.ssh import access, sshd_config
from firstkey.system import sshd_tree


def asked(config: str) -> list[dict[str, str]]:
    """The clients beyond the one that is always asked about."""
    specs = sshd_tree.connections([config.encode()])
    return [dict(part.split("=") for part in spec.split(",")) for spec in specs[1:]]


@pytest.mark.parametrize(
    "line,key,value",
    [
        ("Match Address 10.0.0.0/8", "addr", "10.0.0.1"),
        ("match address 192.168.7.*", "addr", "192.168.7.1"),
        ("Match Address 10.*", "addr", "10.1.1.1"),
        ("Match Address !10.1.0.0/16,10.0.0.0/8", "addr", "10.0.0.1"),
        ("Match Address 2001:db8::/32", "addr", "2001:db8::1"),
        ("Match Address 192.0.2.77/32", "addr", "192.0.2.77"),
        ('Match Host "*.example.com"', "host", "x.example.com"),
        ("Match=Host build?.example.com", "host", "build1.example.com"),
        ("Match User root LocalPort 2222", "lport", "2222"),
        ("  Match LocalAddress 203.0.113.9 User *", "laddr", "203.0.113.9"),
    ],
)
def test_a_client_that_the_block_means(line: str, key: str, value: str) -> None:
    """Each block gets a client that it could be about; addresses are ones that sshd can read."""
    (client,) = asked(f"Port 22\n{line}\n    PermitRootLogin yes\n")
    assert client[key] == value
    ipaddress.ip_address(client["addr"])


def test_blocks_about_users_need_no_other_client() -> None:
    """The user is asked about anyway; so is everybody else, and nothing is asked twice."""
    assert asked("Match User ann\nMatch all\nMatch Group wheel\n#Match Address 10.0.0.1\n") == []
    assert sshd_config.has_blocks([b"", b"match all"])
    assert not sshd_config.has_blocks([b"#Match all\nMatchless yes\n"])


@pytest.mark.parametrize(
    "line", ["Match Address", "Match", "Match Address x/y", "Match Address ,", 'Match Host "']
)
def test_broken_lines_are_harmless(line: str) -> None:
    """Sshd rejects such a file by itself; it is asked all the same."""
    assert len(sshd_tree.connections([line.encode()])) >= 1


def test_groups_become_users() -> None:
    """Only the criterion changes; every other line stays as it is."""
    config = b"Port 22\nMatch Group wheel,adm Address 10.0.0.0/8\n  Group no\nMatch Group none\n# group\n"
    members = {"wheel,adm": ["ann", "root"], "none": []}
    lines = [sshd_tree.without_groups(raw, lambda patterns: members[patterns]) for raw in config.split(b"\n")]
    assert b"\n".join(lines) == (
        b'Port 22\nMatch User ann,root address "10.0.0.0/8"\n  Group no\n'
        b"Match User firstkey:nobody\n# group\n"
    )


@pytest.mark.parametrize(
    "patterns,names,expected",
    [
        ("wheel", ["users", "wheel"], True),
        ("wh*", ["wheel"], True),
        ("*,!wheel", ["users", "wheel"], False),
        ("!wheel", ["users"], False),
        ("adm", ["wheel"], False),
    ],
)
def test_patterns(patterns: str, names: list[str], expected: bool) -> None:
    """A negation that takes one of the names forbids all (ssh_config(5): PATTERNS)."""
    assert access.any_matches(names, patterns) is expected


def test_settings_are_seen_as_sshd_sees_them() -> None:
    """Blanks, an equals sign and quotes; comments set nothing."""
    config = b'HostKey /a\n\tfile = "/b c" /d\n#HostKey /c\nHOSTKEY=/d # x\n\nUsePAM yes\n'
    assert [(number, line.keyword, line.words) for number, line in sshd_config.lines(config)] == [
        (1, "hostkey", ("/a",)),
        (2, "file", ("/b c", "/d")),
        (4, "hostkey", ("/d",)),
        (6, "usepam", ("yes",)),
    ]
