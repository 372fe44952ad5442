"""What a change would do to a file, for people."""

from __future__ import annotations


def unified(path: str, before: bytes | None, after: bytes) -> str:
    """A unified diff of a file (None: there is none), with nothing in it that a terminal would act on."""
    import difflib

    source = "/dev/null" if before is None else path
    return "".join(difflib.unified_diff(_lines(before or b""), _lines(after), source, path))


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [
        f"{line.encode('unicode_escape').decode() if not line.isprintable() else line}\n" for line in lines
    ]
