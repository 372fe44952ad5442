"""Every system call of a program and its children that changes a file, before it is done: to be counted,
to fail, or to be the last (seccomp_unotify(2)).

strace counts calls for each process by itself; here they are counted over all of them, so that the whole job,
useradd and ssh-keygen included, can be ended at one and the same instant, or one single call of it can fail.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import processes

_NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "sendfile": 40, "fsync": 74, "fdatasync": 75,
        "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
        "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94,
        "mknod": 133, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "openat": 257, "mkdirat": 258,
        "mknodat": 259, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fchmodat": 268, "utimensat": 280, "fallocate": 285, "pwritev": 296, "syncfs": 306, "seccomp": 317,
        "renameat2": 316, "copy_file_range": 326, "pwritev2": 328,
    },
    "aarch64": {
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "mknodat": 33, "mkdirat": 34, "unlinkat": 35,
        "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46, "fallocate": 47,
        "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "openat": 56, "write": 64, "writev": 66,
        "pwrite64": 68, "pwritev": 70, "sendfile": 71, "fsync": 82, "fdatasync": 83, "utimensat": 88,
        "syncfs": 267, "renameat2": 276, "seccomp": 277, "copy_file_range": 285, "pwritev2": 287,
    },
}  # fmt: skip
"""The kernel's numbers (asm/unistd.h); `seccomp` is not watched but used."""
_OPENING = {"open": 1, "openat": 2}
"""Which argument has the flags: only what makes or empties a file changes anything."""
_CHANGING_FLAGS = os.O_CREAT | os.O_TRUNC

_BY_PATH = {"symlink": 1}
"""Calls that take a path without a directory, and which argument it is, if not the first."""
_AT = {"symlinkat": 1}
"""Calls that take a directory and a path, and which argument the directory is, if not the first."""
_PATHS = frozenset((
    "open", "truncate", "rename", "mkdir", "rmdir", "creat", "link", "unlink", "symlink", "chmod", "chown",
    "lchown", "mknod", "setxattr", "lsetxattr",
))  # fmt: skip
_DIRECTORIES = frozenset((
    "openat", "mkdirat", "mknodat", "fchownat", "unlinkat", "renameat", "renameat2", "linkat", "symlinkat",
    "fchmodat", "utimensat",
))  # fmt: skip
_DESCRIPTOR = {"copy_file_range": 2}

_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_GO_ON = 1
_NO_NEW_PRIVILEGES = 38
_AT_FDCWD = -100

KILL_ALL = "kill all"
"""Every process of the program dies at once, as in a power cut that loses nothing."""
KILL_CALLER = "kill the caller"
"""Only the process dies that is about to make the call; the others see to it."""


class Call(NamedTuple):
    """One call that is about to change something: its number in this run, and the path that it is about.

    Nothing stands for the root itself, as it does in treestate's.
    """

    number: int
    pid: int
    name: str
    path: str


UNWATCHABLE = 99
"""The exit status of a watched program where the kernel lets nobody watch."""


class Ended(NamedTuple):
    """How the program ended: the exit status of its first process, and what was printed."""

    status: int
    out: str
    err: str
    calls: tuple[Call, ...]


class _Notice(NamedTuple):
    cookie: int
    pid: int
    name: str
    arguments: tuple[int, ...]


@cache
def missing() -> str | None:
    """Why no calls can be watched here, or None."""
    if platform.machine() not in _NUMBERS:
        return f"does not know the system calls of {platform.machine()}"
    try:
        ended = run(["true"], Path("/nonexistent"))
    except OSError:
        return "seccomp may not be used here"
    assert ended.status == 0, ended.err  # a fault of these tests, and nothing that is missing here
    return None


