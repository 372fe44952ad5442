"""The last check: the running sshd itself is asked whether it would take the key.

A client may ask that with the public key alone, before it signs anything (RFC 4252, 7): ssh is started with
nothing else, so no login can come of it. sshd logs one connection from this machine, and nothing changes. The
question comes from an address of its own, so that sshd's penalties for clients without a login
(sshd_config(5): PerSourcePenalties) meet no other client, and no later question.
"""

from __future__ import annotations

import os
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
    "ControlPath=none", "ProxyCommand=none", "ConnectTimeout=10",
)  # fmt: skip

ACCEPTED = "accepted"
REFUSED = "refused"
ENDED = "ended"
UNLIKE = "unlike"
_ACCEPTS = re.compile(r"Server accepts key")
_DENIED = re.compile(r"Permission denied|Authentications that can continue|Too many authentication failures")
_UNLIKE = re.compile(r"no matching ")


class Reply(NamedTuple):
    """What the running sshd did: took the key, refused it, or ended the connection; and ssh's words.

    UNLIKE: this machine's ssh and sshd have nothing in common of what `words` names.
    """

    verdict: str
    words: str


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
    outcome = command.run(
        [*argv, listener.reachable, "true"], stdin=f"{key.line}\n".encode(), seconds=SECONDS
    )
    said = outcome.stderr.decode("utf-8", "replace")
    if _ACCEPTS.search(said):
        return Reply(ACCEPTED, "it takes the key")
    unlike = next((line for line in said.splitlines() if _UNLIKE.search(line)), None)
    if unlike:
        return Reply(UNLIKE, unlike)
    return Reply(REFUSED if _DENIED.search(said) else ENDED, outcome.words)
