"""Detaching from the terminal, for hosts without systemd: python-daemon, with a PID file of our own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import resource
import stat
import sys
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

DESCRIPTORS = 4096
UMASK = 0o077
PID_FILE_MODE = 0o600
"""Whoever can open the file can lock it, and so keep the daemon from starting (flock(2))."""


class PidFile:
    """A PID file whose lock says whether the daemon runs; the number in it is for people.

    The lock (flock(2)) belongs to the open file, so it passes to the daemon through the forks and
    goes with it, whatever kills it: a stale number means nothing. Entering writes the number of the
    process that enters; leaving removes the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._directory = -1
        self._file = -1
        self._daemon = -1

    def lock(self) -> None:
        """Take the lock, or raise FirstkeyError: somebody else has it, or the path is not to be trusted."""
        try:
            self._take()
        except OSError as error:
            refusal = self._refusal(error)
            self._close()
            raise refusal from error
        except FirstkeyError:
            self._close()
            raise

    def __enter__(self) -> None:
        self._daemon = os.getpid()
        os.pwrite(self._file, b"%d\n" % self._daemon, 0)

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._daemon:
            return  # A child of the daemon ends, not the daemon.
        name = os.path.basename(self.path)
        if self._stands(name):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
        self._close()

    def _take(self) -> None:
        directory, name = os.path.split(self.path)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._require_own_directory()
        while not self._locked(name):
            os.close(self._file)  # Its last owner removed it between our opening and our locking.
            self._file = -1
        os.ftruncate(self._file, 0)

    def _close(self) -> None:
        for descriptor in (self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._directory = -1

    def _require_own_directory(self) -> None:
        status = os.fstat(self._directory)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise FirstkeyError(
                f"the directory of the PID file {self.path} can be written by others",
                reason=reasons.UNSAFE_DIRECTORY,
            )

    def _locked(self, name: str) -> bool:
        """Open and lock the file, and tell whether it still stands under its name then."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(name, flags, PID_FILE_MODE, dir_fd=self._directory)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise FirstkeyError(f"{self.path} is not a regular file", reason=reasons.NOT_A_REGULAR_FILE)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(self._file, PID_FILE_MODE)
        return self._stands(name)

    def _stands(self, name: str) -> bool:
        """Whether the file that we hold is the one under that name."""
        try:
            standing = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(standing, os.fstat(self._file))

    def _refusal(self, error: OSError) -> FirstkeyError:
        if error.errno == errno.EWOULDBLOCK:
            message = f"firstkey runs as a daemon already ({self.path} is locked{self._owner()})"
            return FirstkeyError(message, reason=reasons.ALREADY_RUNNING)
        reason = _REASONS.get(error.errno or 0, reasons.IO_ERROR)
        return FirstkeyError(f"cannot lock the PID file {self.path}: {error.strerror}", reason=reason)

    def _owner(self) -> str:
        number = os.pread(self._file, 20, 0).strip()
        return f", process {number.decode()}" if number.isdigit() else ""


_REASONS = {
    errno.ELOOP: reasons.SYMLINK_REFUSED,
    errno.EISDIR: reasons.NOT_A_REGULAR_FILE,
    errno.ENXIO: reasons.NOT_A_REGULAR_FILE,
    errno.ENOTDIR: reasons.NOT_A_DIRECTORY,
    errno.ENOENT: reasons.NOT_A_DIRECTORY,
    errno.EACCES: reasons.PERMISSION_DENIED,
    errno.EROFS: reasons.READ_ONLY,
    errno.ENOSPC: reasons.NO_SPACE,
}


@contextlib.contextmanager
def detached(*, pid_file: str) -> Iterator[None]:
    """Run the block as a daemon: own session, umask 077, `/`, no terminal; the caller's process ends.

    Raises FirstkeyError before anything is detached, so that whoever started it sees why: python-daemon
    is missing (`dependency-missing`), another daemon runs (`already-running`), the PID file is not to
    be trusted. Standard error stays where it is redirected to a file. SIGTERM raises SystemExit.
    """
    _open_missing_streams()
    daemon = _python_daemon()
    lock = PidFile(pid_file)
    lock.lock()
    _flush()
    context = daemon.DaemonContext(
        detach_process=True,
        umask=UMASK,
        pidfile=lock,
        files_preserve=_own_descriptors(),
        stderr=sys.stderr if _is_file(sys.stderr.fileno()) else None,
    )
    with context:
        yield


def _python_daemon() -> ModuleType:
    # python-daemon 2.3 makes a set of every descriptor that the hard limit allows as soon as it is
    # imported: a gigabyte and more where the limit is high, as in containers.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, DESCRIPTORS), DESCRIPTORS))
    try:
        return importlib.import_module("daemon")
    except ImportError as error:
        raise FirstkeyError(
            "detaching needs the Python package python-daemon",
            reason=reasons.DEPENDENCY_MISSING,
            hint="Install it: apt-get install python3-daemon, or dnf install python3-daemon",
        ) from error


def _own_descriptors() -> list[int]:
    """What this process opened itself, libraries included: Python and libsystemd mark it close-on-exec.

    What was inherited cannot carry that mark, and is closed.
    """
    own = []
    for descriptor in range(DESCRIPTORS):
        with contextlib.suppress(OSError):
            if not os.get_inheritable(descriptor):
                own.append(descriptor)
    return own


def _open_missing_streams() -> None:
    """Put the null device where a standard stream was closed: the PID file must not land there."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="ascii"))  # noqa: SIM115  it stays open


def _flush() -> None:
    # The parents end through os._exit, which drops what is still buffered.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
