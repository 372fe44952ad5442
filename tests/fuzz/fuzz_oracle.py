"""What every target is held to: words that can be shown, and no exception but firstkey's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from firstkey.reasons import FirstkeyError

SEPARATOR = b"\n%%\n"
"""Between the parts of an input that stands for several files."""

Found = TypeVar("Found")


class Target(NamedTuple):
    """What is fuzzed: `check` raises where a promise about its input is broken.

    `words` are what inputs of this kind are made of: the fuzzer puts them together.
    """

    check: Callable[[bytes], None]
    words: tuple[bytes, ...]


class Scratch(NamedTuple):
    """The files of an image as `firstkey.system.tree.Tree` has them, without a disk."""

    files: Mapping[str, bytes]
    is_running_system: bool = False

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The file's content, or None."""
        content = self.files.get(path)
        assert content is None or len(content) <= limit
        return content


def parts(data: bytes, count: int) -> list[bytes]:
    """The input as so many files; those that it lacks are empty."""
    return (data.split(SEPARATOR, count - 1) + [b""] * count)[:count]


def or_refused(work: Callable[[], Found]) -> Found | None:
    """What the work returns, or None where it is refused in words that a terminal can show."""
    try:
        return work()
    except FirstkeyError as error:
        shown(error.message)
        return None


def shown(text: str, limit: int = 4096) -> None:
    """Nothing in the text acts on a terminal, breaks a line, or floods a journal."""
    assert text.isprintable(), ascii(text)
    assert len(text) <= limit, f"{len(text)} characters: {text[:80]!a}"
