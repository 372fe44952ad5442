"""The form of a configuration file: bytes -> sections and assignments, each with its line.

The format is that of systemd's own files (systemd.syntax(7)): comments have lines of their own, a
backslash at the end of a line continues it, sections and keys may repeat. What cannot be read is told
and left out; the lines around it still count. Which settings exist is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from firstkey.named_tuple import NamedTuple

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t"


class Source(NamedTuple):
    """One configuration file: its path, for messages, and what is in it."""

    path: str
    text: bytes


class Origin(NamedTuple):
    """Where something was said: the file and the line, counted from 1 (0: the file as a whole)."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


class Assignment(NamedTuple):
    """One `KEY=VALUE`, blanks around both taken off."""

    origin: Origin
    key: str
    value: str


class Section(NamedTuple):
    """One `[NAME]` and what was assigned under it. A file may have several of the same name."""

    origin: Origin
    name: str
    assignments: tuple[Assignment, ...]


Warn = Callable[[Origin, str], None]


def shortened(text: str) -> str:
    """The text, cut to a length that can be read in a message."""
    return text if len(text) <= 60 else f"{text[:60]}..."


def quoted(text: str) -> str:
    """The text for a message: shortened, in quotes, anything unprintable spelled out."""
    return repr(shortened(text))


def sections(source: Source, warn: Warn) -> list[Section]:
    """The sections of one file in their order; `warn` is told of every line that cannot be read."""
    found = []
    for header, body in _parsed(list(_tagged_lines(source, warn))).items():
        assignments = [Assignment(*_untagged(source.path, key), value) for key, value in body.items()]
        found.append(Section(*_untagged(source.path, header), tuple(assignments)))
    return found


def _parsed(lines: list[str]) -> dict[str, dict[str, str]]:
    """What configparser makes of clean lines.

    It reports no line numbers and merges what repeats. So each name comes tagged with its line number,
    which tells where it stood and keeps it apart from its namesakes.
    """
    if all(line.startswith("[") for line in lines):
        # The vendor's file has every setting commented out: the usual boot need not import configparser.
        return {line[1:-1]: {} for line in lines}
    from configparser import RawConfigParser

    parser = RawConfigParser(delimiters=("=",), comment_prefixes=())
    parser.optionxform = str  # type: ignore[assignment,method-assign] # Keys keep their case, as in systemd.
    parser.read_file(lines)
    return {header: dict(parser.items(header)) for header in parser.sections()}


def _untagged(path: str, tagged: str) -> tuple[Origin, str]:
    line, _, name = tagged.partition(" ")
    return Origin(path, int(line)), name


def _tagged_lines(source: Source, warn: Warn) -> Iterator[str]:
    """The good lines, each name tagged with its line number: `[3 Keys]`, `4 Users=root`."""
    in_section = False
    for number, raw in _logical_lines(source.text.removeprefix(_BOM)):
        line, fault = _checked(raw)
        if raw.startswith(b"["):
            # Whose settings follow a broken header is not known: they must not go to the section above.
            in_section = not fault
            tagged = f"[{number} {line[1:-1].strip()}]"
        else:
            tagged = f"{number} {line}"
            fault = fault or ("" if in_section else f"{quoted(line)} is in no section that can be read")
        if fault:
            warn(Origin(source.path, number), f"{fault}; the line is ignored")
        else:
            yield tagged


def _logical_lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, continued ones joined, each with the number of its first line.

    As in systemd, comments between the parts of a continued line are left out. Unlike there, a line that
    starts with `[` is always a header: a backslash too many must not swallow it and so hand the settings
    of one user to another.
    """
    start = 0
    held: list[bytes] = []
    for number, raw in enumerate(text.split(b"\n"), start=1):
        piece = raw.rstrip(b"\r").lstrip(_BLANKS)
        if piece.startswith((b"#", b";")):
            continue
        if held and piece.startswith(b"["):
            yield start, b"".join(held).rstrip(_BLANKS)
            held = []
        start = start if held else number
        is_continued = _is_continued(piece)
        piece = piece[:-1] + b" " if is_continued else piece
        if held or piece.strip(_BLANKS):
            held.append(piece)
        if held and not is_continued:
            yield start, b"".join(held).rstrip(_BLANKS)
            held = []
    if held:
        yield start, b"".join(held).rstrip(_BLANKS)


def _is_continued(line: bytes) -> bool:
    """Whether the line ends in a backslash that is not itself escaped by another."""
    return (len(line) - len(line.rstrip(b"\\"))) % 2 == 1


def _checked(raw: bytes) -> tuple[str, str]:
    """The line as text, and what keeps it from being `[SECTION]` or `KEY=VALUE`, if anything."""
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        return "", "the line is not UTF-8"
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", line):
        return line, "the line has control characters in it"
    if line.startswith("["):
        is_header = re.fullmatch(r"\[[^\[\]]+\]", line) and line[1:-1].strip()
        return line, "" if is_header else f"{quoted(line)} is not a section's header: expected [NAME]"
    is_setting = re.match(r"[^\s=]+\s*=", line)
    return line, "" if is_setting else f"{quoted(line)} is not a setting: expected KEY=VALUE"
