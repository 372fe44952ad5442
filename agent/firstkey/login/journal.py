"""What sshd logged while it was asked: its own words for why it did not take the key."""

from __future__ import annotations

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
    argv = [program, "-q", "-b", "-n", str(ENTRIES), "-o", "cat", "--no-pager", f"--since=@{began:.6f}"]
    try:
        lines = command.run([*argv, *names]).stdout.decode("utf-8", "replace").splitlines()
    except FirstkeyError:
        return []
    return [words for words in lines if not words.startswith(("Connection ", "Server listening"))]
