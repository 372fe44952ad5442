"""What running programs use: their files, directories and sockets, as /proc names them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress

from firstkey.system.mounts import is_at_or_below

PROC = "/proc"


def paths(root: str) -> frozenset[str]:
    """All that is used on the running system, `/`; nothing in an image.

    To look at other programs takes more rights than a boxed process has.
    """
    if root != "/":
        return frozenset()
    found: set[str] = set()
    with suppress(OSError):
        found.update(_last_words("net/unix", 7))  # the names that sockets are bound to (proc(5))
    for pid in set(filter(str.isdigit, os.listdir(PROC))) - {str(os.getpid())}:
        with suppress(OSError):  # it has ended
            found.update(_links(pid), _last_words(f"{pid}/maps", 5))
    return frozenset(path for path in found if path.startswith("/"))


def is_used(path: str, used: Collection[str]) -> bool:
    """Whether that, or something in it, is used."""
    return any(is_at_or_below(each, path) for each in used)


def _links(pid: str) -> Iterator[str]:
    """What it has open, where it works, and where its root is."""
    descriptors = [f"fd/{number}" for number in os.listdir(f"{PROC}/{pid}/fd")]
    for name in ("cwd", "root", "exe", *descriptors):
        with suppress(OSError):
            yield os.readlink(f"{PROC}/{pid}/{name}")


def _last_words(name: str, behind: int) -> Iterator[str]:
    """What stands in each line behind so many words; it may have blanks in it."""
    with open(f"{PROC}/{name}", encoding="utf-8", errors="surrogateescape") as source:
        for line in source:
            yield from line.rstrip("\n").split(maxsplit=behind)[behind:]
