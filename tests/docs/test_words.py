"""The words of docs/style.md: none of the left column, in anything that a user reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from installed import TOP
from pages import PAGES, name_of

from firstkey import events, image_reasons, login_reasons, reasons  # noqa: F401 - the last two fill the list
from firstkey.image import rules

NOT_SAID = {
    r"mend(?:s|ed|ing)?": "repair",
    r"anew": "again, or: regenerate",
    r"whoever": "people who, users who, the program that",
    r"nobody": "no user, no program, no key",
    r"somebody": "a person, another user, an attacker",
    r"wakes? up": "an AMI is launched as a new instance",
    r"proved": "validated",
    r"leftovers?": "residue",
    r"heed(?:s|ed)?": "read, apply",
}
"""Word by word, and what to say instead."""
STYLE = "docs/style.md"


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Everything that is read, with the place where it stands."""
    return tuple(_texts())


def _texts() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        if name_of(page) != STYLE:
            yield name_of(page), page.read_text(encoding="utf-8")
    for file in ("SECURITY.md", "CONTRIBUTING.md", "systemd/firstkey.catalog", "packaging/firstkey.conf",
                 "packaging/man/firstkey.8.in", "packaging/man/firstkey.conf.5.in"):  # fmt: skip
        yield file, (TOP / file).read_text(encoding="utf-8")
    for event in events.ALL.values():
        yield f"event {event.name}", event.template
    for reason in reasons.ALL.values():
        yield f"reason {reason.code}", f"{reason.meaning} {reason.remedy}"
    for rule in rules.ALL:
        yield f"rule {rule.id}", f"{rule.title} {rule.prose}"
    for module in sorted((TOP / "agent").rglob("*.py")):
        yield str(module.relative_to(TOP)), "\n".join(sentences(module.read_text(encoding="utf-8")))


def sentences(code: str) -> Iterator[str]:
    """The texts of a module that are no docstrings: messages, help, and whatever else has a blank in it."""
    tree = ast.parse(code)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from [node.value] * (" " in node.value)


@pytest.mark.parametrize("pattern", NOT_SAID)
def test_the_word_is_not_said(pattern: str) -> None:
    """Each place where it is, and what to say instead."""
    found = [
        f"{where}: {match[0]!r} (say: {NOT_SAID[pattern]})"
        for where, text in texts()
        for match in re.finditer(rf"(?i)\b{pattern}\b", text)
    ]
    assert found == []


def test_the_page_of_style_is_short() -> None:
    """Twenty lines of words, so that it is read."""
    lines = (TOP / STYLE).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 30
    assert sum(line.startswith("| ") for line in lines) >= 10
