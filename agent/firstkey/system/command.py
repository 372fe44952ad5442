"""The one door to other programs: argv lists, a cleaned environment, no stdin of the caller's, a time limit.

`subprocess` is imported on first use: a run with nothing to do starts no program and need not pay for it.
A process in the box starts none: what it wants to know, it asks of the process that watches it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import contextmanager, suppress

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError
from firstkey.system.files import Looks
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from firstkey.system.files import Directory

ask_watcher: Callable[..., Any] | None = None
"""In a box, asks a question (about programs, accounts, the metadata service) by its name, with plain values.

It returns the answer or raises FirstkeyError. None where there is no box.
"""

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SECONDS = 20.0
"""How long a program may take unless the caller says otherwise; useradd on a slow disk is the longest."""
LIMIT = 1024 * 1024
"""How many bytes a program may print: `sshd -T` prints a few thousand."""
TICK = 0.001
"""Seconds between two looks whether a program has ended."""
SCRATCH_PLACES = ("/run", "/tmp")  # noqa: S108 - private names in it, which no other user can exchange
"""Where a scratch directory may be: root's is in memory, and in no other user's reach."""


class Outcome(NamedTuple):
    """How a program ended: its exit status (negative: the signal), and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """The last thing it said on stderr (or stdout), on one line, for a message."""
        last = (self.stderr or self.stdout).decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
        return last[:300] or f"exit status {self.status}"


def search_path() -> list[str]:
    """The caller's PATH, then the places where system programs are, which a user's PATH may lack."""
    own = [part for part in os.environ.get("PATH", "").split(":") if part.startswith("/")]
    return own + [part for part in SYSTEM_PATH if part not in own]


def find(program: str) -> str | None:
    """The full path of `program`, or None where it is not installed."""
    if ask_watcher:
        there: str | None = ask_watcher("find", program)
        return there
    for directory in search_path():
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def run(argv: Sequence[str], *, stdin: bytes = b"", seconds: float = SECONDS) -> Outcome:
    """Run a program to its end. A failing one is an `Outcome`, not an error; one that cannot start is.

    It ends with this call, however that ends: an exception (a signal to stop) kills it.
    """
    if ask_watcher:
        return Outcome(*ask_watcher("program", list(argv), {}, stdin))
    return start(argv, stdin=stdin).finish(seconds=seconds)


def start(argv: Sequence[str], *, stdin: bytes = b"", before: Callable[[], None] | None = None) -> Process:
    """Start a program without waiting for it. The new process does `before` just before it becomes it."""
    import subprocess

    # A private file in memory: unlike a pipe it can be read twice, as ssh-keygen does.
    try:
        with open(os.memfd_create("stdin"), "w+b") as source:
            os.fchmod(source.fileno(), 0o600)
            source.write(stdin)
            source.seek(0)
            child = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": ":".join(search_path()), "LC_ALL": "C.UTF-8", "TZ": "UTC0"},
                cwd="/",
                # Without the caller's terminal it can ask no person, and what it starts itself ends with it.
                start_new_session=True,
                preexec_fn=before,  # noqa: PLW1509 - there are no threads
            )
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # a NUL in an argument; in `before`
        message = f"cannot run {' '.join(argv)!r}: {error}"
        raise FirstkeyError(message, reason=reasons.DEPENDENCY_MISSING) from error
    return Process(" ".join(argv), child)


class Process:
    """A started program; who started it has to call `finish` or `kill`."""

    def __init__(self, name: str, child: subprocess.Popen[bytes]) -> None:
        self._name = name
        self._child = child
        self._pipes = list(filter(None, (child.stdout, child.stderr)))

    @property
    def end(self) -> os.waitid_result | None:
        """How it ended, or None. It is only looked at: as long as it is not collected, its number, which is
        that of its process group too, is no other's.
        """
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def finish(self, *, seconds: float = SECONDS, limit: int = LIMIT) -> Outcome:
        """Wait for the end, `seconds` at most; then it is killed and FirstkeyError(timed-out) raised.

        What it started in the background ends with it, and is not waited for. More than `limit` bytes of
        output are FirstkeyError(internal-error).
        """
        deadline = time.monotonic() + seconds
        received = {pipe.fileno(): bytearray() for pipe in self._pipes}
        poll = select.poll()
        for pipe in received:
            poll.register(pipe, select.POLLIN)
        try:
            while True:
                # Looked at first: what it printed before its end is in the pipes by then.
                end = self.end
                left = deadline - time.monotonic()
                ready = poll.poll(max(0.0, min(TICK, left)) * 1000 if end is None else 0)
                if end and not ready:
                    status = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
                    return Outcome(status, *map(bytes, received.values()))
                if end is None and left <= 0:
                    message = f"{self._name} did not end within {seconds:g} s"
                    raise FirstkeyError(message, reason=reasons.TIMED_OUT)
                for pipe, _ in ready:
                    part = os.read(pipe, 65536)
                    received[pipe] += part
                    if len(received[pipe]) > limit:
                        message = f"{self._name} printed more than {limit} bytes and was ended"
                        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR)
                    if not part:
                        poll.unregister(pipe)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it, and what it started, at once; harmless where it has ended already."""
        if self._child.returncode is None:
            with suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)
            # One that is stuck in the kernel is left to init; there is no more to do.
            with suppress(Exception):
                self._child.wait(timeout=1)
        for pipe in self._pipes:
            pipe.close()


# --- what programs need, or are asked --------------------------------------------------------------


@contextmanager
def scratch_directory() -> Iterator[Directory]:
    """Make a private directory of the host for one question to a program that takes only paths.

    It is removed afterwards, with all that is in it. Raises FirstkeyError where none can be made.
    """
    place = next((path for path in SCRATCH_PLACES if os.access(path, os.W_OK)), SCRATCH_PLACES[-1])
    with (
        Tree("/") as host,
        host.opened(place) as above,
        above.temporary("scratch", directory=True) as name,
        above.make(name, Looks(0o700, durable=False)) as made,
    ):
        yield made


def selinux_label(tree: Tree, path: str, kind: str) -> str | None:
    """The label that the policy has for `path` (`kind`: "file" or "dir"), or None: no SELinux, no answer.

    It is put on the open file before that gets its name: so there is no moment with a wrong one, and no path
    that a user could exchange. Without one, a file has what its directory hands down, and no login is lost.
    selinux(8): the policy is loaded where /sys/fs/selinux/enforce exists.
    """
    program = find("matchpathcon") if tree.exists("/sys/fs/selinux/enforce") else None
    if program is None:
        return None
    with suppress(FirstkeyError):
        outcome = run([program, "-n", "-m", kind, path])
        label = outcome.stdout.decode("ascii", "replace").strip()
        return label if outcome.status == 0 and label.count(":") >= 2 else None
    return None
