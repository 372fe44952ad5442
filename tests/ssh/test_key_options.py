"""Options before a key: told from those that sshd does not know, for which it ignores the line."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import Lab

from firstkey.ssh import key_options
from firstkey.ssh.authorized_keys import Line
from firstkey.ssh.public_key import PublicKey

GOOD = [
    "restrict", "pty", "no-pty", "NO-X11-Forwarding", "user-rc", "no-touch-required", "agent-forwarding",
    'command="a \\"b\\" c"', 'from="*"', 'environment="A=b"', 'permitopen="a:1"', 'permitlisten="1"',
    'expiry-time="20991231"', 'principals="a"', 'tunnel="1"', 'Command="x"', 'command=""',
    'tunnel="ANY"', 'permitopen="[::1]:22"', 'permitopen="*:*"', 'permitopen=":ssh"', 'permitopen="a/22"',
    'permitlisten="localhost:8080"', 'permitlisten="*"', 'permitlisten="ssh"', 'environment="_1="',
    'expiry-time="202912312359Z"', 'tunnel="1",tunnel="2"', 'permitopen="a:065535"', 'from="10.0.0.0/8"',
]  # fmt: skip
BAD = [
    "no-such-option", "no-restrict", 'form="x"', "command", "command=x", 'pty="x"', 'command="x', "", "=",
    'command="x"y', 'command ="x"', '"x"', "no-cert-authority", "restrict=", "pty pty", 'command="\\"',
    'tunnel="x"', 'tunnel="1:2"', 'tunnel=""', 'permitopen="x"', 'permitopen="a:0"', 'permitopen="a:65536"',
    'permitopen="[::1:22"', 'permitopen="[::1]x:22"', 'permitopen="a:1:2"', 'permitopen="a:no-such-service"',
    'permitlisten="x"', 'permitlisten=""', 'permitopen="a:"', 'environment="A"', 'environment="A-B=c"',
    'expiry-time="garbage"', 'expiry-time="20301399"', 'expiry-time=""',
]  # fmt: skip


BAD_VALUES = [
    'tunnel="x"',
    'permitopen="a:0"',
    'environment="A"',
    'expiry-time="20301399"',
    'permitlisten=""',
]


def flaw(options: str) -> str | None:
    """The first thing that sshd does not take."""
    return key_options.parse_options(options).flaw


def authority(options: str) -> bool:
    """Whether a key behind these only signs certificates."""
    return Line(PublicKey("ssh-ed25519", b""), options).is_authority


@pytest.mark.slow
@pytest.mark.sshd
@settings(max_examples=3 * settings().max_examples // 5, suppress_health_check=[HealthCheck.too_slow])
@given(options=st.lists(st.sampled_from([*GOOD, *GOOD, *BAD]), min_size=1, max_size=4).map(",".join))
def test_unknown_options_are_those_that_sshd_refuses(
    options: str, sshd: Any, key_files: dict[str, Path]
) -> None:
    """The line is ignored by sshd if, and only if, something in its options is told to be unknown."""
    line = key_files["rsa"].with_suffix(".pub").read_text()
    file = sshd.directory / "authorized_keys"
    file.write_text(f"{options} {line}")
    _, log = sshd.login(key_files["rsa"], patterns=file)
    if "matching key found" in log or "bad key options" in log:
        assert ("bad key options" in log) == (flaw(options) is not None), log


def knows_services() -> bool:
    """Whether this machine has a port for the name ssh; to sshd the name is a mistake where it has none."""
    try:
        return socket.getservbyname("ssh") == 22
    except OSError:
        return False


@pytest.mark.parametrize("option", GOOD)
def test_what_sshd_knows_is_known(option: str) -> None:
    """Alone, and among others."""
    if "ssh" in option and not knows_services():
        pytest.skip("needs the names of services in /etc/services (netbase)")
    assert flaw(option) is None
    assert flaw(f"restrict,{option},pty") is None


@pytest.mark.parametrize("option", [option for option in BAD if option])
def test_what_is_unknown_is_named(option: str) -> None:
    """The first thing that is not understood, in words that can be printed."""
    unknown = flaw(f"restrict,{option}")
    assert unknown
    assert unknown.isprintable()


@pytest.mark.sshd
@pytest.mark.parametrize("option", [option for option in (*GOOD, *BAD) if option])
@pytest.mark.sample(32)
def test_a_real_sshd_agrees_about_each(option: str, sshd: Any, key_files: dict[str, Path]) -> None:
    """One after the other: whether it takes the line."""
    file = sshd.directory / "authorized_keys"
    file.write_text(f"{option} {key_files['rsa'].with_suffix('.pub').read_text()}")
    _, log = sshd.login(key_files["rsa"], patterns=file)
    is_taken = "matching key found" in log and "bad key options" not in log
    assert is_taken == (flaw(option) is None), log


@pytest.mark.parametrize("option", ['principals="a"', "command", 'form="x"', "nonsense"])
def test_what_lets_nobody_in(option: str) -> None:
    """Not only what sshd does not know: a plain key with principals= is refused too."""
    assert key_options.useless(f"pty,{option}") == option
    for other in ("", 'from="10.0.0.0/8"', "restrict", 'command="x"'):
        assert key_options.useless(other) is None


@given(st.binary(max_size=60))
def test_any_bytes_can_be_looked_at(options: bytes) -> None:
    """Whatever stands before a key, the answer is short, or none."""
    text = options.decode("utf-8", "surrogateescape")
    unknown = key_options.useless(text)
    assert unknown is None or 0 < len(unknown) <= 160
    assert isinstance(authority(text), bool)


@pytest.mark.parametrize(
    "options, is_one",
    [
        ("", False),
        ("cert-authority", True),
        ("Cert-Authority", True),
        (",pty,,cert-authority", True),
        ('principals="a,b",cert-authority', True),
        ("no-such,cert-authority", True),
        ('command="cert-authority"', False),
        ('command="a,cert-authority,b"', False),
        ("no-cert-authority", False),
        ("cert-authority-x", False),
    ],
)
def test_authorities_are_told_from_keys(options: str, is_one: bool) -> None:
    """The word counts where it is an option, not inside another one's value."""
    assert authority(options) == is_one


