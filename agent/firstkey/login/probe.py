"""How the running sshd is asked: whether it is there, and, as the last check, whether it would take the key.

A client may ask that with the public key alone, before it signs anything (RFC 4252, 7): ssh is started with
nothing else, so no login can come of it. sshd logs one connection from this machine, and nothing changes. The
question comes from an address of its own, so that sshd's penalties for clients without a login
(sshd_config(5): PerSourcePenalties) meet no other client, and no later question.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from firstkey import NamedTuple
from firstkey.reasons import FirstkeyError
from firstkey.ssh.public_key import PublicKey
from firstkey.system import command
from firstkey.system.sockets import Listener

T = TypeVar("T")

SECONDS = 20.0
RELOAD_SECONDS = 1.0
"""How long an sshd that is not there is asked for. It closes its port while it reads its configuration again
(sshd.c: sighup_restart): for some 50 ms, and longer on a busy machine.
"""
LISTENER = "^(sshd: )?/[^ ]*/sshd( |$)"
"""The command line of an sshd that serves no login (sshd.c: server_accept_loop, sighup_restart)."""
OPTIONS = (
    "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "PreferredAuthentications=publickey",
    "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
    "ControlPath=none", "ProxyCommand=none", "ConnectTimeout=10",
)  # fmt: skip

ENTRIES = 50
LOGGERS = ("sshd", "sshd-session", "sshd-auth")
"""Under which sshd logs; from OpenSSH 9.8 on, its parts have names of their own."""

ACCEPTED, REFUSED, UNLIKE = "accepted", "refused", "unlike"


class Reply(NamedTuple):
    """What the running sshd did: took the key, or did not; and ssh's words.

    UNLIKE: this machine's ssh and sshd have nothing in common of what `words` names.
    """

    verdict: str
    words: str


def through_reload(ask: Callable[[], T], is_answer: Callable[[T], object]) -> T:
    """What `ask` says, asked again while that is no answer, for as long as a reload of sshd may take."""
    deadline, pause = time.monotonic() + RELOAD_SECONDS, 0.05
    while True:
        said = ask()
        if is_answer(said) or time.monotonic() > deadline:
            return said
        time.sleep(pause)
        pause *= 2


def is_sshd_there() -> bool:
    """Whether a process is there that listens, or did before it read its configuration again (pgrep(1))."""
    program = command.find("pgrep")
    return program is None or command.run([program, "-f", LISTENER]).status == 0


def own_address() -> str:
    """An address of this machine (127/8) that no other client is likely to have."""
    return "127." + ".".join(str(1 + byte % 254) for byte in os.urandom(3))


def ask(listener: Listener, user: str, key: PublicKey, source: str) -> Reply | None:
    """Ask for one user and key; None where there is no ssh to ask with. Raises FirstkeyError(timed-out)."""
    program = command.find("ssh")
    if program is None:
        return None
    argv = [program, "-v", "-F", "none", "-i", "/dev/stdin", "-p", str(listener.port), "-l", user]
    argv += ["-b", source] if ":" not in listener.reachable else []
    for option in OPTIONS:
        argv += ["-o", option]
    argv += [listener.reachable, "true"]
    outcome = through_reload(
        lambda: command.run(argv, stdin=f"{key.line}\n".encode(), seconds=SECONDS),
        lambda outcome: b"Remote protocol version" in outcome.stderr,
    )
    said = outcome.stderr.decode("utf-8", "replace")
    if "Server accepts key" in said:
        return Reply(ACCEPTED, "it takes the key")
    unlike = next((line for line in said.splitlines() if "no matching " in line), None)
    return Reply(UNLIKE, unlike) if unlike else Reply(REFUSED, outcome.words)


def logged_since(began: float) -> list[str]:
    """What was logged from then on (seconds since the epoch), without the lines about connections.

    Older lines are about older troubles.
    """
    program = command.find("journalctl")
    if program is None:
        return []
    names = [word for name in LOGGERS for word in ("-t", name)]
    argv = [program, "-q", "-b", "-n", str(ENTRIES), "-o", "cat", "--no-pager", f"--since=@{began:.6f}"]
    try:
        lines = command.run([*argv, *names]).stdout.decode("utf-8", "replace").splitlines()
    except FirstkeyError:
        return []
    return [words for words in lines if not words.startswith(("Connection ", "Server listening"))]
