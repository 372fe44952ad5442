"""Diffs for people: what they say makes one file of the other."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from firstkey import display

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "# x\n"]), max_size=14)
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")


def applied(diff: str, before: list[str]) -> list[str]:
    """What patch(1) would make of the file; every line of the diff must fit."""
    result: list[str] = []
    place = 0
    for line in diff.splitlines(keepends=True)[2:]:
        hunk = HUNK.fullmatch(line)
        if hunk:
            # Without lines, it is the line before that is numbered.
            start = int(hunk[1]) - (hunk[2] != "0")
            result += before[place:start]
            place = start
            assert len(result) == int(hunk[3]) - (hunk[4] != "0")
        elif line.startswith("+"):
            result.append(line[1:])
        else:
            assert line[1:] == before[place]
            result += [before[place]] * line.startswith(" ")
            place += 1
    return result + before[place:]


@given(LINES, LINES, LINES, LINES)
def test_a_diff_makes_one_file_of_the_other(
    head: list[str], old: list[str], new: list[str], tail: list[str]
) -> None:
    """Wherever they differ, and however many lines are the same before and behind."""
    before, after = [*head, *old, *tail], [*head, *new, *tail]
    diff = display.diff("/f", "".join(before).encode(), "".join(after).encode())
    assert applied(diff, before) == after
    assert bool(diff) == (before != after)


def test_a_change_is_shown_with_what_stands_around_it() -> None:
    """Three lines before and behind, as people know it."""
    before = b"".join(b"%d\n" % number for number in range(100))
    assert display.diff("/f", before, before.replace(b"\n50\n", b"\nnew\n")) == (
        "--- /f\n+++ /f\n@@ -48,7 +48,7 @@\n 47\n 48\n 49\n-50\n+new\n 51\n 52\n 53\n"
    )
    assert display.diff("/f", None, b"one\n") == "--- /dev/null\n+++ /f\n@@ -0,0 +1 @@\n+one\n"
