"""Work done in a box: a child process that looks at a tree, and the parent that watches it.

The child answers with values (JSON, a line each, by a pipe). It says what it is about in memory that both
have, and where one thing takes longer than it may, the parent ends it. What it cannot do itself, and may
have, it asks for; the parent knows a closed list of such questions. A value that came from the child is text
of strangers: the parent takes it for no more than that.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import time
from binascii import a2b_base64, b2a_base64
from contextlib import suppress
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, Any

from firstkey.image_reasons import OVER_BUDGET
from firstkey.reasons import FirstkeyError, as_plain, from_plain
from firstkey.system import box, child, command, files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firstkey.system.child import Send

    At = Callable[[str, str], "tuple[str, str] | None"]

CPU_SECONDS = 20.0
"""How much processor time one thing (a file, a rule) may take; the largest real ones take a tenth."""
SECONDS = 240.0
"""How long it may take besides, on a slow disk or a busy machine, and with the answers to its questions."""
WHOLE_SECONDS = 6 * 3600.0
"""How long all of it may take: the last resort against a child that its tree's author has taken over."""
LOOK_SECONDS = 0.2
ANSWER_SECONDS = 10.0
"""How long the child may take to read a whole answer."""
FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of one value, in one line. The longest real one is the list of what a scan saw."""
_MARK_SIZE = 8192
_BYTES = "\0bytes"
"""Stands in JSON before bytes in base64: no name in a tree has a NUL."""

_LOADED = (
    "_strptime", "base64", "binascii", "bz2", "datetime", "difflib", "encodings.ascii", "encodings.cp437",
    "encodings.latin_1", "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_16_be",
    "encodings.utf_16_le", "encodings.utf_32", "encodings.utf_8", "encodings.utf_8_sig", "fnmatch", "hashlib",
    "hmac", "ipaddress", "lzma", "shlex", "socket", "sqlite3", "tarfile", "textwrap", "traceback",
    "urllib.parse", "zipfile", "zlib", "firstkey.boot.account_entries", "firstkey.boot.accounts",
    "firstkey.boot.key_file", "firstkey.boot.launch_keys", "firstkey.boot.sshd_reload", "firstkey.display",
    "firstkey.login_reasons", "firstkey.metadata.crossing", "firstkey.ssh.key_options",
    "firstkey.system.sshd_tree",
)  # fmt: skip
"""What work in a box imports late: it is imported before. Of a tree's Python nothing is ever run."""


class Overrun(FirstkeyError):  # noqa: N818 - what happened
    """The child was ended, or died, over what it was about: `kind` and `name` say what that was."""

    def __init__(self, kind: str, name: str, why: str) -> None:
        super().__init__(f"looking at {name or 'the tree'} {why}", reason=OVER_BUDGET)
        self.kind = kind
        self.name = name


class Inside:
    """The child's side. `tree` is where the tree's root is for it; `missing` which walls are not there."""

    def __init__(self, send: Send, reader: int, mark: mmap, walls: box.Walls, root: str) -> None:
        self._send = send
        self._answers = os.fdopen(reader, "rb")
        self._mark = mark
        self._count = 0
        self._now = ("", "")
        self.tree = "/" if walls.is_alone else root
        self.missing = walls.missing

    def at(self, kind: str, name: str) -> tuple[str, str]:
        """Say what is looked at from now on, for as long as that may take; returns what was before."""
        before, self._now = self._now, (kind, name)
        text = f"{kind}\n{name}".encode("utf-8", "surrogateescape")[: _MARK_SIZE - 16]
        self._count += 1
        self._mark[: 16 + len(text)] = struct.pack("<QQ", self._count, len(text)) + text
        return before

    def report(self, value: Any) -> None:  # noqa: ANN401 - whatever JSON has
        """Report something to the parent before the end."""
        self._send(_line("report", value))

    def ask(self, question: str, *values: Any) -> Any:  # noqa: ANN401 - as above
        """Ask the parent one of the questions that it answers. Raises FirstkeyError, as it did."""
        self._send(_line("ask", [question, list(values)]))
        found, value = _read(self._answers.readline() or b'["error", null]')
        if found == "error":
            raise from_plain(value)
        return value


def look(
    works: Sequence[Callable[[Inside], Any]],
    *,
    root: str,
    questions: Mapping[str, Callable[..., Any]],
    on_report: Callable[[Any], None],
) -> list[Any]:
    """Do each of the works in a box of its own around the tree at `root` (a resolved host path), all at once.

    Returns what they return. `on_report` gets what they report meanwhile. Raises what one raised, if that was
    a FirstkeyError, and Overrun where one did not end well; the others are ended then.
    """
    _load()
    kernel = box.Kernel()
    sys.stdout.flush()
    watches: list[_Watch] = []
    poll = select.poll()
    try:
        for work in works:
            watches.append(_Watch(partial(_work, work, root, kernel), questions, on_report))
            poll.register(watches[-1].child.pipe, select.POLLIN)
        waiting = {watch.child.pipe: watch for watch in watches}
        while waiting:
            for pipe, _ in poll.poll(LOOK_SECONDS * 1000):
                if waiting[pipe].receive():
                    poll.unregister(pipe)
                    del waiting[pipe]
            for watch in waiting.values():
                watch.check()
        return [watch.value for watch in watches]
    finally:
        for watch in watches:
            watch.close()


