"""The last word: the running sshd is asked itself whether it would take the key.

A client may ask that with the public key alone, before it signs anything (RFC 4252, 7): ssh is started with
nothing else, so no login can come of it. sshd logs one connection from this machine, and nothing changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.system import command

if TYPE_CHECKING:
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.sockets import Listener

SECONDS = 20.0
OPTIONS = (
    "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "PreferredAuthentications=publickey",
    "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
    "ControlPath=none", "ProxyCommand=none", "ConnectTimeout=10", "HostKeyAlgorithms=+ssh-rsa",
)  # fmt: skip

ACCEPTED = "accepted"
REFUSED = "refused"
ENDED = "ended"
_ACCEPTS = re.compile(r"Server accepts key")
_UNCONNECTED = re.compile(r"ssh: connect to host ")
_DENIED = re.compile(r"Permission denied|Authentications that can continue|Too many authentication failures")


class Reply(NamedTuple):
    """What the running sshd did: took the key, refused it, or ended the connection; and ssh's words."""

    verdict: str
    words: str


def ask(listener: Listener, user: str, key: PublicKey) -> Reply | None:
    """Ask for one user and key; None where there is no ssh to ask with. Raises FirstkeyError(timed-out)."""
    program = command.find("ssh")
    if program is None:
        return None
    argv = [program, "-v", "-F", "none", "-i", "/dev/stdin", "-p", str(listener.port), "-l", user]
    for option in OPTIONS:
        argv += ["-o", option]
    said = ""
    for way in listener.ways:
        source = ["-b", way.source] if way.source else []
        outcome = command.run(
            [*argv, *source, way.to, "true"], stdin=f"{key.line}\n".encode(), seconds=SECONDS
        )
        said = outcome.stderr.decode("utf-8", "replace")
        if not _UNCONNECTED.search(said):
            break
    if _ACCEPTS.search(said):
        return Reply(ACCEPTED, "it takes the key")
    return Reply(REFUSED if _DENIED.search(said) else ENDED, outcome.words)
