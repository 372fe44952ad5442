"""Work done in a box: a child process that looks at a tree, and the parent that watches it.

The child answers with values (JSON, by a pipe). It says what it is about in memory that both have, and where
one thing takes longer than it may, the parent ends it. What it cannot do itself, and may have, it asks for;
the parent knows a closed list of such questions. A value that came from the child is text of strangers,
whatever it says: the parent takes it for no more than that.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from firstkey import reasons
from firstkey.image_reasons import OVER_BUDGET
from firstkey.reasons import FirstkeyError
from firstkey.system import box, command, inspector

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping, Sequence

    At = Callable[[str, str], "tuple[str, str] | None"]

CPU_SECONDS = 20.0
"""How much processor time one thing (a file, a rule) may take; the largest real ones take a tenth."""
SECONDS = 120.0
"""How long it may take besides, as on a disk or a busy machine that is slow to answer."""
WHOLE_SECONDS = 6 * 3600.0
"""How long all of it may take: the last resort against a child that somebody else has taken over."""
LOOK_SECONDS = 0.2
FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of one value. The longest real one is the list of what a scan saw."""
_ORDERS = (signal.SIGINT, signal.SIGTERM)
_MARK_SIZE = 8192
_LENGTH = 4

_LOADED = (
    "base64", "binascii", "bz2", "calendar", "datetime", "difflib", "encodings.ascii", "encodings.cp437",
    "encodings.latin_1", "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_16_be",
    "encodings.utf_16_le", "encodings.utf_32", "encodings.utf_8", "encodings.utf_8_sig", "fnmatch", "hashlib",
    "hmac", "ipaddress", "lzma", "shlex", "socket", "sqlite3", "textwrap", "traceback", "urllib.parse",
    "zipfile", "zlib", "firstkey.boot.account_entries", "firstkey.boot.accounts", "firstkey.boot.key_file",
    "firstkey.boot.launch_keys", "firstkey.boot.sshd_reload", "firstkey.display", "firstkey.login_reasons",
    "firstkey.metadata.crossing", "firstkey.ssh.key_options", "firstkey.system.sshd_tree",
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

    def __init__(self, reader: int, writer: int, mark: mmap.mmap, walls: box.Walls, root: str) -> None:
        self._reader = reader
        self._writer = writer
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

    def tell(self, value: Any) -> None:  # noqa: ANN401 - whatever JSON has
        """Tell the parent something that it need not wait for the end to hear."""
        self._say("tell", value)

    def ask(self, question: str, *values: Any) -> Any:  # noqa: ANN401 - as above
        """Ask the parent one of the questions that it answers. Raises FirstkeyError, as it did."""
        self._say("ask", [question, list(values)])
        found, value = json.loads(_frame(self._reader) or b'["error", null]')
        if found == "error":
            raise _revived(value)
        return value

    def _say(self, kind: str, value: Any) -> None:  # noqa: ANN401 - as above
        _send(self._writer, [kind, value])


def look(
    works: Sequence[Callable[[Inside], Any]],
    *,
    root: str,
    questions: Mapping[str, Callable[..., Any]],
    heard: Callable[[Any], None],
) -> list[Any]:
    """Do each of the works in a box of its own around the tree at `root` (a resolved host path), all at once.

    Returns what they return. `heard` gets what they tell meanwhile. Raises what one raised, if that was a
    FirstkeyError, and Overrun where one did not end well; the others are ended then.
    """
    _load()
    kernel = box.Kernel()
    sys.stdout.flush()
    watches = [_Watch(questions, heard) for _ in works]
    try:
        for watch, work in zip(watches, works):
            watch.begin(work, root, kernel)
        return _results(watches)
    finally:
        for watch in watches:
            watch.close()


def _results(watches: Sequence[_Watch]) -> list[Any]:
    poll = select.poll()
    waiting = {watch.reader: watch for watch in watches}
    for reader in waiting:
        poll.register(reader, select.POLLIN)
    while waiting:
        for reader, _ in poll.poll(LOOK_SECONDS * 1000):
            if waiting[reader].hear():
                poll.unregister(reader)
                del waiting[reader]
        for watch in waiting.values():
            watch.check()
    return [watch.value for watch in watches]


class _Watch:
    """The parent's side: starts the child, hears values, answers questions, and ends what takes too long."""

    def __init__(self, questions: Mapping[str, Callable[..., Any]], heard: Callable[[Any], None]) -> None:
        import mmap

        self._mark = mmap.mmap(-1, _MARK_SIZE)
        self.reader, self._to_parent = os.pipe()
        self._from_parent, self._writer = os.pipe()
        self._pid: int | None = None
        self._buffer = bytearray()
        self._questions = questions
        self._heard = heard
        self._count = -1
        self._begun = (0.0, 0.0)
        self._asked = 0.0
        """How long its questions about one thing took."""
        self.value: Any = None

    def begin(self, work: Callable[[Inside], Any], root: str, kernel: box.Kernel) -> None:
        """Start the child."""
        parent = os.getpid()
        self._last = time.monotonic() + WHOLE_SECONDS
        # An order to end that came between the two would leave a child that nobody ends.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)
        try:
            pid = os.fork()
            if pid == 0:
                _child(work, root, kernel, parent, (self._from_parent, self._to_parent, self._mark))
            self._pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._clock = (~pid << 3) | 2  # clock_getcpuclockid(3): the processor time of that process
        os.close(self._from_parent)
        os.close(self._to_parent)

    def hear(self) -> bool:
        """Hear what it says; returns whether it has said the last, which is the `value`."""
        part = os.read(self.reader, 1 << 20)
        if not part:
            raise self._overrun("came to a sudden end")
        self._buffer += part
        while (frame := self._cut()) is not None:
            kind, value = frame
            if kind == "done":
                self.value = value
                return True
            self._answer(kind, value)
        return False

    def _cut(self) -> tuple[str, Any] | None:
        try:
            frame = _cut(self._buffer)
            kind, value = ("", None) if frame is None else json.loads(frame)
        except FirstkeyError:
            raise self._overrun("came to a longer answer than any real one") from None
        except (ValueError, TypeError, RecursionError):
            raise self._overrun("came to an answer that cannot be read") from None
        return None if frame is None else (str(kind), value)

    def _answer(self, kind: str, value: Any) -> None:  # noqa: ANN401 - as above
        if kind == "error":
            raise _revived(value)
        if kind == "tell":
            self._heard(value)
        elif kind == "ask":
            started = time.monotonic()
            try:
                question, values = value
                answer = ["value", self._questions[question](*values)]
            except FirstkeyError as error:
                answer = ["error", _told(error)]
            except Exception as error:  # noqa: BLE001 - whatever was asked, it was strangers who asked
                failed = FirstkeyError(f"{value!a:.200}: {error!r}", reason=reasons.INTERNAL_ERROR)
                answer = ["error", _told(failed)]
            before = self._begun
            self._begun = self._now()  # what was done out here is not the child's time ...
            self._asked += self._begun[0] - started
            if self._asked > SECONDS:  # ... but has an end too
                self._begun = before
                raise self._overrun("asked for more work than it may")
            try:
                _send(self._writer, answer, seconds=LOOK_SECONDS * 50)
            except (TimeoutError, BrokenPipeError):
                raise self._overrun("came to a sudden end") from None

    def _now(self) -> tuple[float, float]:
        try:
            return time.monotonic(), time.clock_gettime(self._clock)
        except OSError:
            return time.monotonic(), 0.0

    def check(self) -> None:
        """End the child where it is about the same thing for too long."""
        count = int.from_bytes(self._mark[:8], "little")
        now = self._now()
        if count != self._count:
            self._count, self._begun, self._asked = count, now, 0.0
        elif now[1] - self._begun[1] > CPU_SECONDS or now[0] - self._begun[0] > SECONDS:
            raise self._overrun("took more work than it may")
        if now[0] > self._last:
            raise self._overrun("took more time than all of it may")

    def _overrun(self, why: str) -> Overrun:
        self.end()
        length = min(int.from_bytes(self._mark[8:16], "little"), _MARK_SIZE - 16)
        kind, _, name = self._mark[16 : 16 + length].decode("utf-8", "surrogateescape").partition("\n")
        return Overrun(kind, name, why)

    def end(self) -> None:
        """End the child at once, if it has not ended; it has nothing to tidy up."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = None

    def close(self) -> None:
        """End it, and let go of what both had."""
        self.end()
        os.close(self.reader)
        os.close(self._writer)
        self._mark.close()


def _child(
    work: Callable[[Inside], Any],
    root: str,
    kernel: box.Kernel,
    parent: int,
    ends: tuple[int, int, mmap.mmap],
) -> NoReturn:
    """Never returns: whatever happens here must not run on in the parent's code."""
    reader, writer, mark = ends
    try:
        kernel.end_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the parent's to act on
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)
        _keep_only(reader, writer)
        inside = Inside(reader, writer, mark, kernel.shut(root), root)
        sys.meta_path[:] = [_NothingMore()]
        command.ask_watcher = inside.ask
        command.run_by_watcher = inspector.run_by_watcher
        inside._say(*_attempt(work, inside))  # noqa: SLF001 - both are this module's
    finally:
        os._exit(0)