@pytest.mark.slow
@pytest.mark.parametrize("last", ["cert-authority", "no-such"])
def test_a_million_options_take_their_time_once(last: str) -> None:
    """Not a million times: a user could put them before the launch key, to hold up the keys of all others."""
    options = "pty," * 1_000_000 + last
    assert authority(options) == (last == "cert-authority")
    assert flaw(options) == (None if last == "cert-authority" else "no-such")


def test_a_boot_judges_the_values_too() -> None:
    """A line that sshd passes over lets nobody in, and is not told as one that does."""
    for option in BAD_VALUES:
        assert key_options.useless(option) == flaw(option) == option


def test_what_the_options_mean() -> None:
    """Each meaning that a login depends on."""
    found = key_options.parse_options(
        'restrict,command="say \\"hi\\"",from="a,!b",expiry-time="20300101Z",cert-authority'
    )
    assert (found.command, found.sources, found.has_terminal) == ('say "hi"', "a,!b", False)
    assert found.expires == 1893456000
    assert found.is_authority
    assert key_options.parse_options("") == key_options.KeyOptions()
    assert key_options.parse_options("restrict,pty").has_terminal
    assert key_options.parse_options('principals="x"').principals == "x"


def test_times_without_a_zone_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sshd(8) says; the earliest of several counts."""
    monkeypatch.setenv("TZ", "XXX-02")
    time.tzset()
    try:
        assert key_options.parse_options('expiry-time="203001010200"').expires == 1893456000
        both = key_options.parse_options('expiry-time="20310101",expiry-time="20300101Z"')
        assert both.expires == 1893456000
    finally:
        monkeypatch.undo()
        time.tzset()


TAKEN = [
    "restrict",
    "no-pty,no-X11-forwarding",
    "NO-PTY",
    "restrict,pty",
    'command="/bin/true"',
    'command="say \\"hello, world\\""',
    'environment="A=b",environment="C=d e"',
    'from="*"',
    'expiry-time="20990101"',
    'expiry-time="209901010000"',
    'expiry-time="20990101000000"',
    'permitopen="a:1",permitopen="b:2"',
    "user-rc,agent-forwarding,port-forwarding",
    "pty,",
    ",pty",
    "pty,,user-rc",
]
REFUSED = [
    "nonsense",
    "no-restrict",
    "no-command",
    "ptyx",
    "command",
    "command=/bin/true",
    'command="a",command="b"',
    'from="*",from="*"',
    'command="open',
    'environment="no-value"',
    'expiry-time="tomorrow"',
    'expiry-time="2099"',
    'expiry-time="20991399"',
    'expiry-time="20200101"',
    'from="10.0.0.0/8"',
    'from="10.0.0.1/8,*"',
    "cert-authority",
    'principals="alice"',
    "pty=yes",
    'restrict"',
]


@pytest.mark.root
@pytest.mark.sshd
@pytest.mark.slow
def test_a_real_sshd_takes_and_refuses_the_same(tmp_path: Path) -> None:
    """Each line is put before a real sshd, which lets the key in or does not; the doctor's reading agrees."""
    with Lab(tmp_path / "lab") as lab:
        assert lab.start_sshd()
        wrong = {}
        for text in (*TAKEN, *REFUSED):
            lab.authorize(f"{text} {lab.key}\n")
            wrong[text] = (lab.accepts(), "key-line" not in _blocking(lab))
        assert {text: said for text, said in wrong.items() if said[0] != said[1]} == {}
        assert [text for text, said in wrong.items() if said[0]] == TAKEN


def _blocking(lab: Lab) -> list[str]:
    return [finding["check"] for finding in lab.doctor("--no-probe").with_status("obstacle")]