class _Watch:
    """The parent's side: starts the child, gets values, answers questions, and ends what takes too long."""

    def __init__(
        self,
        work: Callable[[int, mmap, Send], None],
        questions: Mapping[str, Callable[..., Any]],
        on_report: Callable[[Any], None],
    ) -> None:
        self._mark = mmap(-1, _MARK_SIZE)
        reader, self._writer = os.pipe()
        try:
            self.child = child.start(partial(work, reader, self._mark))
        finally:
            os.close(reader)
        self._buffer = bytearray()
        self._questions = questions
        self._on_report = on_report
        self._last = time.monotonic() + WHOLE_SECONDS
        self._clock = (~self.child.pid << 3) | 2  # clock_getcpuclockid(3): the processor time of that process
        self._count = -1
        self._begun = (0.0, 0.0)
        self.value: Any = None

    def receive(self) -> bool:
        """Hear what it says; returns whether it has said the last, which is the `value`."""
        part = self.child.receive()
        if not part:
            raise self._overrun("came to a sudden end")
        self._buffer += part
        if len(self._buffer) > FRAME_LIMIT:
            raise self._overrun("came to a longer answer than any real one")
        if b"\n" not in part:
            return False
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            try:
                kind, value = _read(line)
            except (ValueError, TypeError, RecursionError):
                raise self._overrun("came to an answer that cannot be read") from None
            if kind == "done":
                self.value = value
                return True
            if kind == "error":
                raise from_plain(value)
            if kind == "report":
                self._on_report(value)
            elif kind == "ask":
                self._answer(value)
        return False

    def _answer(self, asked: Any) -> None:  # noqa: ANN401 - as above
        try:
            question, values = asked
            answer = _line("value", self._questions[question](*values))
        except Exception as error:  # noqa: BLE001 - the question is text of strangers
            answer = _line("error", as_plain(error))
        poll = select.poll()
        poll.register(self._writer, select.POLLOUT)
        deadline = time.monotonic() + ANSWER_SECONDS  # of the whole: a child may read drop by drop
        while answer:
            written, is_ready = 0, poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            with suppress(BrokenPipeError):
                written = os.write(self._writer, answer[: select.PIPE_BUF]) if is_ready else 0
            if not written:
                raise self._overrun("came to a sudden end")
            answer = answer[written:]

    def check(self) -> None:
        """End the child where it is about the same thing for too long."""
        count = int.from_bytes(self._mark[:8], "little")
        now = time.monotonic(), 0.0
        with suppress(OSError):
            now = now[0], time.clock_gettime(self._clock)
        if count != self._count:
            self._count, self._begun = count, now
        elif now[1] - self._begun[1] > CPU_SECONDS or now[0] - self._begun[0] > SECONDS:
            raise self._overrun("took more work than it may")
        if now[0] > self._last:
            raise self._overrun("took more time than all of it may")

    def _overrun(self, why: str) -> Overrun:
        length = int.from_bytes(self._mark[8:16], "little")  # whatever it claims: a slice has an end
        kind, _, name = self._mark[16 : 16 + length].decode("utf-8", "surrogateescape").partition("\n")
        return Overrun(kind, name, why)

    def close(self) -> None:
        """End the child at once, which has nothing to tidy up, and let go of what both had."""
        self.child.stop(0.0)
        os.close(self._writer)
        self._mark.close()


def _work(
    work: Callable[[Inside], Any], root: str, kernel: box.Kernel, reader: int, mark: mmap, send: Send
) -> None:
    """The child's part, from its start to its end."""
    kernel.end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in range(3):  # without /dev/null there is no box: what is open already, no wall closes
        files.send_nowhere(number)
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else map(str, range(3, 4096)):
        if int(name) > 2 and int(name) not in (reader, *child.own):
            with suppress(OSError):
                os.close(int(name))
    inside = Inside(send, reader, mark, kernel.shut(root), root)
    sys.meta_path[:] = [_NothingMore()]
    command.ask_watcher = inside.ask
    try:
        last = _line("done", work(inside))
    except MemoryError:
        last = _line(
            "error", as_plain(FirstkeyError("looking took more memory than it may", reason=OVER_BUDGET))
        )
    except Exception as error:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        last = _line("error", as_plain(error))
    send(last)


class _NothingMore:
    """In place of Python's importers: the tree may have a Python of its own, which is not to be run."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Refuse. Only what is loaded already can be imported."""
        raise ImportError(f"{name} was not loaded before the box was shut (system/boxed.py)")


def _load() -> None:
    """Import what work in a box takes, while the host's files can still be read."""
    import importlib

    for name in _LOADED:
        importlib.import_module(name)


def _line(kind: str, value: Any) -> bytes:  # noqa: ANN401 - as above
    return json.dumps([kind, value], default=_as_text).encode("ascii") + b"\n"


def _as_text(value: bytes) -> dict[str, str]:
    return {_BYTES: b2a_base64(value, newline=False).decode("ascii")}


def _read(line: bytes | bytearray) -> Any:  # noqa: ANN401 - as above
    """Raises ValueError, TypeError or RecursionError."""
    return json.loads(line, object_hook=lambda found: a2b_base64(found[_BYTES]) if _BYTES in found else found)