def run(
    argv: Iterable[str], root: Path, at: Callable[[Call], int | str | None] = lambda _call: None
) -> Ended:
    """Run a program to the end of its last process; `at` is asked before each call that changes `root`.

    It answers with None (go on), an errno (the call fails with it), KILL_ALL or KILL_CALLER.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(
            [sys.executable, "-E", "-S", __file__, str(theirs.fileno()), *argv],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[theirs.fileno()],
            env=processes.environment(),
        ) as child:  # fmt: skip
            theirs.close()
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            if not descriptors:
                child.wait(processes.PATIENCE)
                if child.returncode == UNWATCHABLE:
                    raise OSError("seccomp")
                raise AssertionError(f"the watched program could not begin: {_text(err.fileno())}")
            (listener,) = descriptors
            try:
                calls = _Supervisor(listener, child.pid, str(root), at).supervise()
            finally:
                os.close(listener)
                child.kill()
        said, complained = _text(out.fileno()), _text(err.fileno())
    return Ended(child.returncode, said, complained, tuple(calls))


def _text(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 24, 0).decode("utf-8", "replace")


class _Supervisor:
    def __init__(self, listener: int, pid: int, root: str, at: Callable[[Call], int | str | None]) -> None:
        self._listener = listener
        self._pid = pid
        self._root = root
        self._at = at
        self._is_over = False
        numbers = _NUMBERS[platform.machine()]
        self._names = {number: name for name, number in numbers.items()}

    def supervise(self) -> list[Call]:
        calls: list[Call] = []
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        deadline = time.monotonic() + processes.PATIENCE
        while True:
            events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            assert events, f"the program did not end; its calls: {calls[-3:]}"
            if not events[0][1] & select.POLLIN:
                return calls
            notice = self._received()
            if notice:
                self._answer(notice, calls)

    def _answer(self, notice: _Notice, calls: list[Call]) -> None:
        if self._is_over:
            os.kill(notice.pid, signal.SIGKILL)
            return
        path = _path(notice)
        if not f"{path}/".startswith(f"{self._root}/"):
            self._send(notice)
            return
        call = Call(len(calls) + 1, notice.pid, notice.name, path[len(self._root) :])
        calls.append(call)
        wish = self._at(call)
        if wish == KILL_ALL:
            self._end_all(notice.pid)
        elif wish == KILL_CALLER:
            os.kill(notice.pid, signal.SIGKILL)
        else:
            self._send(notice, error=wish if isinstance(wish, int) else 0)

    def _end_all(self, caller: int) -> None:
        """Nobody can change anything meanwhile: whoever would is held until it is killed too."""
        self._is_over = True
        for pid in {*processes.descendants(self._pid), self._pid, caller}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # noqa: PERF203 - they are few
                continue

    def _received(self) -> _Notice | None:
        buffer = bytearray(80)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None  # it died meanwhile
            raise
        cookie, pid, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", buffer)
        return _Notice(cookie, pid, self._names[number], tuple(arguments))

    def _send(self, notice: _Notice, error: int = 0) -> None:
        answer = struct.pack("=QqiI", notice.cookie, 0, -error, 0 if error else _GO_ON)
        try:
            fcntl.ioctl(self._listener, _SEND, bytearray(answer))
        except FileNotFoundError:
            return  # it died meanwhile


# --- what a call is about -------------------------------------------------------------------------


def _path(notice: _Notice) -> str:
    """The path that the call is about, as the caller would open it; nothing where that cannot be told."""
    name, arguments = notice.name, notice.arguments
    try:
        if name in _PATHS:
            return _joined(notice.pid, _AT_FDCWD, arguments[_BY_PATH.get(name, 0)])
        if name in _DIRECTORIES:
            which = _AT.get(name, 0)
            return _joined(notice.pid, _signed(arguments[which]), arguments[which + 1])
        return _descriptor(notice.pid, arguments[_DESCRIPTOR.get(name, 0)])
    except OSError:
        return ""


def _joined(pid: int, directory: int, pointer: int) -> str:
    if pointer == 0:  # utimensat(2) of a descriptor
        return _descriptor(pid, directory)
    path = _string(pid, pointer)
    above = os.readlink(f"/proc/{pid}/cwd") if directory == _AT_FDCWD else _descriptor(pid, directory)
    return os.path.normpath(f"{above}/{path}" if not path.startswith("/") else path)


def _descriptor(pid: int, number: int) -> str:
    return os.readlink(f"/proc/{pid}/fd/{number}")


def _string(pid: int, pointer: int) -> str:
    """A text out of the caller's memory; it may end just before a page that is not there."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        first = os.pread(memory, 4096 - pointer % 4096, pointer)
        whole = first if b"\0" in first else first + os.pread(memory, 4096, pointer + len(first))
    finally:
        os.close(memory)
    return os.fsdecode(whole.split(b"\0", 1)[0])


def _signed(value: int) -> int:
    return int(ctypes.c_int32(value & 0xFFFFFFFF).value)


# --- the watched program --------------------------------------------------------------------------


def _filter() -> bytes:
    """Notice the calls of the table, let all others pass (seccomp(2): the program is classic BPF)."""
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    numbers = _NUMBERS[platform.machine()]
    program = step(load, 0)
    for name, number in numbers.items():
        if name in _OPENING:
            program += step(equal, number, no=4) + step(load, 16 + 8 * _OPENING[name])
            program += step(any_bit, _CHANGING_FLAGS, no=1) + step(give, _NOTIFY) + step(give, _ALLOW)
        elif name != "seccomp":
            program += step(equal, number, no=1) + step(give, _NOTIFY)
    return program + step(give, _ALLOW)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _watched() -> int:
    """Put this process, and all that it will start, under watch; returns the descriptor to watch it by."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    steps = _filter()
    program = _Program(len(steps) // 8, steps)
    number = _NUMBERS[platform.machine()]["seccomp"]
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # the former since Linux 5.19
        listener: int = libc.syscall(number, 1, flags, ctypes.byref(program))
        if listener >= 0:
            return listener
    raise OSError(ctypes.get_errno(), "seccomp")


def _main(number: str, *argv: str) -> None:
    with socket.socket(fileno=int(number)) as supervisor:
        try:
            listener = _watched()
        except OSError:
            sys.exit(UNWATCHABLE)
        socket.send_fds(supervisor, [b"x"], [listener])
    os.close(listener)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    _main(*sys.argv[1:])
