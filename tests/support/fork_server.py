"""firstkey as a program, a thousand times over: a server that has all its modules loaded forks for each call.

Loading them takes most of a call's time, and the tests make a thousand calls. What is forked is the program
in all else: it has its own arguments, environment, directory and standard descriptors, can be signalled and
killed, runs `firstkey/__main__.py` as `python3 -m firstkey` does, and ends as that ends.

What it cannot show is how Python starts and which modules are loaded when: tests of that start a process of
their own. And the gate (FIRSTKEY_FORK=no) forks nothing: there each call is a fresh start of Python.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO, NamedTuple, TextIO

AGENT = Path(__file__).parents[2] / "agent"
# Read at import, before tests get an environment of their own.
ENABLED = os.environ.get("FIRSTKEY_FORK") != "no"
MOST_BYTES = 1 << 20
CLONE_NEWNS = 0x00020000  # linux/sched.h
AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_")
"""Variables with these prefixes mean something to Python or libc while they start, and only then."""
NO_MATTER = "PYTHONDONTWRITEBYTECODE"  # all modules are loaded


class Done(NamedTuple):
    """How a call ended: its exit status (negative: the signal that ended it), and what it printed."""

    status: int
    out: bytes
    err: bytes


def firstkey(
    *argv: str,
    environ: Mapping[str, str],
    given: bytes | None = None,
    timeout: float = 60,
    memory: int | None = None,
    mounts: str | None = None,
) -> Done:
    """Run the command with that on a pipe or without input, in so many bytes of address space at most.

    With `mounts`, a mount namespace (/proc/PID/ns/mnt), it is run in its root directory.
    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    with TemporaryFile() as out, TemporaryFile() as err:
        if ENABLED and not _matter_at_the_start(environ):
            call = {"argv": [*argv], "environ": dict(environ), "memory": memory, "mounts": mounts}
            reader, writer = os.pipe()
            with open(os.devnull, "rb") as nothing, open(reader, "rb") as source:
                forked = Forked(call, nothing if given is None else source, out, err)
            with suppress(BrokenPipeError), open(writer, "wb") as sink:
                sink.write(given or b"")
            try:
                status = forked.wait(timeout)
            except subprocess.TimeoutExpired:
                forked.kill()
                forked.wait()
                raise
        else:
            inside = [] if mounts is None else ["nsenter", f"--mount={mounts}", "--wd=/"]
            limited = [] if memory is None else ["prlimit", f"--as={memory}"]
            status = subprocess.run(
                [*inside, *limited, sys.executable, "-m", "firstkey", *argv],
                stdin=subprocess.DEVNULL if given is None else None, input=given,
                stdout=out, stderr=err, check=False, timeout=timeout, env=environ,
            ).returncode  # fmt: skip
        return Done(status, _content(out), _content(err))


def start(
    *argv: str, environ: Mapping[str, str], out: BinaryIO, err: BinaryIO | None = None
) -> subprocess.Popen[bytes] | Forked:
    """Start the command without any input; all that it says goes to `out`, or what it complains of to `err`.

    Whoever starts it ends it.
    """
    if ENABLED and not _matter_at_the_start(environ):
        call = {"argv": [*argv], "environ": dict(environ), "memory": None, "mounts": None}
        with open(os.devnull, "rb") as nothing:
            return Forked(call, nothing, out, err or out)
    return subprocess.Popen(
        [sys.executable, "-m", "firstkey", *argv],
        stdin=subprocess.DEVNULL, stdout=out, stderr=err or out, env=environ,
    )  # fmt: skip


def _matter_at_the_start(environ: Mapping[str, str]) -> bool:
    """Whether one of the variables is other than the server was started with."""
    names = {name for name in {*environ, *os.environ} if name.startswith(AT_THE_START)} - {NO_MATTER}
    usual = _environment()
    return any(environ.get(name, usual.get(name)) != usual.get(name) for name in names)


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


# --- whoever calls --------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(AGENT)}


