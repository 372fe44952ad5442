"""What sshd logged while it was asked: its own words for why it did not take the key."""

from __future__ import annotations

import json
from contextlib import suppress

from firstkey.reasons import FirstkeyError
from firstkey.system import command

ENTRIES = 50
NAMES = ("sshd", "sshd-session", "sshd-auth")
"""Under which sshd logs; from OpenSSH 9.8 on, its parts have names of their own."""


def since(began: float) -> list[str]:
    """What was logged from then on (seconds since the epoch), without the lines about connections.

    Older lines are about older troubles.
    """
    program = command.find("journalctl")
    if program is None:
        return []
    names = [word for name in NAMES for word in ("-t", name)]
    argv = [
        program,
        "-q",
        "-b",
        "-n",
        str(ENTRIES),
        "-o",
        "json",
        "--no-pager",
        f"--since=@{began:.6f}",
        *names,
    ]
    try:
        lines = command.run(argv).stdout.split(b"\n")
    except FirstkeyError:
        return []
    found = []
    for line in filter(None, lines):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            found.append(str(json.loads(line)["MESSAGE"]))
    return [words for words in found if not words.startswith(("Connection ", "Server listening"))]
