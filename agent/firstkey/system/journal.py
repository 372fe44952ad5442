"""The log: entries go to the journal, or to standard error where there is none.

Nothing here raises or waits for long: a log that is full, gone or stuck must not lock a user out.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import closing, suppress

from firstkey import TYPE_CHECKING
from firstkey.events import DEBUG, INFO, WARNING
from firstkey.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Callable

    from firstkey.events import Entry

    Sendv = Callable[..., None]

JOURNAL_SOCKET = "/run/systemd/journal/socket"
"""Where journald takes entries with fields (systemd-journald.service(8)); libsystemd knows no other place."""

PATIENCE_SEC = 1.0
"""How long one line waits for a log that takes nothing at the moment."""
NO_WAIT_SEC = 60.0
"""How long the journal is not waited for again after that; entries go to standard error meanwhile."""

WRITE_LIMIT = 4096
"""PIPE_BUF of Linux (pipe(7)): a pipe that is ready takes this much at once and does not block."""

_NO_ECHO = -1


class Log:
    """Writes each entry to the journal, or on standard error where the journal does not take it.

    `verbosity` is -1, 0 or 1: whether standard error gets warnings, what is worth knowing, or everything, for
    want of a journal. What the journal has taken goes to standard error as well if it is a warning (with
    verbosity 1, in any case), unless that is the journal's own stream already. `sendv` is systemd-python's.
    """

    def __init__(
        self,
        *,
        verbosity: int,
        socket_path: str = JOURNAL_SOCKET,
        stderr: int = 2,
        environ: Mapping[str, str] = os.environ,
        sendv: Sendv | None = None,
    ) -> None:
        # The higher the number, the less an entry weighs (syslog(3)).
        self._level = {-1: WARNING, 0: INFO, 1: DEBUG}[verbosity]
        self._stderr = stderr
        # Where systemd connected it to the journal (systemd.exec(5), $JOURNAL_STREAM), that wants a line an
        # entry behind its `<N>` level (sd-daemon(3)).
        self._is_stream = False
        with suppress(OSError):
            status = os.fstat(stderr)
            self._is_stream = environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
        self._echo_level = _NO_ECHO if self._is_stream else DEBUG if verbosity > 0 else WARNING
        self._sendv = (sendv or _find_sendv()) if os.path.exists(socket_path) else None
        self._path = socket_path
        self._socket = -1
        self._waits_again = 0.0

    def write(self, entry: Entry) -> None:
        """Write it; never raises, and waits a few seconds at most."""
        level = self._level
        with suppress(OSError):
            if self._sendv:
                self._record(self._sendv, entry)
                level = self._echo_level
        with suppress(OSError):
            if entry.event.priority <= level:
                self._print(entry)

    def _record(self, sendv: Sendv, entry: Entry) -> None:
        """Send it to the journal; raises OSError where journald is gone or takes nothing.

        libsystemd would wait without end for room in journald's queue. poll(2) says whether there is room,
        for a datagram socket only while it is connected: so one is, and sends nothing itself.
        """
        if self._socket < 0:
            # The C module beneath `socket`, which costs a few milliseconds for things that are not used here.
            import _socket

            with closing(
                _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
            ) as channel:
                channel.connect(self._path)
                self._socket = channel.detach()
        # After one wait in vain the entries of the next minute do not wait again.
        try:
            _wait_until_writable(self._socket, PATIENCE_SEC if time.monotonic() >= self._waits_again else 0.0)
        except TimeoutError:
            self._waits_again = time.monotonic() + NO_WAIT_SEC
            raise
        sendv(  # systemd.journal-fields(7)
            f"MESSAGE={entry.message}",
            f"MESSAGE_ID={entry.event.message_id}",
            f"PRIORITY={entry.event.priority}",
            "SYSLOG_IDENTIFIER=firstkey",
            f"FIRSTKEY_EVENT={entry.event.name}",
            *(f"FIRSTKEY_{name.upper()}={value}" for name, value in entry.fields.items()),
        )

    def _print(self, entry: Entry) -> None:
        """One line, whole or cut to the limit, without waiting for a reader that has stopped reading."""
        word = "warning: " if entry.event.priority == WARNING else ""
        mark = f"<{entry.event.priority}>" if self._is_stream else f"firstkey: {word}"
        line = f"{mark}{visible(entry.message)}"
        if os.isatty(self._stderr):
            from firstkey.display import folded, width_of  # no boot has a terminal

            line = "\n".join(folded(line, width_of(self._stderr)))
        data = line.encode("utf-8", "backslashreplace")[: WRITE_LIMIT - 1] + b"\n"
        _wait_until_writable(self._stderr, PATIENCE_SEC)
        while data:
            data = data[os.write(self._stderr, data) :]


def _wait_until_writable(fd: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        raise TimeoutError(f"file descriptor {fd} takes nothing")


def _find_sendv() -> Sendv | None:
    """systemd-python's way to the journal, or None where it is not installed.

    `systemd.journal` only passes this C function on, and itself imports logging and uuid: 22 ms of
    every boot. Should a release move the function, entries go to standard error, which the journal reads.
    """
    try:
        from systemd._journal import sendv
    except ImportError:
        return None
    found: Sendv = sendv
    return found
