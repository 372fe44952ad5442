"""The form of a configuration file: what counts as a line, and where it stands."""

from __future__ import annotations

import time

import pytest

from firstkey.config import Origin, Source, sections


def read(text: bytes) -> tuple[list[tuple[str, int, list[tuple[str, str, int]]]], dict[int, str]]:
    """The sections as plain tuples, and the warnings by line."""
    warnings: dict[int, str] = {}

    def warn(origin: Origin, detail: str) -> None:
        assert origin.path == "/f"
        assert origin.line not in warnings, "one mistake, one warning"
        warnings[origin.line] = detail

    found = sections(Source("/f", text), warn)
    return [
        (name, at.line, [(key, value, where.line) for where, key, value in body]) for at, name, body in found
    ], warnings


def settings_of(text: bytes) -> list[tuple[str, str, int]]:
    """The assignments of a text that must be without a mistake."""
    found, warnings = read(text)
    assert not warnings
    return [assignment for _, _, assignments in found for assignment in assignments]


def test_sections_and_keys_may_repeat_and_each_keeps_its_line() -> None:
    """Nothing is merged: what repeats is the reader's to judge, and every line can be named."""
    assert read(b"[A]\nx=1\nx=2\n\n[B]\ny=3\n[A]\nx=4\n") == (
        [("A", 1, [("x", "1", 2), ("x", "2", 3)]), ("B", 5, [("y", "3", 6)]), ("A", 7, [("x", "4", 8)])],
        {},
    )


@pytest.mark.parametrize(
    "line, value",
    [
        (b"k=v", "v"),
        (b"  \tk = v\t ", "v"),
        (b"k=", ""),
        (b"k==", "="),
        (b"k=a: b=c", "a: b=c"),
        (b"k=100%(x)s %h %%", "100%(x)s %h %%"),
        (b"k=a # b ; c", "a # b ; c"),
        (b'k="a b"', '"a b"'),
        (b"k=[x]", "[x]"),
        (b"k=a\\\\", "a\\\\"),
        ("k=Grüße".encode(), "Grüße"),
        (b"k=v\r", "v"),
    ],
)
def test_a_value_is_taken_as_it_stands(line: bytes, value: str) -> None:
    """Blanks around it go, nothing else: no interpolation, no inline comment, no quotes."""
    assert settings_of(b"[A]\n" + line + b"\n") == [("k", value, 2)]


def test_keys_keep_their_case() -> None:
    """Names are as case-sensitive as systemd's, and warnings show them as they were written."""
    assert settings_of(b"[A]\nKeY=1\n") == [("KeY", "1", 2)]


@pytest.mark.parametrize(
    "text", [b"", b"\n\n", b"# c\n;d\n  # e", b"\xef\xbb\xbf", b"\\\n\\", b"#\xff\x00\n"]
)
def test_a_text_without_a_statement_says_nothing(text: bytes) -> None:
    """Empty lines and comments, whatever is in them, are neither settings nor mistakes."""
    assert read(text) == ([], {})


def test_byte_order_mark_and_carriage_returns_are_no_part_of_the_text() -> None:
    """A file that was written on Windows reads like any other."""
    assert settings_of(b"\xef\xbb\xbf[A]\r\nx=1\r\ny=2\\\r\n 3\r\n") == [("x", "1", 2), ("y", "2 3", 3)]


@pytest.mark.parametrize(
    "text, value",
    [
        (b"k=a \\\n    b\n", "a b"),
        (b"k=a\\\n# left out\n; this too\nb\n", "a b"),
        (b"k=a\\\n\n", "a"),
        (b"k=a\\", "a"),
        (b"k=a\\\\\\\nb", "a\\\\ b"),
        (b"\\\nk=a", "a"),
    ],
)
def test_a_backslash_continues_the_line(text: bytes, value: str) -> None:
    """As systemd.syntax(7) has it: the backslash becomes a blank, comments in between are left out."""
    found = settings_of(b"[A]\n" + text)
    assert [(key, " ".join(words.split())) for key, words, _ in found] == [("k", " ".join(value.split()))]


def test_a_continued_line_has_the_number_of_its_first_line() -> None:
    """And the lines behind it keep theirs."""
    assert settings_of(b"[A]\nx=1\\\n#\n2\ny=3\n") == [("x", "1 2", 2), ("y", "3", 5)]


def test_a_backslash_cannot_swallow_a_header() -> None:
    """Otherwise a slip of the hand gives one user the rights of another."""
    assert read(b"[User a]\nGroups=x \\\n[User b]\nSudo=ALL\n") == (
        [("User a", 1, [("Groups", "x", 2)]), ("User b", 3, [("Sudo", "ALL", 4)])],
        {},
    )


@pytest.mark.parametrize(
    "line",
    [
        b"k",
        b"k : v",
        b"= v",
        b"k k=v",
        b"\xff=1",
        b"k=\xe4",
        b"k=a\x00b",
        b"k=\x1b[31m",
        b"k=a\rb",
        "k=\u2028".encode(),
    ],
)
def test_a_broken_line_is_told_and_the_lines_around_it_count(line: bytes) -> None:
    """One warning with its number; nothing else is lost."""
    found, warnings = read(b"[A]\nx=1\n" + line + b"\ny=2\n")
    assert found == [("A", 1, [("x", "1", 2), ("y", "2", 4)])]
    assert list(warnings) == [3]
    assert warnings[3].endswith("; the line is ignored")


@pytest.mark.parametrize(
    "header", [b"[B", b"[B]]", b"[B] # c", b"[]", b"[ ]", b"[\xff]", b"[B\x00]", b"[[B]"]
)
def test_behind_a_broken_header_nothing_counts_until_the_next_one(header: bytes) -> None:
    """Its lines must not go to the section above, which may be another user's."""
    found, warnings = read(b"[A]\nx=1\n" + header + b"\ny=2\n[C]\nz=3\n")
    assert found == [("A", 1, [("x", "1", 2)]), ("C", 5, [("z", "3", 6)])]
    assert sorted(warnings) == [3, 4]


def test_a_line_before_the_first_header_is_told() -> None:
    """It belongs nowhere, and does not keep the rest from counting."""
    found, warnings = read(b"x=1\n[A]\ny=2\n")
    assert found == [("A", 2, [("y", "2", 3)])]
    assert list(warnings) == [1]


def test_messages_spell_out_what_a_terminal_would_act_on() -> None:
    """Text from a file cannot write to the terminal or flood the journal through a warning."""
    _, warnings = read("[A]\n\u202ereversed\n".encode() + b"x" * 5000)
    assert "\\u202e" in warnings[2]
    assert len(warnings[3]) < 200


@pytest.mark.parametrize("unit", [b"[", b"\\\n", b"x ", b" ", b"[ ", b"=", b"x=\n", b"x \\\n", b"]"])
@pytest.mark.sample(3)
def test_no_text_takes_long(unit: bytes) -> None:
    """No pattern runs away on a file of the largest size that is read."""
    text = (unit * 65536)[:65536]
    start = time.monotonic()
    for around in (text, b"[A]\n" + text + b"!\n", b"[A]\nx" + text + b"=1", b"[A]\nx=1" + text):
        sections(Source("/f", around), lambda _origin, _detail: None)
    assert time.monotonic() - start < 10
