"""docs/security.md: what it says keeps and shows a promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PAGE = (TOP / "docs/security.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 4]
PROMISES = [row for row in ROWS if not row.startswith(("| ---", "| firstkey promises", "| attack"))]


def test_there_are_promises() -> None:
    """The rows are found at all."""
    assert len(PROMISES) > 20
    assert PAGE.count("\n| ") == len(ROWS)


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row.split(" | ")[0][2:40])
def test_a_promise_is_kept_and_shown(row: str) -> None:
    """The code's files are there, and so are the tests, each in the file before its name."""
    _, kept, shown = row.strip("| ").split(" | ")
    for path in re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.py)`", kept):
        assert (TOP / "agent/firstkey" / path).exists() or (TOP / path).exists(), path
    content = ""
    for word in re.findall(r"`([^`]+)`", shown):
        if not word.endswith(".py"):
            assert f"def {word}(" in content, word
        else:
            content = (TOP / "tests" / word).read_text()
            assert "def test_" in content
    assert content, "no test is named"
