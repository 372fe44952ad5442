"""The options before a key: read as sshd reads them, and compared with a real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab

from firstkey.errors import FirstkeyError
from firstkey.ssh import option_meaning

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


@pytest.mark.parametrize("text", TAKEN)
def test_what_sshd_takes(text: str) -> None:
    """None of these is an error."""
    option_meaning.parse(text)


def test_what_the_options_mean() -> None:
    """Each meaning that a login depends on."""
    found = option_meaning.parse(
        'restrict,command="say \\"hi\\"",from="a,!b",expiry-time="20300101Z",cert-authority'
    )
    assert (found.command, found.sources, found.terminal) == ('say "hi"', "a,!b", False)
    assert found.expires == 1893456000
    assert found.authority
    assert option_meaning.parse("") == option_meaning.KeyOptions()
    assert option_meaning.parse("restrict,pty").terminal
    assert option_meaning.parse('principals="x"').principals


def test_times_without_a_zone_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sshd(8) says; the earliest of several counts."""
    monkeypatch.setenv("TZ", "XXX-02")
    time.tzset()
    try:
        assert option_meaning.parse('expiry-time="203001010200"').expires == 1893456000
        both = option_meaning.parse('expiry-time="20310101",expiry-time="20300101Z"')
        assert both.expires == 1893456000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [text for text in REFUSED if not text.startswith(("from", "cert", "princ")) and "20200101" not in text],
)
def test_what_makes_sshd_pass_over_the_line(text: str) -> None:
    """The reason is the published one, and the sentence names what is wrong."""
    with pytest.raises(FirstkeyError, match="sshd passes over the line") as caught:
        option_meaning.parse(text)
    assert caught.value.reason.code == "key-options-invalid"


@given(st.text(max_size=60))
def test_anything_is_an_answer(text: str) -> None:
    """Options or a refusal, never anything else: the file is a user's own."""
    try:
        option_meaning.parse(text)
    except FirstkeyError as error:
        assert error.message.isprintable() or error.message.isascii()  # noqa: PT017 - either is right


@pytest.mark.slow
def test_a_million_options_take_their_time_once() -> None:
    """The doctor, who may be root, reads them in a file that is a user's own."""
    assert not option_meaning.parse("pty," * 1_000_000 + ",,no-pty").terminal


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
