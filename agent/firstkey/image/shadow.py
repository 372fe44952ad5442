"""Whether the files of accounts are sound, and locking a password so that it can be unlocked again. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from firstkey.image_reasons import ACCOUNTS_BROKEN
from firstkey.reasons import FirstkeyError
from firstkey.system.shadow import PASSWD

SHADOW, GROUP, GSHADOW = "/etc/shadow", "/etc/group", "/etc/gshadow"
FIELDS = {PASSWD: 7, SHADOW: 9, GROUP: 4, GSHADOW: 4}
"""How many fields a line has."""

LOCK = "!"
"""What passwd -l puts before a password. sshd without PAM takes it for a locked account (sshd(8)) ..."""
NO_LOGIN = "*"
"""... and this one not, though no password matches it either."""


def broken(path: str, content: bytes) -> Iterator[tuple[int, str]]:
    """Line numbers and what is wrong, for each line that libc would pass over or misread."""
    seen: set[str] = set()
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), 1):
        fields = line.split(":")
        if not line or line.startswith(("#", "+", "-")):
            continue
        if len(fields) != FIELDS[path]:
            yield number, f"has {len(fields)} fields and not {FIELDS[path]}"
        elif not fields[0]:
            yield number, "has no name"
        elif path in (PASSWD, GROUP) and not fields[2].isdecimal():
            yield number, "has no number where the id belongs"
        elif fields[0] in seen:
            yield number, "is a second one of the same name"
        seen.add(fields[0])


def locked(content: bytes, name: str, mark: str) -> bytes:
    """The file with that account's password locked: `mark` before it, so that it can be taken away again."""
    lines = content.split(b"\n")
    wanted = name.encode("utf-8", "surrogateescape")
    for number, line in enumerate(lines):
        fields = line.split(b":")
        if fields[0] == wanted and len(fields) > 1:
            fields[1] = mark.encode() + fields[1]
            lines[number] = b":".join(fields)
            return b"\n".join(lines)
    raise FirstkeyError(f"{name} has no line any more", reason=ACCOUNTS_BROKEN)


def masked(content: bytes) -> bytes:
    """The file with every password replaced by what kind it is, for people to look at."""
    lines = []
    for line in content.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 1 and len(fields[1].lstrip(b"!*")) > 1:
            bare = fields[1].lstrip(b"!*")
            fields[1] = fields[1][: len(fields[1]) - len(bare)] + b"(password)"
        lines.append(b":".join(fields))
    return b"\n".join(lines)
