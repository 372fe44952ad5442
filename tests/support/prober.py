"""A process that goes into the box and then tries everything that the box is there to keep it from.

Started as a program: FLAVOUR ROOT PORT SOCKET AGENT. It prints what became of each deed, as JSON. With
"no box" before the flavour it stays outside, and does what is harmless there.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - looking up a name would import it late
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

FLAVOURS = ("root", "root-without-mounts", "user")
NOBODY = 65534
CALLS = (
    "ptrace", "process_vm_readv", "process_vm_writev", "memfd_create", "open_by_handle_at", "prctl", "ioctl",
    "splice", "sendfile", "personality", "shmget", "unshare", "setns", "umount2", "fchmod", "fchown",
    "ftruncate", "fsetxattr", "setpriority", "inotify_init1",
)  # fmt: skip
"""Of the C library: what a box keeps from its process before the kernel looks at what is asked for."""
NEWER_CALLS = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
    "landlock_create_ruleset": 444,
}  # fmt: skip
"""The same without a function there; these have one number on all architectures (asm-generic/unistd.h)."""
HARMLESS = ("write", "create", "chmod", "host file", "host file by a link", "tcp", "unix socket", "fork")
"""What may be tried without a box, where it works: see "no box" below."""


def become(flavour: str) -> None:
    """Take the rights of that flavour."""
    if flavour.endswith("user"):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def fork_without_end() -> int:
    """How many children there were when the kernel said no."""
    number = 0
    for number in range(200):  # noqa: B007 - it is returned
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return number


def connect_tcp(port: int) -> None:
    """To a service of the host's."""
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def send_udp(port: int) -> None:
    """A packet that need not be taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", port))


def connect_unix(path: str) -> None:
    """To a socket that has a name, in a file system or in none."""
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)


def call(name: str) -> None:
    """With arguments that mean nothing, so that it does none the less nothing where no filter refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    function, first = (
        (libc.syscall, [NEWER_CALLS[name]]) if name in NEWER_CALLS else (getattr(libc, name), [])
    )
    function(*map(ctypes.c_long, (*first, *[-1] * 6)))
    if ctypes.get_errno() in (errno.EACCES, errno.ENOSYS):
        raise PermissionError


def work_without_end() -> None:
    """How much processor time this process may still take."""
    if resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY:
        raise ValueError


def deeds(tree: str, port: int, unix: str) -> dict[str, Callable[[], object]]:
    """By name. `tree` is where the tree is for this process; in it are a file, a link out, and a socket."""
    file = f"{tree}/file"
    return {
        "list": lambda: os.listdir(tree),
        "read": lambda: os.close(os.open(file, os.O_RDONLY)),
        "write": lambda: os.open(file, os.O_WRONLY),
        "append": lambda: os.open(file, os.O_RDWR | os.O_APPEND),
        "truncate": lambda: os.truncate(file, 0),
        "truncate by opening": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "create to read": lambda: os.open(f"{tree}/new", os.O_CREAT | os.O_RDONLY, 0o600),
        "create": lambda: os.open(f"{tree}/new", os.O_CREAT | os.O_WRONLY, 0o600),
        "unnamed file": lambda: os.open(tree, os.O_TMPFILE | os.O_RDWR, 0o600),
        "mkdir": lambda: os.mkdir(f"{tree}/new"),
        "mkfifo": lambda: os.mkfifo(f"{tree}/new"),
        "link": lambda: os.link(file, f"{tree}/new"),
        "symlink": lambda: os.symlink("x", f"{tree}/new"),
        "rename": lambda: os.rename(file, f"{tree}/new"),
        "unlink": lambda: os.unlink(file),
        "chmod": lambda: os.chmod(file, 0o777),
        "chown": lambda: os.chown(file, 1, 1),
        "utime": lambda: os.utime(file, (1, 1)),
        "setxattr": lambda: os.setxattr(file, "user.x", b"x"),
        "device": lambda: os.open(f"{tree}/zero", os.O_RDONLY),
        "file by a link": lambda: os.open(f"{tree}/again", os.O_RDONLY),
        "host file": lambda: os.open("/etc/hostname", os.O_RDONLY),
        "host file by ..": lambda: os.open(f"{tree}/../../../../../../../../etc/hostname", os.O_RDONLY),
        "host file by a link": lambda: os.open(f"{tree}/out", os.O_RDONLY),
        "host file in /proc": lambda: os.open("/proc/1/root/etc/hostname", os.O_RDONLY),
        "host directory": lambda: os.listdir("/usr"),
        "tcp": lambda: connect_tcp(port),
        "udp": lambda: send_udp(port),
        "unix socket": lambda: connect_unix(unix),
        "unix socket in the tree": lambda: connect_unix(f"{tree}/socket"),
        "unix socket without a file": lambda: connect_unix(f"\0{unix}"),
        "name": lambda: socket.getaddrinfo("some.name.invalid", 22),
        "fork": fork_without_end,
        "program": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(os.getppid(), signal.SIGCONT),
        "kill by a descriptor": lambda: fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid()),
        # Asked for and not filled: a machine need not have it.
        "more memory": lambda: mmap.mmap(-1, 4 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close(),
        "work without end": work_without_end,
        "higher limits": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)),
        "mount": lambda: mount(tree),
        "another user": lambda: os.setuid(1),
        "chroot": lambda: os.chroot(tree),
        **{f"call {name}": partial(call, name) for name in (*CALLS, *NEWER_CALLS)},
    }


def mount(tree: str) -> None:
    """Put a file system on the tree."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"x", tree.encode(), b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")


def attempt(deed: Callable[[], object]) -> str:
    """Its name where it worked, else what kept it from that."""
    try:
        deed()
    except MemoryError:
        return "MemoryError"
    except (OSError, ValueError) as error:
        return type(error).__name__
    return "DONE"


def main(flavour: str, root: str, port: str, unix: str, agent: str) -> None:
    """Go in, and try."""
    sys.path.insert(0, agent)
    from firstkey.system import box

    kernel = box.Kernel()
    become(flavour)
    if flavour.startswith("no box"):
        walls = box.Walls(is_alone=False, missing=())
    elif flavour == "seccomp-alone":
        kernel._only_looking()
        walls = box.Walls(is_alone=False, missing=())
    else:
        walls = kernel.shut(root)
    tree = "/" if walls.is_alone else root
    tried = {
        name: attempt(deed)
        for name, deed in deeds(tree, int(port), unix).items()
        if name in HARMLESS or not flavour.startswith("no box")
    }
    print(json.dumps({"alone": walls.is_alone, "missing": walls.missing, "tried": tried}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
