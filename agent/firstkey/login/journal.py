"""What sshd logged: its refusals in this boot that are about this user, or about files of this user's."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.reasons import FirstkeyError
from firstkey.system import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.login.context import Context

ENTRIES = 2000
NAMES = ("sshd", "sshd-session", "sshd-auth")
"""Under which sshd logs; from OpenSSH 9.8 on, its parts have names of their own."""


class Logged(NamedTuple):
    """One entry: when, in seconds since the epoch, and sshd's own words."""

    at: float
    words: str


def refusals(context: Context, paths: Sequence[str]) -> list[Logged]:
    """The refusals that concern the context, the latest first. Empty where there is no journal to read."""
    program = command.find("journalctl")
    if program is None:
        return []
    names = [word for name in NAMES for word in ("-t", name)]
    argv = [program, "-q", "-b", "-r", "-n", str(ENTRIES), "-o", "json", "--no-pager", *names]
    try:
        lines = command.run(argv).stdout.split(b"\n")
    except FirstkeyError:
        return []
    expression = _about(context, paths)
    return [entry for entry in _entries(lines) if expression.search(entry.words)]


def _entries(lines: Sequence[bytes]) -> Iterator[Logged]:
    for line in filter(None, lines):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            fields = json.loads(line)
            yield Logged(int(fields["__REALTIME_TIMESTAMP"]) / 1e6, str(fields["MESSAGE"]))


def _about(context: Context, paths: Sequence[str]) -> re.Pattern[str]:
    """Sshd's sentences of refusal (auth.c, auth2-pubkeyfile.c, auth-pam.c), with this user or these files."""
    name = re.escape(context.name)
    places = "|".join(re.escape(place) for place in sorted({*paths, *_above(paths)}, key=len, reverse=True))
    sentences = [
        rf"User {name} .{{0,300}}not allowed because",
        rf"User '?{name}'? .{{0,300}}is not a regular file",
        rf"Could not open user '{name}' authorized keys",
        rf"Authentication tried for {name} with correct key but not from a permitted host",
        rf"Access denied for user {name} by PAM account configuration",
        rf"account {name} has expired",
        rf"maximum authentication attempts exceeded for {name} ",
    ]
    if places:
        sentences.append(
            rf"Authentication refused: bad ownership or modes for (?:file|directory) (?:{places})$"
        )
    if context.account.uid == 0:
        sentences.append("ROOT LOGIN REFUSED")
    return re.compile("|".join(sentences))


def _above(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        parts = path.split("/")
        yield from ("/".join(parts[:depth]) or "/" for depth in range(1, len(parts)))
