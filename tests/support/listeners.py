"""Which TCP ports of this machine are listened on, by what the kernel says.

Nothing is connected: a server's log stays as it is, and a connection to a port of the ephemeral range on
which nobody listens yet cannot meet itself, which TCP allows.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from processes import wait_for

_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h


def listens(port: int, *, process: int | str = "self") -> bool:
    """Whether somebody listens on the port, in the network that the process sees."""
    return any(port in _listening(Path(f"/proc/{process}/net/{name}")) for name in ("tcp", "tcp6"))


def wait_for_listener(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server that was just started listens on the port; fail if it ends instead."""
    wait_for(lambda: server.poll() is not None or listens(port), f"a listener on port {port}")
    assert server.poll() is None, f"{server.args!r} ended with {server.returncode} and listened to nobody"


def _listening(table: Path) -> set[int]:
    if not table.exists():
        return set()  # a kernel without IPv6
    rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    return {int(address.rsplit(":", 1)[1], 16) for _, address, _, state, *_ in rows if state == _LISTEN}
