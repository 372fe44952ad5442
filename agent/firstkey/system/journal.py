"""Saying what happened: to the journal, or to standard error where there is none.

Nothing here raises or waits for long: a log that is full, gone or stuck must not keep anybody out.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Callable, Protocol

from firstkey.events import DEBUG, INFO, WARNING
from firstkey.text import folded, visible, width_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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

# What an entry weighs at least (the higher the number the less) to be written, by -q, nothing and -v.
_LEVELS = {-1: WARNING, 0: INFO, 1: DEBUG}
_NO_ECHO = -1


class Sink(Protocol):
    """Something that takes entries; raises OSError when it cannot."""

    def write(self, entry: Entry) -> None:
        """Pass the entry on."""


class Log:
    """Writes each entry to the journal, or on standard error where the journal does not take it.

    `level` is the highest number (syslog(3): the least important) that standard error gets for want
    of a journal; `echo_level` the same for entries that the journal has taken.
    """

    def __init__(
        self, *, journal: Sink | None, stderr: Sink, level: int = INFO, echo_level: int = WARNING
    ) -> None:
        self._journal = journal
        self._stderr = stderr
        self._level = level
        self._echo_level = echo_level

    def say(self, entry: Entry) -> None:
        """Say it; never raises, and waits a few seconds at most."""
        recorded = self._journal is not None and _taken(self._journal, entry)
        if entry.event.priority <= (self._echo_level if recorded else self._level):
            _taken(self._stderr, entry)


class JournalSink:
    """Entries with their fields, through systemd-python.

    libsystemd would wait without end for room in journald's queue. poll(2) tells whether there is some, for a
    datagram socket only while it is connected: so one is, and sends nothing itself.
    """

    def __init__(self, sendv: Sendv, *, socket_path: str = JOURNAL_SOCKET) -> None:
        self._sendv = sendv
        self._path = socket_path
        self._fd = -1
        self._waits_again = 0.0

    def write(self, entry: Entry) -> None:
        """Send it; raises OSError where journald is gone or takes nothing."""
        if self._fd < 0:
            self._fd = _connected(self._path)
        # After one wait in vain the entries of the next minute do not wait again.
        try:
            _wait_until_writable(self._fd, PATIENCE_SEC if time.monotonic() >= self._waits_again else 0.0)
        except TimeoutError:
            self._waits_again = time.monotonic() + NO_WAIT_SEC
            raise
        self._sendv(*journal_fields(entry))


class StderrSink:
    """Sentences on standard error, in lines that a terminal has room for.

    `is_stream`: systemd reads it, and wants a line an entry behind its `<N>` level (sd-daemon(3)).
    """

    def __init__(self, fd: int = 2, *, is_stream: bool = False) -> None:
        self._fd = fd
        self._is_stream = is_stream

    def write(self, entry: Entry) -> None:
        """Write the line; raises OSError where nobody reads."""
        word = "warning: " if entry.event.priority == WARNING else ""
        mark = f"<{entry.event.priority}>" if self._is_stream else f"firstkey: {word}"
        _write_line(self._fd, "\n".join(folded(f"{mark}{visible(entry.message)}", width_of(self._fd))))


def choose(
    *,
    verbosity: int,
    socket_path: str = JOURNAL_SOCKET,
    stderr: int = 2,
    environ: Mapping[str, str] = os.environ,
) -> Log:
    """The log of this place: the journal where there is one, else standard error.

    With the journal, which gets everything, warnings go to standard error as well (with verbosity 1,
    everything), unless that is the journal's own stream already. `verbosity` is -1, 0 or 1.
    """
    level = _LEVELS[max(-1, min(verbosity, 1))]
    sendv = _find_sendv() if os.path.exists(socket_path) else None
    is_stream = _is_journal_stream(stderr, environ)
    plain = StderrSink(stderr, is_stream=is_stream)
    if sendv is None:
        return Log(journal=None, stderr=plain, level=level)
    echo_level = _NO_ECHO if is_stream else DEBUG if verbosity > 0 else WARNING
    journal = JournalSink(sendv, socket_path=socket_path)
    return Log(journal=journal, stderr=plain, level=level, echo_level=echo_level)


def journal_fields(entry: Entry) -> list[str]:
    """The entry as the journal wants it (systemd.journal-fields(7))."""
    own = [f"FIRSTKEY_{name.upper()}={value}" for name, value in entry.fields.items()]
    return [
        f"MESSAGE={entry.message}",
        f"MESSAGE_ID={entry.event.message_id}",
        f"PRIORITY={entry.event.priority}",
        "SYSLOG_IDENTIFIER=firstkey",
        f"FIRSTKEY_EVENT={entry.event.name}",
        *own,
    ]


def _connected(path: str) -> int:
    # The C module beneath `socket`, which costs a few milliseconds for things that are not used here.
    import _socket

    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    try:
        channel.connect(path)
    except OSError:
        channel.close()
        raise
    return channel.detach()


def _taken(sink: Sink, entry: Entry) -> bool:
    try:
        sink.write(entry)
    except OSError:
        return False
    return True


def _write_line(fd: int, line: str) -> None:
    """One line, whole or cut to the limit, without waiting for a reader that has stopped reading."""
    data = line.encode("utf-8", "backslashreplace")[: WRITE_LIMIT - 1] + b"\n"
    _wait_until_writable(fd, PATIENCE_SEC)
    while data:
        data = data[os.write(fd, data) :]


def _wait_until_writable(fd: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        raise TimeoutError(f"file descriptor {fd} takes nothing")


def _find_sendv() -> Sendv | None:
    """systemd-python's way to the journal, or None where it is not installed.

    `systemd.journal` only passes this C function on, and itself imports logging and uuid: 22 ms of
    every boot. Should a later release move the function, the public name still works.
    """
    try:
        from systemd._journal import sendv
    except ImportError:
        try:
            from systemd.journal import sendv
        except ImportError:
            return None
    found: Sendv = sendv
    return found


def _is_journal_stream(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether the descriptor is what systemd connected to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
