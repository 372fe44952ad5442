"""Saying what happened: which sink gets what, and that no sink can hold or break the caller."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import firstkey
from firstkey import events
from firstkey.events import Entry
from firstkey.system import journal
from firstkey.system.journal import Log

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(firstkey.__file__).parents[1])}

ADDED = events.KEY_ADDED(user="ann", file="/home/ann/k", fingerprint="SHA256:abc", key_name="laptop")
WARNED = events.CONFIG_WARNING(place="/etc/x:3", detail="unknown key", reason="config-invalid")
RETRIED = events.IMDS_RETRY(endpoint="http://127.0.0.1", detail="refused", pause=0.1)
ROUTINE = events.STOPPING(detail="asked to")


class Pipe:
    """A pipe in place of standard error."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def text(self) -> str:
        """What was written so far."""
        try:
            return os.read(self.reader, 1 << 20).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that is closed in the end."""
    made = Pipe()
    yield made
    with contextlib.suppress(OSError):  # A test may have closed one of them.
        os.close(made.writer)
    with contextlib.suppress(OSError):
        os.close(made.reader)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket where journald's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        yield server


def plain(pipe: Pipe, **environ: str) -> Log:
    """A log where there is no journal."""
    return Log(verbosity=0, socket_path="/nonexistent", stderr=pipe.writer, environ=environ)


def fill(path: str) -> None:
    """Send until the receiver's queue takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(100_000):
                sender.sendto(b"x", path)
            pytest.fail("the queue has no end")


def test_journal_gets_the_fields(journald: socket.socket) -> None:
    """An entry reaches the journal with its identity, level and own fields."""
    sent: list[str] = []
    log = Log(verbosity=0, sendv=lambda *fields: sent.extend(fields), socket_path=journald.getsockname())
    log.write(ADDED)
    assert sent == [
        f"MESSAGE={ADDED.message}",
        f"MESSAGE_ID={events.KEY_ADDED.message_id}",
        "PRIORITY=5",
        "SYSLOG_IDENTIFIER=firstkey",
        "FIRSTKEY_EVENT=key-added",
        "FIRSTKEY_USER=ann",
        "FIRSTKEY_FILE=/home/ann/k",
        "FIRSTKEY_FINGERPRINT=SHA256:abc",
        "FIRSTKEY_KEY_NAME=laptop",
    ]


def test_lines_for_the_journal_carry_the_level(pipe: Pipe) -> None:
    """Where the journal reads standard error each line begins with <N>, as sd-daemon(3) has it."""
    status = os.fstat(pipe.writer)
    plain(pipe, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}").write(WARNED)
    assert pipe.text() == f"<4>{WARNED.message}\n"


def test_other_lines_are_sentences(pipe: Pipe) -> None:
    """A person reads plain words, and so does what collects the output of a container."""
    log = plain(pipe)
    log.write(WARNED)
    log.write(ADDED)
    assert pipe.text() == f"firstkey: warning: {WARNED.message}\nfirstkey: {ADDED.message}\n"


@pytest.mark.parametrize(
    "verbosity,expected",
    [(-1, [WARNED]), (0, [WARNED, ROUTINE]), (1, [WARNED, ROUTINE, RETRIED])],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_verbosity(
    pipe: Pipe, tmp_path: Path, verbosity: int, expected: list[Entry], is_stream: bool
) -> None:
    """Without systemd-python, -q leaves warnings, and -v adds what is for debugging.

    Levels stand before the lines where the journal reads them, and nowhere else.
    """
    status = os.fstat(pipe.writer)
    log = Log(
        verbosity=verbosity,
        socket_path=str(tmp_path / "none"),
        stderr=pipe.writer,
        environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + (not is_stream)}"},
    )
    for entry in (WARNED, ROUTINE, RETRIED):
        log.write(entry)
    lines = pipe.text().splitlines()
    assert [line.endswith(entry.message) for line, entry in zip(lines, expected)] == [True] * len(expected)
    assert len(lines) == len(expected)
    assert all(line.startswith("<" if is_stream else "firstkey: ") for line in lines)


def test_journal_gets_all_and_stderr_the_warnings(journald: socket.socket, pipe: Pipe) -> None:
    """With a journal, a person at hand still sees warnings; everything is recorded."""
    recorded: list[str] = []
    path = journald.getsockname()
    log = Log(verbosity=0, sendv=lambda *it: recorded.append(it[0]), socket_path=path, stderr=pipe.writer)
    for entry in (WARNED, ROUTINE, RETRIED):
        log.write(entry)
    assert recorded == [f"MESSAGE={entry.message}" for entry in (WARNED, ROUTINE, RETRIED)]
    assert pipe.text() == f"firstkey: warning: {WARNED.message}\n"


def refuse(*_: str) -> None:
    """A journal that takes nothing."""
    raise BrokenPipeError


def test_broken_journal_falls_back(journald: socket.socket, pipe: Pipe) -> None:
    """What the journal does not take is said on standard error, routine as well, once each."""
    log = Log(verbosity=0, sendv=refuse, socket_path=journald.getsockname(), stderr=pipe.writer)
    for entry in (WARNED, ROUTINE):
        log.write(entry)
    assert pipe.text() == f"firstkey: warning: {WARNED.message}\nfirstkey: {ROUTINE.message}\n"


