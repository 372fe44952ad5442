"""Whether the files of accounts are sound, and locking a password so that it can be unlocked again. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from firstkey.image_reasons import ACCOUNTS_BROKEN
from firstkey.reasons import FirstkeyError
from firstkey.system.shadow import PASSWD

SHADOW, GROUP, GSHADOW = "/etc/shadow", "/etc/group", "/etc/gshadow"
GROUPS = (GROUP, GSHADOW)
FIELDS = {PASSWD: 7, SHADOW: 9, GROUP: 4, GSHADOW: 4}
"""How many fields a line has."""

LOCK = "!"
"""What passwd -l puts before a password. sshd without PAM takes it for a locked account (sshd(8)) ..."""
NO_LOGIN = "*"
"""... and this one not, though no password matches it either."""
_PASSWORD = re.compile(rb"^([^:\n]*:[!*]*)[^!*:\n][^:\n]+", re.MULTILINE)


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
    line = b"\n" + name.encode("utf-8", "surrogateescape") + b":"
    before, found, after = (b"\n" + content).partition(line)
    if not found:
        raise FirstkeyError(f"{name} has no line any more", reason=ACCOUNTS_BROKEN)
    return (before + found + mark.encode() + after)[1:]


def masked(content: bytes) -> bytes:
    """The file with every password replaced by what kind it is, for people to look at."""
    return _PASSWORD.sub(rb"\1(password)", content)
