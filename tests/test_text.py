"""Text for people: nothing in it that a terminal acts on; no line too long, nothing lost, commands whole."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey import events, reasons
from firstkey.display import folded, width_of
from firstkey.system.journal import Log
from firstkey.text import REMEDY, as_json, visible

WIDTH = 80
TEXTS = st.text(alphabet="ab -+", max_size=400)


@given(TEXTS, st.integers(min_value=40, max_value=120))
def test_words_stay_and_lines_are_short(text: str, width: int) -> None:
    """Only blanks become line breaks; what is too long has no blank to break at, or is read as it is."""
    result = folded(text, width)
    assert " ".join(result).split() == text.split()
    for line in result:
        alone = line.split()
        assert len(line) <= width or len(alone) == 1 or line.lstrip().startswith(("+", "-"))


@given(st.text(st.characters(), max_size=60))
def test_what_is_visible_is_one_line_that_nothing_acts_on(text: str) -> None:
    """Whatever text: it prints, tabs aside; what printed before is as it was, and so is what is visible."""
    shown = visible(text)
    assert shown.replace("\t", "").isprintable()
    assert visible(shown) == shown
    assert shown.encode().decode() == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    "byte, shown",
    [(b"\x80", r"\x80"), (b"\xff", r"\xff"), (b"\xc3\xa4", "ä"), (b"\n\x1b\x7f", r"\n\x1b\x7f")],
)
def test_a_byte_that_is_no_text_is_shown(byte: bytes, shown: str) -> None:
    """As the byte that it is."""
    assert visible(os.fsdecode(byte)) == shown


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_json_gives_back_every_value(value: object) -> None:
    """In ASCII and without a control character but line feeds, whatever the names in it."""
    text = as_json(value)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


@given(st.text(st.sampled_from('a\\"u\n\U0001f600\ud83d\udc80\udcffd8'), max_size=12))
def test_json_has_no_half_characters(text: str) -> None:
    """Strict readers refuse lone surrogates: such a text is shown, any other comes back."""
    found = json.loads(as_json({"x": text}))["x"]
    assert found.encode().decode() == found
    assert found == text or any("\ud800" <= char <= "\udfff" for char in text)


def test_a_pipe_gets_lines_as_they_are() -> None:
    """What reads it wants one line for one thing."""
    line = "word " * 100
    assert folded(line, 0) == [line]


@pytest.mark.parametrize("reason", reasons.ALL.values(), ids=lambda reason: reason.code)
def test_every_remedy_stands_alone_and_whole(reason: reasons.Reason) -> None:
    """It is there to be copied, whatever the width."""
    entry = events.IMDS_FAILED(detail="x " * 60, reason=reason.code)
    *said, remedy = folded(f"firstkey: {entry.message}", WIDTH)
    assert remedy == f"  {REMEDY}{reason.remedy}"
    assert max(map(len, said)) <= WIDTH


def resize(terminal: int, columns: int) -> None:
    """As a window does; termios itself can since Python 3.11."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def test_a_terminal_is_asked_for_its_width(tmp_path: Path) -> None:
    """What is said at a terminal fits into it; a file has no width."""
    ours, theirs = pty.openpty()
    try:
        resize(theirs, 60)
        assert width_of(theirs) == 60
        entry = events.IMDS_FAILED(detail="no answer " * 9, reason="imds-disabled")
        Log(verbosity=1, socket_path="/nonexistent", stderr=theirs).write(entry)
        shown = os.read(ours, 4096).decode().replace("\r\n", "\n").rstrip("\n").split("\n")
    finally:
        os.close(ours)
        os.close(theirs)
    assert all(len(line) <= 60 or line.startswith(f"  {REMEDY}") for line in shown)
    assert " ".join(" ".join(shown).split()) == re.sub(r"\s+", " ", f"firstkey: {entry.message}")
    with (tmp_path / "file").open("w") as file:
        assert width_of(file.fileno()) == 0
