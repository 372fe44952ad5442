"""The box: what a process gives up before it looks at a tree that firstkey did not make.

A process in it can read the tree, compute, and write to the pipes that it has, and nothing else, even if the
author of the tree took it over. Four walls stand one behind the other, each as far as the kernel, the
caller's rights and the libraries here have it:

- a mount namespace in which the tree is all that there is, without links to follow for the kernel, read-only,
  in a network namespace with nothing in it (root alone: mount_namespaces(7), mount_setattr(2));
- Landlock: no file but the tree's can be opened, and those only to be read (landlock(7));
- no capability but to read and search (capabilities(7): CAP_DAC_READ_SEARCH), and no way to new ones;
- seccomp: of the system calls only those that read, compute and end (seccomp(2), by libseccomp).

A program that has to look (system/inspector.py) is started in a box as well, around the whole system:
it may read and start programs, and gets no socket.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Iterable

from firstkey import NamedTuple

MEMORY = 768 * 1024 * 1024
"""Bytes of address space: an audit of a large image takes some 60 MiB, most of which are libraries."""
SCANNER_MEMORY = 4 * 1024 * 1024 * 1024
"""That of a scanner for secrets: the runtime of Go alone reserves more than one for itself."""
SCANNER_ROOM = 256 * 1024 * 1024
"""Bytes that it may write: its compiled rules, and what it unpacks."""
CPU_SECONDS = 1800
"""The last resort: the watching parent ends what takes too long, and long before."""

# linux/prctl.h, linux/sched.h, linux/mount.h, linux/fcntl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWNET = 0x00020000, 0x08000000, 0x40000000
_NEW_NAMESPACES = (0x02000000, 0x04000000, 0x10000000, 0x20000000, _CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWNET)
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_DETACH_NOT_FOLLOWING = 0x2 | 0x8
_OPEN_TREE_CLONE, _MOVE_MOUNT_TO_EMPTY_PATH, _MOVE_MOUNT_FROM_EMPTY_PATH = 1, 0x40, 0x04
_READ_ONLY, _NO_SET_ID, _NO_DEVICES, _NO_PROGRAMS, _NO_LINKS = 0x1, 0x2, 0x4, 0x8, 0x200000

# These have one number on all architectures (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446

CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

# linux/landlock.h. How many of the rights each version of the interface knows.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1, 2, 4, 8
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_RULE_PATH_BENEATH = 1
_VERSION = 1

_SECCOMP_ALLOW, _SECCOMP_ERRNO, _SECCOMP_KILL = 0x7FFF0000, 0x00050000, 0x80000000
_GONE = (2, 22)  # ENOENT, EINVAL: nothing is mounted there
_PRIVSEP_DIRECTORY = "/run/sshd"
_MOUNTS = "/proc/self/ns/mnt"
_ENOSYS = 38
_EACCES = 13  # what Python takes for "this file does not do that", and not for the end of the world
_COMPARE_OTHER, _COMPARE_EQUAL, _COMPARE_MASKED = 1, 4, 7
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)
"F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: none sends a signal."

_LOOKING = (
    "access", "faccessat", "faccessat2", "brk", "chdir", "fchdir", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range",
    "dup", "dup2", "dup3", "exit", "exit_group", "fadvise64", "fadvise64_64", "fgetxattr", "flistxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "futex", "futex_time64", "getcwd", "getdents",
    "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getpid", "getppid", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32",
    "getrlimit", "getrusage", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "lgetxattr",
    "listxattr", "llistxattr", "lseek", "_llseek", "lstat", "lstat64", "madvise", "membarrier", "mincore",
    "mmap", "mmap2", "mprotect", "mremap", "munmap", "nanosleep", "newfstatat", "pipe", "pipe2", "poll",
    "ppoll", "ppoll_time64", "pread64", "preadv", "preadv2", "pselect6", "pselect6_time64", "read",
    "readlink", "readlinkat", "readv", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sched_getaffinity", "sched_yield", "select", "_newselect", "set_robust_list",
    "sigaction", "sigaltstack", "sigprocmask", "sigreturn", "stat", "stat64", "statfs", "statfs64", "statx",
    "sysinfo", "time", "times", "ugetrlimit", "uname", "write", "writev",
)  # fmt: skip
"""All that a boxed process may ask of the kernel; and `open` and `fcntl`, as far as they change nothing."""

_NOT_FOR_PROGRAMS = (
    "socket", "socketpair", "connect", "bind", "ptrace", "process_vm_writev", "process_vm_readv", "kill",
    "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_open",
    "pidfd_getfd", "io_uring_setup", "io_uring_enter", "bpf", "keyctl", "add_key", "request_key",
    "userfaultfd", "perf_event_open", "unshare", "setns", "mount", "move_mount", "open_tree", "fsopen",
    "fsmount", "pivot_root", "chroot",
)  # fmt: skip


SHOWN, HOME = "/run/firstkey-tree", "/run/firstkey-home"
"""Where a scanner finds the tree, and where it may write: in a /run that is its own."""
PROGRAM_PLACES = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/crypto-policies",
    "/etc/group", "/etc/ld.so.cache", "/etc/login.defs", "/etc/nsswitch.conf", "/etc/passwd",
    "/etc/pki", "/etc/selinux", "/etc/sudo.conf",
    "/etc/ssl/openssl.cnf", "/dev/random", "/dev/urandom", "/dev/zero",
    "/nix/store", "/proc/sys",
)  # fmt: skip
"""What a program that looks may open besides its copies: no key, no password and no home of this machine."""


class Walls(NamedTuple):
    """What stands around the process; `missing` says in words what could not be had, and why."""

    is_alone: bool
    """Whether the tree is the root of the process: a path of the tree is a path of the process."""
    missing: tuple[str, ...]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what _pack_ implies; from Python 3.14 on it has to be said
    _fields_ = (("rights", ctypes.c_uint64), ("fd", ctypes.c_int32))


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Kernel:
    """The system calls that no module of Python's has. Made before the box is shut: it loads libraries."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._seccomp = _libseccomp()

    def shut(self, root: str) -> Walls:
        """Leave this process nothing but to look at the tree under `root`, for good."""
        missing: list[str] = []
        is_root = os.geteuid() == 0
        is_alone = is_root and self._try(missing, "a mount namespace", lambda: self._enter(root))
        self._give_up_capabilities()
        # Where the tree is all that there is, a kernel or a container without it leaves three walls.
        self._try([] if is_alone else missing, "Landlock", lambda: self._landlock("/" if is_alone else root))
        limit(fork=False)
        self._try(missing, "seccomp", self._only_looking)
        return Walls(is_alone, tuple(missing))

    def shut_for_program(self, copies: str, program: str) -> None:
        """Leave the program that this process is about to become nothing but to read, and no socket.

        It sees no /run but the directory of its `copies`, and the one that Debian's sshd asks for.
        """
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._try([], "a mount namespace", lambda: self._enter_for_program(copies))
        self._give_up_capabilities()
        self._try([], "Landlock", lambda: self._landlock(copies, os.path.dirname(program)))
        limit(fork=True)
        self._try([], "seccomp", self._no_sockets)

    def shut_for_scanner(self, tree: str, left_out: Iterable[str], program: str) -> None:
        """Leave a scanner nothing but to read the `tree`, and to write into a file system of its own.

        They are at SHOWN and HOME. It does not see what is mounted at `left_out` (host paths in the tree);
        `program` is the directory that it is installed in. Raises OSError where there is no mount namespace.
        """
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._enter_for_program(SHOWN, tree, left_out)
        self._give_up_capabilities()
        self._try([], "Landlock", lambda: self._landlock(SHOWN, program, HOME))
        limit(fork=True, memory=SCANNER_MEMORY, written=SCANNER_ROOM)
        self._try([], "seccomp", lambda: self._no_sockets(but="socketpair"))

    def shut_for_session(
        self,
        uid: int,
        gid: int,
        groups: Iterable[int],
        limits: Callable[[], None],
        chroot: str = "",
    ) -> None:
        """Leave the shell that this process is about to become the user's rights, and those only to read.

        `limits` is called first: what counts sessions looks for them in /run. Raises what that does, and
        OSError where a wall cannot be had: what a user wrote does not run without one.
        """
        limits()
        self._enter_for_program("/dev")
        if chroot:
            os.chroot(chroot)
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of ids takes it back
        self._give_up_capabilities()
        limit(fork=True)
        # What is read-only may still have a device or a pipe that its owner can write to: root's are all.
        if uid == 0:
            self._landlock("/", "/")
        else:
            self._try([], "Landlock", lambda: self._landlock("/", "/"))
        # What it starts stays in its process group, and ends with it.
        self._no_sockets(more=("setsid", "setpgid"))
        self._filter(_SECCOMP_ALLOW, _SECCOMP_KILL, ("kill", "tkill", "tgkill"))

    @staticmethod
    def _try(missing: list[str], what: str, wall: Callable[[], None]) -> bool:
        try:
            wall()
        except (OSError, AttributeError) as error:
            missing.append(f"{what} ({error.strerror if isinstance(error, OSError) else error})")
            return False
        return True

    # --- the tree is all that there is --------------------------------------------------------------

    def _enter(self, root: str) -> None:
        """Let `root` be the root of this process, read-only.

        Of the tree, only the root is resolved by name: in it there may be a mount whose server is gone.
        """
        self._done(self._libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC))
        copy = self._copied(root)
        self._restrict(copy, _NO_DEVICES | _NO_PROGRAMS | _NO_LINKS)
        os.fchdir(copy)
        os.chroot(".")
        os.close(copy)

    def _enter_for_program(self, copies: str, tree: str | None = None, left_out: Iterable[str] = ()) -> None:
        """Let everything be read-only, with a /run of its own; also where the caller's root is a chroot."""
        self._done(self._libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC))
        own, place = self._copied(tree or copies), SHOWN if tree else copies
        here, space = os.open("/", os.O_PATH | os.O_CLOEXEC), os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Entering it again leads to its very root, where its mounts can be made private (setns(2)).
            self._done(self._libc.setns(space, _CLONE_NEWNS))
            self._done(self._libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
            top = os.open("/", os.O_PATH | os.O_CLOEXEC)
            os.fchdir(here)
            flags, options = ctypes.c_ulong(0), b"mode=0755,size=64k"
            self._done(self._libc.mount(b"tmpfs", b"run", b"tmpfs", flags, options))
            for path in (place, HOME, _PRIVSEP_DIRECTORY):
                os.makedirs(path.lstrip("/"), 0o755, exist_ok=True)
            self._restrict(own, _NO_PROGRAMS | (_NO_DEVICES | _NO_LINKS if tree else 0))
            self._put(own, place.lstrip("/"))
            self._restrict(top, 0)
            os.close(top)
            if tree:
                self._furnish([os.path.relpath(path, tree) for path in left_out])
        finally:
            os.fchdir(here)
            os.chroot(".")
            for fd in (here, space, own):
                os.close(fd)

    def _furnish(self, left_out: Iterable[str]) -> None:
        """Take some of its mounts away from the tree that is shown, and give the scanner its home.

        The tree's copy has no peer any more (`_restrict`): what goes from it stays there for all others.
        """
        for path in sorted(left_out, reverse=True):
            inside = os.fsencode(f"{SHOWN}/{path}".lstrip("/"))
            if self._libc.umount2(inside, _DETACH_NOT_FOLLOWING) and ctypes.get_errno() not in _GONE:
                self._done(-1)
        flags = ctypes.c_ulong(_NO_SET_ID | _NO_DEVICES | _NO_PROGRAMS)
        options = f"mode=0700,size={SCANNER_ROOM}".encode()
        self._done(self._libc.mount(b"tmpfs", HOME.lstrip("/").encode(), b"tmpfs", flags, options))

    def _copied(self, path: str) -> int:
        """A copy of what is mounted at and below the path, mounted nowhere yet (open_tree(2))."""
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        copy = self._call(_OPEN_TREE, place, b"", _AT_EMPTY_PATH | _AT_RECURSIVE | _OPEN_TREE_CLONE)
        os.close(place)
        return copy

    def _restrict(self, mount: int, more: int) -> None:
        """Make it read-only, with all below it, and private (mount_setattr(2))."""
        attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | _NO_SET_ID | more, 0, _MS_PRIVATE, 0)
        flags = _AT_EMPTY_PATH | _AT_RECURSIVE
        self._call(_MOUNT_SETATTR, mount, b"", flags, attributes, ctypes.sizeof(attributes))

    def _put(self, copy: int, path: str) -> None:
        """Mount the copy on the directory."""
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        onto = _MOVE_MOUNT_FROM_EMPTY_PATH | _MOVE_MOUNT_TO_EMPTY_PATH
        self._call(_MOVE_MOUNT, copy, b"", place, b"", onto)
        os.close(place)

    # --- Landlock -----------------------------------------------------------------------------------

    def _landlock(self, root: str, programs: str | None = None, home: str | None = None) -> None:
        """Only what is beneath `root` can be opened, and only to be read; and what a program is made of."""
        version = self._call(_CREATE_RULESET, None, 0, _VERSION)
        rights = (1 << _RIGHTS.get(version, _RIGHTS[5])) - 1
        wants = [rights]
        wants += [_BIND_AND_CONNECT_TCP] if version >= 4 else []
        wants += [_ABSTRACT_SOCKETS_AND_SIGNALS] if version >= 6 else []
        handled = (ctypes.c_uint64 * len(wants))(*wants)
        ruleset = self._call(_CREATE_RULESET, handled, ctypes.sizeof(handled), 0)
        reading = _READ_FILE | _READ_DIRECTORY
        places = [(root, reading)]
        if programs:
            places = [(path, reading | _EXECUTE) for path in (programs, *PROGRAM_PLACES)]
            places += [(root, reading), (os.devnull, _READ_FILE | _WRITE_FILE)]
        places += [(home, rights & ~_EXECUTE)] if home else []
        for path, given in places:
            if os.path.exists(path):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                # What is no directory has none of a directory's rights to give.
                rule = _PathBeneath(given if os.path.isdir(path) else given & ~_READ_DIRECTORY, fd)
                self._call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
                os.close(fd)
        self._call(_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)

    # --- capabilities -------------------------------------------------------------------------------

    def _give_up_capabilities(self) -> None:
        """All that root has but one. With no_new_privs none comes back, by whatever program root starts."""
        self._done(self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        old = (ctypes.c_uint32 * 6)()
        self._done(self._libc.capget(header, old))
        kept = [number & (1 << CAP_DAC_READ_SEARCH) for number in old[:2]]
        self._done(self._libc.capset(header, (ctypes.c_uint32 * 6)(*kept, 0, 0, 0, 0)))

    # --- seccomp ------------------------------------------------------------------------------------

    def _only_looking(self) -> None:
        with_arguments = [
            ("open", _Comparison(1, _COMPARE_MASKED, _CHANGES, 0)),
            ("openat", _Comparison(2, _COMPARE_MASKED, _CHANGES, 0)),
            *(
                (name, _Comparison(1, _COMPARE_EQUAL, each, 0))
                for name in ("fcntl", "fcntl64")
                for each in _FCNTL_COMMANDS
            ),
        ]
        self._filter(_SECCOMP_ERRNO | _EACCES, _SECCOMP_ALLOW, _LOOKING, with_arguments)

    def _no_sockets(self, but: str = "", more: tuple[str, ...] = ()) -> None:
        spaces = [("clone", _Comparison(0, _COMPARE_MASKED, flag, flag)) for flag in _NEW_NAMESPACES]
        others = [("prlimit64", _Comparison(0, _COMPARE_OTHER, 0, 0)), *spaces]
        self._filter(
            _SECCOMP_ALLOW,
            _SECCOMP_ERRNO | _EACCES,
            [name for name in (*_NOT_FOR_PROGRAMS, *more) if name != but],
            others,
        )
        # A filter does not see its flags. Who is told that there is no such call takes `clone`.
        self._filter(_SECCOMP_ALLOW, _SECCOMP_ERRNO | _ENOSYS, ("clone3",))

    def _filter(
        self,
        otherwise: int,
        action: int,
        names: Iterable[str],
        with_arguments: Iterable[tuple[str, _Comparison]] = (),
    ) -> None:
        """Do `action` for the named calls, and `otherwise` for all others (libseccomp: seccomp_init(3))."""
        library = self._seccomp
        if library is None:
            raise OSError(2, "libseccomp is not installed")
        context = library.seccomp_init(ctypes.c_uint32(otherwise))
        for name, comparison in [*((name, None) for name in names), *with_arguments]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                continue  # no such call on this architecture
            given = (comparison,) if comparison else ()
            failed = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(action), number, len(given), (_Comparison * 1)(*given)
            )
            if failed:
                raise OSError(-failed, f"{name}: {os.strerror(-failed)}")
        failed = library.seccomp_load(context)
        library.seccomp_release(context)
        if failed:
            raise OSError(-failed, os.strerror(-failed))

    # --- the kernel's answers -----------------------------------------------------------------------

    def end_with_parent(self) -> None:
        """Die with the parent, at once; and let no other process look into this one (ptrace(2))."""
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

    def _call(self, number: int, *arguments: object) -> int:
        result: int = self._libc.syscall(ctypes.c_long(number), *arguments)
        return self._done(result)

    @staticmethod
    def _done(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def limit(*, fork: bool, memory: int = MEMORY, written: int = 0) -> None:
    """Bounds that need no wall (setrlimit(2)): memory, processor time, no file, no child."""
    limits = [
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, written),
    ]
    limits += [] if fork else [(resource.RLIMIT_NPROC, 0)]
    for what, most in limits:
        lower = [each for each in (most, *resource.getrlimit(what)) if each != resource.RLIM_INFINITY]
        resource.setrlimit(what, (min(lower), min(lower)))


def _libseccomp() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    )  # fmt: skip
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    return library