def test_nothing_raises(journald: socket.socket, pipe: Pipe) -> None:
    """A closed pipe, a closed descriptor and a full disk are no reason to stop the work."""
    os.close(pipe.reader)
    Log(verbosity=0, sendv=refuse, socket_path=journald.getsockname(), stderr=pipe.writer).write(WARNED)
    os.close(pipe.writer)
    plain(pipe).write(WARNED)
    full = os.open("/dev/full", os.O_WRONLY)
    Log(verbosity=0, socket_path="/nonexistent", stderr=full).write(WARNED)
    os.close(full)


def test_stopped_reader_does_not_hold(pipe: Pipe) -> None:
    """A reader that has stopped reading costs a moment, not the boot."""
    os.set_blocking(pipe.writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe.writer, b"x" * 4096)
    os.set_blocking(pipe.writer, True)
    begin = time.monotonic()
    plain(pipe).write(WARNED)
    assert time.monotonic() - begin < 10


def test_full_journal_does_not_hold(journald: socket.socket, pipe: Pipe) -> None:
    """A journald that reads nothing is waited for once; entries go to standard error meanwhile."""
    fill(journald.getsockname())
    sent: list[str] = []
    path = journald.getsockname()
    log = Log(verbosity=0, sendv=lambda *it: sent.extend(it), socket_path=path, stderr=pipe.writer)
    begin = time.monotonic()
    for _ in range(100):
        log.write(ROUTINE)
    assert time.monotonic() - begin < 20
    assert sent == []
    assert pipe.text().count(ROUTINE.message) == 100


def test_journal_is_used_again_once_it_reads(journald: socket.socket, pipe: Pipe) -> None:
    """After journald has caught up, entries reach it again."""
    fill(journald.getsockname())
    sent: list[str] = []
    path = journald.getsockname()
    log = Log(verbosity=0, sendv=lambda *it: sent.extend(it), socket_path=path, stderr=pipe.writer)
    log.write(ROUTINE)
    journald.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            journald.recv(100)
    log.write(ADDED)
    assert f"MESSAGE={ADDED.message}" in sent


def test_dead_journal_socket(tmp_path: Path, pipe: Pipe) -> None:
    """A socket that nobody listens on any more is like no journal."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
    Log(verbosity=0, sendv=lambda *_: None, socket_path=str(path), stderr=pipe.writer).write(ROUTINE)
    assert ROUTINE.message in pipe.text()


def test_long_line_is_cut_to_what_a_pipe_takes(pipe: Pipe) -> None:
    """A line is at most PIPE_BUF long and ends as a line."""
    plain(pipe).write(_long_entry())
    text = pipe.text()
    assert len(text.encode()) <= journal.WRITE_LIMIT
    assert text.endswith("\n")
    assert text.count("\n") == 1


def _long_entry() -> Entry:
    wide = "\U000e0001" * events.FIELD_LIMIT
    return events.KEY_ADDED(user=wide, file=wide, fingerprint=wide, key_name=wide)


def test_own_stream_is_recognised(journald: socket.socket, tmp_path: Path) -> None:
    """Where systemd connected standard error to the journal, warnings are not recorded twice."""
    pytest.importorskip("systemd._journal")
    stream = os.open(tmp_path / "stderr", os.O_CREAT | os.O_RDWR)
    status = os.fstat(stream)
    for environ, echoed in (
        ({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, False),
        ({"JOURNAL_STREAM": f"{status.st_dev}:1"}, True),
        ({}, True),
    ):
        os.ftruncate(stream, 0)
        log = Log(
            verbosity=0,
            socket_path=journald.getsockname(),
            stderr=stream,
            environ=environ,
        )
        log.write(WARNED)
        assert (os.fstat(stream).st_size > 0) is echoed
    os.close(stream)


def test_import_is_light() -> None:
    """Speaking costs no import of logging, uuid, socket or inspect."""
    script = "import sys, firstkey.system.journal as j; j._find_sendv(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60, env=ENVIRON
    ).stdout.split()
    assert {"logging", "uuid", "socket", "inspect", "dataclasses", "subprocess"}.isdisjoint(loaded)


CATCH = """
    import json, os, socket
    from firstkey import events
    from firstkey.system import journal
    os.makedirs(os.path.dirname(journal.JOURNAL_SOCKET))
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(journal.JOURNAL_SOCKET)
    log = journal.Log(verbosity=0)
    log.write(events.USER_CREATED(user="gr\\u00fc\\u00dfe"))
    print(json.dumps(server.recv(1 << 16).decode().splitlines()))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a /run of its own")
def test_datagram_of_libsystemd() -> None:
    """What arrives at journald's own socket, through the real systemd-python and libsystemd."""
    pytest.importorskip("systemd._journal")
    command = 'mount -t tmpfs tmpfs /run && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, textwrap.dedent(CATCH)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRON,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert "MESSAGE=The user grüße was created." in fields
    assert f"MESSAGE_ID={events.USER_CREATED.message_id}" in fields
    assert {"PRIORITY=5", "SYSLOG_IDENTIFIER=firstkey", "FIRSTKEY_USER=grüße"} <= set(fields)
