"""A head start for the RSA host key of a first boot: begun before the rest is there, and joined later.

Making it takes longer than all else that a first boot has to do, and sshd waits for it. So a unit of its own
runs this file as a program (firstkey-head-start.service), earlier than the daemon can begin: while the local
file systems are still being set up, Python has nothing else to load, and no sandbox is built. Whether the key
is wanted, and where, is the daemon's to say; one that it does not want is removed and was never seen.

How long an RSA key takes is a matter of chance, so several are begun, and the first is taken.
"""

from __future__ import annotations

import os

DIRECTORY = "/run/firstkey/head-start"
"""For root alone, in memory, and gone with the boot; the unit's RuntimeDirectory=."""
FIFO = f"{DIRECTORY}/at-work"
"""Held open while the key is being made, so that its end can be waited for."""
KEY = "key"
PROGRAM = "/usr/bin/ssh-keygen"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC0"}
MOST_RACERS = 4
NICE = -20
"""sshd waits for the key longer than for anything else, so the key goes before it (setpriority(2))."""
LONGEST_WAIT = 0.5
SIGPIPE, SIGKILL = 13, 9  # signal(7); the module would cost more than it is worth here


def _racers_here() -> int:
    """How many RSA keys are begun for one that is wanted: as many as can be made at the same time."""
    return min(len(os.sched_getaffinity(0)), MOST_RACERS)


def _take_precedence() -> None:
    """Let the first racer have a processor for itself, whatever the rest of the boot does meanwhile.

    Where the kernel groups processes by session, a nice value counts only within the session. The session has
    one of its own (sched(7), "The autogroup feature"), in a file that other kernels lack.
    """
    if os.getsid(0) != os.getpid():
        return  # somebody else's session: systemd gives each service its own
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(NICE))
    except OSError:
        return


def _give_way(pid: int) -> None:
    """Let the process have what nobody else wants of the processors (sched(7): SCHED_IDLE).

    All but the first racer do: a boot has other things to do that take longer the more others are at it.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        return


def comment(hostname: str) -> str:
    """The comment of a new key: root@HOSTNAME, as ssh-keygen -A writes it, or root (hostname(7))."""
    letters = hostname.replace("-", "").replace(".", "")
    is_name = letters.isascii() and letters.isalnum() and hostname[0].isalnum() and hostname[-1].isalnum()
    return f"root@{hostname}" if is_name and len(hostname) <= 64 else "root"


# --- the unit's part ------------------------------------------------------------------------------


def make() -> None:
    """Make a key in DIRECTORY, which is there. Nobody waits for this; what goes wrong is done again later."""
    for name in os.listdir(DIRECTORY):
        os.unlink(f"{DIRECTORY}/{name}")
    os.mkfifo(FIFO, 0o600)
    held = os.open(FIFO, os.O_RDWR | os.O_CLOEXEC)
    names = [f"{KEY}.{number}" for number in range(_racers_here())]
    if len(names) > 1:  # else everybody would have to wait for this, also what waits for the network
        _take_precedence()
    racers = {_started(name): name for name in names}
    for pid in list(racers)[1:]:
        _give_way(pid)
    winner = _first(racers)
    for pid in racers:
        os.kill(pid, SIGKILL)
    if winner:
        # The public half last: where it is, the key is whole.
        os.rename(f"{DIRECTORY}/{winner}", f"{DIRECTORY}/{KEY}")
        os.rename(f"{DIRECTORY}/{winner}.pub", f"{DIRECTORY}/{KEY}.pub")
    os.close(held)  # at once: the daemon waits for it, and Python takes its time to end


def _first(racers: dict[int, str]) -> str | None:
    """The name of the first key that is made; who has ended is no racer any more."""
    while racers:
        pid, status = os.wait()
        name = racers.pop(pid)
        if status == 0:
            return name
    return None


def _started(name: str) -> int:
    argv = [PROGRAM, "-q", "-t", "rsa", "-N", "", "-C", comment(_hostname()), "-f", f"{DIRECTORY}/{name}"]
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    return os.posix_spawn(PROGRAM, argv, ENVIRONMENT, file_actions=quiet, setsigdef=[SIGPIPE])


def _hostname() -> str:
    try:
        with open("/etc/hostname", encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


# --- the daemon's part ----------------------------------------------------------------------------


class HeadStart:
    """A key that was begun before, by somebody who may still be at work on it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def wait(self, *, seconds: float) -> None:
        """Wait until nobody is at work on it any more, `seconds` at most."""
        import select  # the unit's part has no use for it

        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        # In parts: a signal that comes just before one wait begins is seen only after it.
        while seconds > 0 and not poll.poll(min(seconds, LONGEST_WAIT) * 1000):
            seconds -= LONGEST_WAIT
        self.kill()

    def kill(self) -> None:
        """Have no more to do with it. Whoever is still at work soon finds its directory gone (`remove`)."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def join() -> HeadStart | None:
    """What was begun before, and is not over without a key; None where there is nothing."""
    try:
        descriptor = os.open(FIFO, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if not _is_held(descriptor):
        # A pipe that nobody holds when it is opened never reports an end (fifo(7)); this is ready always.
        os.close(descriptor)
        if not os.path.exists(f"{DIRECTORY}/{KEY}.pub"):
            return None
        descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return HeadStart(descriptor)


def remove() -> None:
    """Leave nothing of it behind: the key is in use by now, or nobody wants it."""
    for name in (FIFO, *_made()):
        try:
            os.unlink(name)
        except OSError:  # noqa: PERF203 - whoever makes it may be renaming it at this moment
            continue
    try:
        os.rmdir(DIRECTORY)
    except OSError:
        return


def _made() -> list[str]:
    try:
        return [f"{DIRECTORY}/{name}" for name in os.listdir(DIRECTORY)]
    except OSError:
        return []


def _is_held(descriptor: int) -> bool:
    try:
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True


if __name__ == "__main__":
    make()
