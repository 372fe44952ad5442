"""The one door to other programs: argv lists, a cleaned environment, no stdin of the caller's, a time limit.

`subprocess` is imported on first use: a run with nothing to do starts no program and need not pay for it.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from firstkey import reasons
from firstkey.errors import FirstkeyError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SECONDS = 20.0
"""How long a program may take unless the caller says otherwise; useradd on a slow disk is the longest."""


class Outcome(NamedTuple):
    """How a program ended: its exit status (negative: the signal), and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """The last thing it said on stderr (or stdout), on one line, for a message."""
        lines = (self.stderr or self.stdout).decode("utf-8", "replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1][:300] if spoken else f"exit status {self.status}"


class Rights(NamedTuple):
    """Whose rights a program gets: all of them and no others."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def search_path() -> list[str]:
    """The caller's PATH, then the places where system programs are, which a user's PATH may lack."""
    own = [part for part in os.environ.get("PATH", "").split(":") if part.startswith("/")]
    return own + [part for part in SYSTEM_PATH if part not in own]


def find(program: str) -> str | None:
    """The full path of `program`, or None where it is not installed."""
    for directory in search_path():
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def run(
    argv: Sequence[str], *, stdin: bytes = b"", seconds: float = SECONDS, rights: Rights | None = None
) -> Outcome:
    """Run a program to its end. A failing one is an `Outcome`, not an error; one that cannot start is.

    It ends with this call, however that ends: an exception (a signal to stop) kills it.
    """
    return start(argv, stdin=stdin, rights=rights).finish(seconds=seconds)


def start(argv: Sequence[str], *, stdin: bytes = b"", rights: Rights | None = None) -> Process:
    """Start a program without waiting for it."""
    import subprocess

    try:
        with _memory(stdin) as source:
            child = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": ":".join(search_path()), "LC_ALL": "C.UTF-8", "TZ": "UTC0"},
                cwd="/",
                # Without the caller's terminal it can ask nobody, and what it starts itself ends with it.
                start_new_session=True,
                user=rights.uid if rights else None,
                group=rights.gid if rights else None,
                extra_groups=rights.groups if rights else None,
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        message = f"cannot run {' '.join(argv)!r}: {error}"
        raise FirstkeyError(message, reason=reasons.DEPENDENCY_MISSING) from error
    return Process(tuple(argv), child)


@contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """A descriptor of a private file in memory: unlike a pipe it can be read twice, as ssh-keygen does."""
    fd = os.memfd_create("stdin")
    try:
        os.fchmod(fd, 0o600)
        while content:
            content = content[os.write(fd, content) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class Process:
    """A started program; whoever started it must end with `finish` or `kill`."""

    def __init__(self, argv: tuple[str, ...], child: subprocess.Popen[bytes]) -> None:
        self.argv = argv
        self._child = child

    def finish(self, *, seconds: float = SECONDS) -> Outcome:
        """Wait for the end, `seconds` at most; then it is killed and FirstkeyError(timed-out) raised."""
        import subprocess

        try:
            stdout, stderr = self._child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            self.kill()
            message = f"{' '.join(self.argv)} did not end within {seconds:g} s"
            raise FirstkeyError(message, reason=reasons.TIMED_OUT) from error
        except BaseException:
            self.kill()
            raise
        return Outcome(self.argv, self._child.returncode, stdout, stderr)

    def kill(self) -> None:
        """End it, and what it started, at once; harmless where it has ended already."""
        if self._child.poll() is None:
            with suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)
            # One that is stuck in the kernel is left to init; there is no more to do.
            with suppress(Exception):
                self._child.wait(timeout=1)
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe:
                with suppress(OSError):
                    pipe.close()
