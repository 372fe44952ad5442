"""The pages that people read, taken apart: blocks of code, links, headings, and firstkey commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from installed import TOP

README = TOP / "README.md"
PAGES = [README, *sorted((TOP / "docs").glob("*.md"))]
PACKER = "${build.MountPath}"
"""Where Packer has mounted the volume."""
COMMAND = re.compile(r"(?<![\w/.=:@-])(?:\./dev run |firstkey )([a-z][a-z-]*)([^\n`]*)")
"""`firstkey COMMAND ...` or `./dev run COMMAND ...`, up to the end of the line."""


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    """By its path in the checkout."""
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """What lists call it: its page and how its first line begins."""
        return f"{self.page}: {self.text.splitlines()[0][:48].rstrip()}"


def name_of(page: Path) -> str:
    """The page's path in the checkout."""
    return str(page.relative_to(TOP))


def blocks(page: Path) -> list[Block]:
    """The page's blocks, from the top."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(name_of(page), text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found
    ]


def every_block(*languages: str) -> list[Block]:
    """Those of all pages, in these languages."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```\w+\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Where the page's links lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """What can stand behind # in a link to the page, as the usual renderers of Markdown name headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each firstkey command in a text, with its words as a shell has them, and lines continued."""
    joined = re.sub(r"\\\n\s*", "", text).replace(PACKER, "/mnt").replace("/usr/bin/firstkey", "firstkey")
    for match in COMMAND.finditer(joined):
        yield match[1], list(_words(match[2]))


def _words(rest: str) -> Iterator[str]:
    """Up to what ends a command, or what begins an explanation."""
    rest = re.split(r"\s{2,}|\s#|[|;&)<>,…]|\s2>|\. |\.$|: |\"\]", rest, maxsplit=1)[0]
    try:
        words = shlex.split(rest)
    except ValueError:  # the other quote is where the command is quoted in something else
        words = rest.replace('"', " ").replace("'", " ").split()
    yield from words
