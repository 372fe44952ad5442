"""Telling the service manager how far we are (sd_notify(3)); nothing happens where nobody asked.

`Type=notify` fails the unit, and holds sshd back until then, when READY=1 does not come: so this
works without systemd-python too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

from firstkey.text import visible

if TYPE_CHECKING:
    Notify = Callable[[str], object]

SEND_LIMIT_SEC = 2.0


def ready(status: str = "") -> bool:
    """Let sshd start (READY=1). Each of these functions returns whether somebody was told."""
    return _tell("READY=1", *_status(status))


def is_heard() -> bool:
    """Whether there is a service manager that wants to be told."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def status(text: str) -> bool:
    """What `systemctl status` shows (STATUS=), on one line."""
    return _tell(*_status(text))


def stopping(status: str = "") -> bool:
    """We are on the way out (STOPPING=1)."""
    return _tell("STOPPING=1", *_status(status))


def need_time(seconds: float) -> bool:
    """Ask that starting up may take this long from now, where BootTimeoutSec= exceeds the unit's limit."""
    return _tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _status(text: str) -> list[str]:
    # A line break would begin another assignment, like MAINPID=.
    return [f"STATUS={visible(text)}"] if text else []


def _tell(*assignments: str) -> bool:
    if not is_heard():
        return False
    try:
        return bool(_sender()("\n".join(assignments)))
    except OSError:
        return False


def _sender() -> Notify:
    """systemd-python's C function (`systemd.daemon` passes it on, and imports more), or our own few lines."""
    try:
        from systemd._daemon import notify
    except ImportError:
        return send_datagram
    found: Notify = notify
    return found


def send_datagram(state: str) -> bool:
    """What sd_notify(3) does, for where systemd-python is not installed."""
    import socket

    address = os.environ["NOTIFY_SOCKET"]
    if address[0] == "@":  # the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(SEND_LIMIT_SEC)
        channel.sendto(state.encode(), address)
    return True
