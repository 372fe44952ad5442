"""What shadow(5) means for a login."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstkey.system import shadow
from firstkey.system.shadow import DAY, Shadow
from firstkey.system.tree import Tree


def read(tmp_path: Path, line: str) -> Shadow | None:
    """The entry of alice in a tree with that line."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/shadow").write_text(f"alice2:x:1:::::::\n{line}\n")
    with Tree(str(tmp_path)) as tree:
        return shadow.of(tree, "alice")


@pytest.mark.parametrize(
    "line,expected",
    [
        ("alice:!*:19000:0:90:7:30:20000:", Shadow("alice", "!*", 19000, 90, 20000, 2)),
        ("alice:*:::::::", Shadow("alice", "*", line=2)),
        ("alice:", Shadow("alice", "", line=2)),
        ("alice:*:x:0:-1:7:::", Shadow("alice", "*", line=2)),
        ("bob:*:::::::", None),
    ],
)
def test_lines(tmp_path: Path, line: str, expected: Shadow | None) -> None:
    """Empty and broken fields say nothing; short lines have empty fields."""
    assert read(tmp_path, line) == expected


def test_no_file_is_no_entry(tmp_path: Path) -> None:
    """An image may have none."""
    with Tree(str(tmp_path)) as tree:
        assert shadow.of(tree, "alice") is None


def test_locked() -> None:
    """Only a ! at the start is a lock to sshd; * is none."""
    assert Shadow("alice", "!x").is_locked
    assert not Shadow("alice", "*").is_locked


@pytest.mark.parametrize("day,over", [(99, False), (100, True), (101, True)])
def test_expired_accounts(day: int, over: bool) -> None:
    """From the day on that the field names (pam_unix(8))."""
    assert Shadow("alice", "*", expires=100).has_expired(day * DAY) is over
    assert not Shadow("alice", "*").has_expired(day * DAY)


@pytest.mark.parametrize(
    "changed,maximum,day,wanted",
    [
        (0, None, 5, True),
        (10, 90, 100, False),
        (10, 90, 101, True),
        (None, 90, 500, False),
        (10, None, 500, False),
    ],
)
def test_expired_passwords(changed: int | None, maximum: int | None, day: int, wanted: bool) -> None:
    """Day 0 means at once; otherwise it is the longest time between two changes."""
    assert Shadow("alice", "*", changed, maximum).wants_new_password(day * DAY) is wanted


@pytest.mark.parametrize("day", ["9" * 5000, "9" * 11, "-1", "1.5", "\u0661", "x", ""])
def test_a_day_that_no_calendar_has(tmp_path: Path, day: str) -> None:
    """Is none, as for an empty field; Python would refuse to make a number of some of them."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text(f"alice:*:{day}:0:{day}:7:{day}:{day}:\n", encoding="utf-8")
    with Tree(str(tmp_path)) as tree:
        assert shadow.of(tree, "alice") == Shadow("alice", "*", line=1)


@pytest.mark.parametrize(
    "passwd, tcb, expected",
    [
        ("alice:x:1:1::/:/bin/sh\n", "alice:$y$hash:19000::::::\n", "$y$hash"),
        ("alice:!:1:1::/:/bin/sh\n", None, "!"),
        ("bob:x:1:1::/:/bin/sh\n", None, None),
    ],
)
def test_where_else_a_password_is(tmp_path: Path, passwd: str, tcb: str | None, expected: str | None) -> None:
    """In a file of the user's own (tcb(5)), or in passwd(5) itself."""
    (tmp_path / "etc/tcb/alice").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(passwd)
    (tmp_path / "etc/shadow").write_text("bob:*:::::::\n")
    if tcb:
        (tmp_path / "etc/tcb/alice/shadow").write_text(tcb)
    with Tree(str(tmp_path)) as tree:
        found = shadow.of(tree, "alice")
        assert (found and found.password) == expected


def test_a_password_that_is_nowhere_is_no_lock(tmp_path: Path) -> None:
    """An x in passwd(5) says that it is elsewhere; sshd does not take it for a lock."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("alice:x:1:1::/:/bin/sh\n")
    with Tree(str(tmp_path)) as tree:
        assert shadow.of(tree, "alice") is None