@cache
def _server() -> socket.socket:
    """Where calls are sent to. The server ends when this process does, which has the other end alone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_BYTES)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=_environment(),
        )  # fmt: skip
    atexit.register(server.wait)
    atexit.register(ours.close)  # the last that was registered comes first
    return ours


class Forked:
    """A call that goes on, with as much of subprocess.Popen as its callers use."""

    def __init__(self, call: Mapping[str, object], *standard: BinaryIO) -> None:
        whole = json.dumps({**call, "directory": os.getcwd()})
        self._answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptors = [theirs.fileno(), *(file.fileno() for file in standard)]
            socket.send_fds(_server(), [whole.encode("utf-8", "surrogateescape")], descriptors)
        self.args = call["argv"]
        self.pid = int(self._answer.recv(64))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._answer], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["firstkey", str(self.args)], timeout or 0)
            self.returncode = int(self._answer.recv(64))
            self._answer.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, or None as long as it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


# --- the server -----------------------------------------------------------------------------------


def _load() -> None:
    """Load everything that a call may use, in a box too."""
    import firstkey
    from firstkey.reasons import FirstkeyError
    from firstkey.system import boxed, command, sshd

    for name in (
        "mmap",
        "requests",
        *(found.name for found in pkgutil.walk_packages(firstkey.__path__, "firstkey.")),
    ):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    with suppress(FirstkeyError):
        sshd.asked([], lambda argv, stdin: command.run(argv, stdin=stdin))  # an older one is remembered
    boxed._load()
    boxed._load = lambda: None  # each call would look for all of it again, which takes half of its time
    gc.collect()
    gc.freeze()


def _serve(requests: socket.socket) -> None:
    """Fork for each call; returns in the process that is to be the program, and only there."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    going: dict[int, tuple[int, int]] = {}
    """By the descriptor that tells of its end (pidfd_open(2)): the process, and where its caller listens."""
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in going:
                poll.unregister(descriptor)
                _tell_end(descriptor, *going.pop(descriptor))
                continue
            call, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 4)
            if not call:
                os._exit(0)
            answer, *standard = descriptors
            pid = os.fork()
            if pid == 0:
                requests.close()
                for other in (answer, *going, *(listener for _, listener in going.values())):
                    os.close(other)
                return _become(json.loads(call.decode("utf-8", "surrogateescape")), standard)
            for given in standard:
                os.close(given)
            end = os.pidfd_open(pid)
            going[end] = pid, answer
            poll.register(end, select.POLLIN)
            _show(answer, pid)


def _tell_end(descriptor: int, pid: int, answer: int) -> None:
    """Collect a program that has ended, and tell the caller its exit status."""
    os.close(descriptor)
    _show(answer, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(answer)


def _show(answer: int, number: int) -> None:
    """A number and a line feed, unless whoever called gave up waiting."""
    with suppress(BrokenPipeError):
        os.write(answer, b"%d\n" % number)


def _become(call: dict[str, object], standard: list[int]) -> None:
    """Look like a process that was just started with these arguments and descriptors."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):  # whether one can be sought, say, was known of the server's
        setattr(sys, name, _opened(getattr(sys, name)))
    environ = call["environ"]
    assert isinstance(environ, dict)
    os.environ.clear()
    os.environ.update(environ)
    directory, argv = str(call["directory"]), call["argv"]
    assert isinstance(argv, list)
    if mounts := call["mounts"]:
        with open(str(mounts), "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), f"the mounts of {mounts} cannot be entered")
        directory = "/"
    os.chdir(directory)
    if memory := call["memory"]:
        assert isinstance(memory, int)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.path[0] = directory
    sys.argv = ["firstkey", *argv]


def _opened(before: TextIO) -> IO[Any]:
    """Its descriptor as Python opens it at the start."""
    number, mode = before.fileno(), before.mode
    return open(
        number, mode, encoding=before.encoding, errors=before.errors, closefd=False,
        buffering=1 if number == 2 or os.isatty(number) else -1,
    )  # fmt: skip


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    # Below this line there is only the program: what it raises ends it as it would end Python.
    runpy.run_module("firstkey", run_name="__main__", alter_sys=True)
