"""Telling the service manager how far we are (sd_notify(3)); nothing happens where nobody asked or listens.

`Type=notify` fails the unit, and holds sshd back until then, when READY=1 does not come: so this needs no
systemd-python, which may be absent.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress

from firstkey.text import visible

SEND_LIMIT_SEC = 2.0


def ready(status: str = "") -> None:
    """Let sshd start (READY=1)."""
    _tell("READY=1", *_status(status))


def status(text: str) -> None:
    """What `systemctl status` shows (STATUS=), on one line."""
    _tell(*_status(text))


def stopping(status: str = "") -> None:
    """We are on the way out (STOPPING=1)."""
    _tell("STOPPING=1", *_status(status))


def need_time(seconds: float) -> None:
    """Ask that starting up may take this long from now, where BootTimeoutSec= exceeds the unit's limit."""
    _tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _status(text: str) -> list[str]:
    # A line break would begin another assignment, like MAINPID=.
    return [f"STATUS={visible(text)}"] if text else []


def _tell(*assignments: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # The C module beneath `socket`, which costs a few milliseconds for things that are not used here.
    import _socket

    if address[0] == "@":  # the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with suppress(OSError), closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)) as channel:
        channel.settimeout(SEND_LIMIT_SEC)
        channel.sendto("\n".join(assignments).encode(), address)
