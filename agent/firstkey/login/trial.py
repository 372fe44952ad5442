"""The shell itself, tried: whether it comes as far as a command, its start-up files being as they are.

It runs with the user's own rights in a box (system/box.py): all that it sees is read-only, and it gets no
socket, so that the user's start-up files can neither change nor send anything. A start-up file that needs
a terminal, a network or a file to write may do something else there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.system import box, command, pam

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.login.context import Context

MARK = "firstkey-came-as-far-as-a-command"
SECONDS = 20.0
REFUSED, NO_BOX, NOT_STARTED = 123, 124, 125
INTERACTIVE = frozenset({"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"})
"""Shells that take commands from what is no terminal with -i."""


class Trial(NamedTuple):
    """How it ended: `words` are the last that it printed."""

    reached: bool
    status: int
    words: str


def run(
    context: Context, *, login: bool, limits: Callable[[], None] = lambda: None, chroot: str = ""
) -> Trial:
    """Start the shell as sshd does (session.c: do_child), as a login shell or for a command of the client's.

    `limits` gives a process of root's those of the user (pam.limits). Raises FirstkeyError where the shell
    does not end.
    """
    account, kernel = context.account, box.Kernel()
    groups = context.site.accounts.group_ids(account)
    shell = account.shell or "/bin/sh"
    name = shell.rpartition("/")[2]
    interactive = ["-i"] if name in INTERACTIVE else []
    argv = [f"-{name}", *interactive] if login else [name, "-c", f"echo {MARK}"]
    client = context.client.address if context.client else "192.0.2.1"
    environment = {
        "USER": account.name, "LOGNAME": account.name, "HOME": account.home, "SHELL": shell,
        "PATH": "/usr/local/bin:/usr/bin:/bin", "TERM": "dumb",
        "SSH_CLIENT": f"{client} 40000 22", "SSH_CONNECTION": f"{client} 40000 {client} 22",
    }  # fmt: skip

    def become_the_shell() -> None:
        status = NO_BOX
        try:
            kernel.shut_for_session(account.uid, account.gid, groups, limits, chroot)
            status = NOT_STARTED
            started = os.fork()  # sshd forks once more as the user, up to whose limits that is
            if not started:
                os._exit(0)
            os.waitpid(started, 0)
            os.chdir(account.home if os.access(account.home, os.X_OK) else "/")
            os.execve(shell, argv, environment)  # noqa: S606 - it is the shell that is tried
        except Exception as error:  # noqa: BLE001 - behind it there is only the end of this process
            status = REFUSED if isinstance(error, pam.SessionRefused) else status
            words = error.strerror if isinstance(error, OSError) else str(error)
            os.write(2, f"{words}\n".encode())
        os._exit(status)

    stdin = f"echo {MARK}\nexit\n".encode()
    outcome = command.run([shell], stdin=stdin, seconds=SECONDS, before=become_the_shell)
    return Trial(MARK.encode() in outcome.stdout, outcome.status, outcome.words)
