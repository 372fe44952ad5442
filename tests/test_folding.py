"""Lines for a terminal: none too long, nothing lost, and commands whole."""

from __future__ import annotations

import fcntl
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
from firstkey.folding import REMEDY, folded, width_of
from firstkey.system.journal import TerminalSink

WIDTH = 80
TEXTS = st.text(alphabet="ab -\n+", max_size=400)


@given(TEXTS, st.integers(min_value=40, max_value=120))
def test_words_stay_and_lines_are_short(text: str, width: int) -> None:
    """Only blanks become line breaks; what is too long has no blank to break at, or is read as it is."""
    result = folded(text, width)
    assert result.split() == text.split()
    for line in result.split("\n"):
        alone = line.split()
        assert len(line) <= width or len(alone) == 1 or line.lstrip().startswith(("+", "-"))


def test_a_pipe_gets_lines_as_they_are() -> None:
    """What reads it wants one line for one thing."""
    line = "word " * 100
    assert folded(line, 0) == line


@pytest.mark.parametrize("reason", reasons.ALL.values(), ids=lambda reason: reason.code)
def test_every_remedy_stands_alone_and_whole(reason: reasons.Reason) -> None:
    """It is there to be copied, whatever the width."""
    entry = events.IMDS_FAILED(detail="x " * 60, reason=reason.code)
    *said, remedy = folded(f"firstkey: {entry.message}", WIDTH).split("\n")
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
        TerminalSink(theirs).write(entry)
        shown = os.read(ours, 4096).decode().replace("\r\n", "\n").rstrip("\n").split("\n")
    finally:
        os.close(ours)
        os.close(theirs)
    assert all(len(line) <= 60 or line.startswith(f"  {REMEDY}") for line in shown)
    assert " ".join(" ".join(shown).split()) == re.sub(r"\s+", " ", f"firstkey: {entry.message}")
    with (tmp_path / "file").open("w") as file:
        assert width_of(file.fileno()) == 0
