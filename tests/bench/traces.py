"""What programs read, from what strace wrote about them (`strace -f -y`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

NOT_ON_DISK = ("/proc/", "/sys/", "/dev/", "/run/")
"""File systems that cost a cold disk nothing."""

_OPENED = re.compile(r"\b(?:open|openat|openat2)\(.* = \d+<(/[^>]*)>")
_READ = re.compile(r"\b(?:read|pread64|readv|preadv)\(\d+<(/[^>]*)>.* = (\d+)$")
_MAPPED = re.compile(r"\bmmap\([^,]*, (\d+), [^<]*<(/[^>]*)>, (0x[0-9a-f]+|0)\)")
_STARTED = re.compile(r'\bexecve\("(/[^"]*)".* = 0$')
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")


class Footprint(NamedTuple):
    """What the processes did with files on the disk."""

    opens: int
    """How often a file was opened."""
    files: int
    """How many different ones."""
    read_bytes: int
    """By read(2) and its kin."""
    mapped_bytes: int
    """Of files that were mapped (libraries): an upper limit of what is read of them."""
    programs: int
    """How many programs were started."""


def whole_lines(lines: Iterable[str]) -> Iterable[str]:
    """The calls, each on one line: strace tears those apart during which another process did something."""
    torn: dict[str, str] = {}
    for line in lines:
        begun, ended = _UNFINISHED.match(line), _RESUMED.match(line)
        if begun:
            torn[begun[1]] = begun[2]
        elif ended:
            yield f"{ended[1]} {torn.pop(ended[1], '')}{ended[2]}"
        else:
            yield line


def read_traces(files: Sequence[Path]) -> Footprint:
    """All of an agent's programs together."""
    opened: list[str] = []
    mapped: dict[str, int] = {}
    read = programs = 0
    for file in files:
        for line in whole_lines(file.read_text(errors="replace").splitlines()):
            if found := _OPENED.search(line):
                opened += _on_disk(found[1])
            elif found := _READ.search(line):
                read += int(found[2]) * len(_on_disk(found[1]))
            elif found := _MAPPED.search(line):
                end = int(found[1]) + int(found[3], 16)
                mapped.update({path: max(end, mapped.get(path, 0)) for path in _on_disk(found[2])})
            elif _STARTED.search(line):
                programs += 1
    return Footprint(len(opened), len(set(opened)), read, sum(mapped.values()), programs)


def _on_disk(path: str) -> list[str]:
    return [] if f"{path}/".startswith(NOT_ON_DISK) or "(deleted)" in path else [path]