def _attempt(work: Callable[[Inside], Any], inside: Inside) -> tuple[str, Any]:
    try:
        return "done", work(inside)
    except FirstkeyError as error:
        return "error", _told(error)
    except MemoryError:
        return "error", _told(FirstkeyError("looking took more memory than it may", reason=OVER_BUDGET))
    except Exception as error:  # noqa: BLE001 - the parent turns it into one sentence with a reason
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
        return "error", _told(FirstkeyError(f"{error!r} in {line}", reason=reasons.INTERNAL_ERROR))


class _NothingMore:
    """In place of Python's importers: the tree may have a Python of its own, which is not to be run."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Refuse. Only what is loaded already can be imported."""
        raise ImportError(f"{name} was not loaded before the box was shut (system/boxed.py)")


def _keep_only(*kept: int) -> None:
    """Close every descriptor but these; 0, 1 and 2 lead to nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else map(str, range(3, 4096)):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))


def _load() -> None:
    """Import what work in a box takes, while the host's files can still be read."""
    import importlib

    for name in _LOADED:
        importlib.import_module(name)


def _told(error: FirstkeyError) -> dict[str, str]:
    kind = next(base for base in type(error).__mro__ if base.__module__ == reasons.__name__)
    return {"kind": kind.__name__, "code": error.reason.code, "message": error.message, "hint": error.hint}


