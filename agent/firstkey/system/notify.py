"""Notes to the service manager (sd_notify(3)); without $NOTIFY_SOCKET or a listener, nothing happens.

`Type=notify` fails the unit, and holds sshd back until then, when READY=1 does not come: so this needs no
systemd-python, which may be absent.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress

from firstkey.text import visible

SEND_LIMIT_SEC = 2.0


def send(state: str = "", *, status: str = "") -> None:
    """Send a state, such as `READY=1`, and what `systemctl status` is to show, on one line."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A line break in the status would begin another assignment, like MAINPID=.
    assignments = filter(None, (state, status and f"STATUS={visible(status)}"))
    # The C module beneath `socket`, which costs a few milliseconds for things that are not used here.
    import _socket

    if address[0] == "@":  # the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with suppress(OSError), closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)) as channel:
        channel.settimeout(SEND_LIMIT_SEC)
        channel.sendto("\n".join(assignments).encode(), address)
