"""Detaching from the terminal, for hosts without systemd: python-daemon, with a PID file of our own."""

from __future__ import annotations

import fcntl
import importlib
import os
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from firstkey import reasons
from firstkey.reasons import FirstkeyError, UsageError
from firstkey.system.tree import Tree

PID_FILE = "/run/firstkey/firstkey.pid"
DESCRIPTORS = 4096


@contextmanager
def detached(*, pid_file: str) -> Iterator[None]:
    """Run the block as a daemon: own session, umask 077, `/`, no terminal; the caller's process ends.

    Raises FirstkeyError before anything is detached, so that its caller sees why: python-daemon
    is missing (`dependency-missing`), another daemon runs (`already-running`), the PID file is not to
    be trusted. Standard error stays where it is redirected to a file. SIGTERM raises SystemExit.

    The lock of the PID file says whether the daemon runs; the number in it is for people. The lock (flock(2))
    belongs to the open file, so it passes to the daemon through the forks and goes with it, however it ends.
    """
    daemon = _python_daemon()
    lock = _locked(pid_file)
    context = daemon.DaemonContext(
        detach_process=True,
        umask=0o077,
        files_preserve=_own_descriptors(),
        stderr=sys.stderr if stat.S_ISREG(os.fstat(2).st_mode) else None,
    )
    with context:
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(pid_file)


def _locked(path: str) -> int:
    """Open and lock the file; only its owner can open it, and so keep the daemon from starting (flock(2))."""
    with Tree("/") as host, host.opened(os.path.dirname(path)) as directory:
        status = os.fstat(directory.fd)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            message = f"the directory of the PID file {path} can be written by others"
            raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
        lock = directory.open_to_lock(os.path.basename(path))
    number = os.pread(lock, 20, 0).decode("ascii", "replace").partition("\n")[0].strip("\0")
    if number and not number.isdecimal():
        raise UsageError(f"--pid-file {path!a}: that file is not a PID file, and would be overwritten")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"firstkey runs as a daemon already ({path} is locked, process {number})"
        raise FirstkeyError(message, reason=reasons.ALREADY_RUNNING) from error
    return lock


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
        with suppress(OSError):
            if not os.get_inheritable(descriptor):
                own.append(descriptor)
    return own
