"""What a change would do to a file, for people."""

from __future__ import annotations

CONTEXT = 3
"""Lines that are shown before and behind a change."""


def unified(path: str, before: bytes | None, after: bytes) -> str:
    """A unified diff of a file (None: there is none), with nothing in it that a terminal would act on.

    Only what lies around the change is taken apart: a user's file may have a million lines besides.
    """
    import difflib

    source = "/dev/null" if before is None else path
    old = before or b""
    head = _same_head(old, after)
    tail = _same_tail(old[head:], after[head:])
    was, is_now = (_lines(content[head : len(content) - tail]) for content in (old, after))
    diff = difflib.unified_diff(was, is_now, source, path, n=CONTEXT)
    offset = old.count(b"\n", 0, head)
    return "".join(_placed(line, offset) if line.startswith("@@ ") and offset else line for line in diff)


def _same_head(one: bytes, other: bytes) -> int:
    """Bytes of whole lines that are the same at the start, but for those that are shown before a change."""
    place = _common(one, other)
    for _ in range(CONTEXT + 1):
        place = max(one.rfind(b"\n", 0, place), 0)
    return place + 1 if place else 0


def _same_tail(one: bytes, other: bytes) -> int:
    """The same at the end."""
    place = len(one) - _common(one[::-1], other[::-1])
    for _ in range(CONTEXT + 1):
        place = one.find(b"\n", place) + 1 or len(one)
    return len(one) - place


def _common(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the start of both: found by halves, since comparing is quick."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _placed(head: str, offset: int) -> str:
    """The head of a hunk, `@@ -1,3 +1,4 @@`, with its line numbers moved."""
    import re

    return re.sub(r"(?<=[-+])\d+", lambda number: str(int(number[0]) + offset), head)


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [
        f"{line.encode('unicode_escape').decode() if not line.isprintable() else line}\n" for line in lines
    ]