def _revived(told: Any) -> FirstkeyError:  # noqa: ANN401 - whatever JSON has
    """The error again, as far as it is one."""
    said = told if isinstance(told, dict) else {}
    kind = getattr(reasons, str(said.get("kind")), None)
    is_one = isinstance(kind, type) and issubclass(kind, FirstkeyError)
    error: FirstkeyError = BaseException.__new__(kind if is_one else FirstkeyError)  # type: ignore[arg-type]
    reason = reasons.ALL.get(str(said.get("code")), reasons.INTERNAL_ERROR)
    message, hint = said.get("message", "the process in the box did not say why it failed"), said.get("hint")
    FirstkeyError.__init__(error, str(message), reason=reason, hint=str(hint) if hint else None)
    return error


def _send(writer: int, value: Any, *, seconds: float | None = None) -> None:  # noqa: ANN401 - as above
    """Write one frame. Raises TimeoutError where nobody reads it for so long."""
    content = json.dumps(value).encode("ascii")
    rest = memoryview(len(content).to_bytes(_LENGTH, "little") + content)
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    while rest:
        if seconds is not None and not poll.poll(seconds * 1000):
            raise TimeoutError
        rest = rest[os.write(writer, rest[: select.PIPE_BUF]) :]


def _frame(reader: int) -> bytes | None:
    """The next whole frame, waited for; None at the end."""
    buffer = bytearray()
    while (frame := _cut(buffer)) is None:
        part = os.read(reader, 1 << 20)
        if not part:
            return None
        buffer += part
    return frame


def _cut(buffer: bytearray) -> bytes | None:
    """Take the first frame out of the buffer; None where it is not whole yet."""
    length = int.from_bytes(buffer[:_LENGTH], "little")
    if len(buffer) < _LENGTH:
        return None
    if length > FRAME_LIMIT:
        raise FirstkeyError(f"an answer of {length} bytes is more than any real one", reason=OVER_BUDGET)
    if len(buffer) < _LENGTH + length:
        return None
    frame = bytes(buffer[_LENGTH : _LENGTH + length])
    del buffer[: _LENGTH + length]
    return frame
