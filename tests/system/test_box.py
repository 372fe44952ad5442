"""The box, tried from within: whoever is in it reads the tree, and does nothing else."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import prober
import processes
import pytest
import treestate

from firstkey.reasons import FirstkeyError
from firstkey.system import box, boxed, command, inspector

AGENT = Path(__file__).resolve().parents[2] / "agent"
PROGRAM = prober.__file__
MAY = {"list", "read"}
# What a user cannot do anyway is no proof of a wall, and what root may do to itself harms nobody.
BEFORE = {
    "root": (),
    "root-without-mounts": ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"),
    "user": (),
    "seccomp-alone": (),
}


class Place(NamedTuple):
    """A tree to look at, beside things of the host's."""

    above: Path
    tree: Path
    unix: Path
    port: int


@pytest.fixture
def place() -> Iterator[Place]:
    """The tree has a file that everybody may write, a link out of it, and a socket with a service."""
    with tempfile.TemporaryDirectory() as above:  # tmp_path is out of the reach of others
        os.chmod(above, 0o755)
        yield from _filled(Path(above))


def _filled(above: Path) -> Iterator[Place]:
    tree = above / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    for path in (tree, tree / "file"):
        os.chmod(path, 0o777)
        os.chown(path, prober.NOBODY, prober.NOBODY)
    os.mknod(tree / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.chmod(tree / "zero", 0o666)
    (tree / "out").symlink_to("/etc/hostname")
    (tree / "again").symlink_to("file")
    (above / "victim").write_text("y")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as outer:
        inner, nameless = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with inner, nameless:
            for listener, name in ((outer, f"{above}/s"), (inner, f"{tree}/socket")):
                listener.bind(name)
                os.chmod(name, 0o777)
            nameless.bind(f"\0{above}/s")
            for listener in (outer, inner, nameless):
                listener.listen()
            yield Place(above, tree, above / "s", tcp.getsockname()[1])


def tried(flavour: str, place: Place, *, before: Sequence[str] = ()) -> dict[str, Any]:
    """What the prober says."""
    argv = [
        *before,
        *BEFORE.get(flavour, ()),
        sys.executable,
        PROGRAM,
        flavour,
        str(place.tree),
        str(place.port),
    ]
    argv += [str(place.unix), str(AGENT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


FLAVOURS = [
    # As root, whoever has no Landlock still has the tree for a root.
    pytest.param(flavour, marks=() if flavour == "root" else pytest.mark.landlock)
    for flavour in prober.FLAVOURS
]


@pytest.mark.root
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_nothing_works_but_to_read_the_tree(flavour: str, place: Place) -> None:
    """In each flavour of the box that this machine can have."""
    before = treestate.take(place.above)
    found = tried(flavour, place)
    # A device of the tree's is the machine's. Without mounts, its mode alone decides.
    may = MAY if flavour == "root" else MAY | {"device", "file by a link"}
    assert {name for name, became in found["tried"].items() if became == "DONE"} == may
    assert treestate.take(place.above) == before
    assert found["alone"] == (flavour == "root")
    expected = ["a mount namespace (Operation not permitted)"] if flavour == "root-without-mounts" else []
    assert found["missing"] == expected


@pytest.mark.root
@pytest.mark.parametrize("flavour", prober.FLAVOURS)
@pytest.mark.sample(3)
def test_the_prober_could_do_it_all_without_the_box(flavour: str, place: Place) -> None:
    """Else it would prove nothing."""
    found = tried(f"no box: {flavour}", place)["tried"]
    assert found == dict.fromkeys(prober.HARMLESS, "DONE")


@pytest.mark.root
def test_the_last_wall_stands_alone(place: Place) -> None:
    """The system calls that are left change nothing, also where the file system would let them."""
    before = treestate.take(place.above)
    tried_there = tried("seccomp-alone", place)["tried"]
    reading = {name for name in tried_there if name.startswith("host ")}
    assert {name for name, became in tried_there.items() if became == "DONE"} <= MAY | reading | {
        "device",
        "file by a link",
        "more memory",
    }
    assert treestate.take(place.above) == before


@pytest.mark.root
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_the_last_wall_the_others_stand(flavour: str, place: Place) -> None:
    """Without libseccomp, which is told; and what is left to that wall alone stands in docs/security.md."""
    libraries = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = [line.split()[-1] for line in libraries.splitlines() if "libseccomp.so.2" in line]
    hide = "; ".join(f"mount --bind /dev/null {path}" for path in found)
    said = tried(flavour, place, before=("unshare", "--mount", "sh", "-ec", f'{hide}; exec "$@"', "sh"))
    assert said["missing"][-1] == "seccomp (libseccomp is not installed)"
    done = {name for name, became in said["tried"].items() if became == "DONE"}
    calls = {name for name in said["tried"] if name.startswith("call ")}
    assert done >= calls, "else they would prove nothing where the filter stands"
    others = {"device", "file by a link", "udp", "unix socket"}
    left = {
        "root": {"fork"},
        "root-without-mounts": {"fork", "setxattr", *others},
        "user": {"chmod", "utime", "setxattr", *others},
    }
    assert done - calls - MAY - {"unix socket in the tree", "kill by a descriptor"} == left[flavour]


# --- work in the box, and who watches it ------------------------------------------------------------------


def look(work: Any, root: Path, **questions: Any) -> Any:
    """What the work says."""
    return boxed.look([work], root=str(root), questions=questions, on_report=lambda _: None)[0]


def test_values_questions_and_refusals_cross(tmp_path: Path) -> None:
    """Names that are no text among them."""
    (tmp_path / "a").write_bytes(b"1")

    def work(inside: boxed.Inside) -> Any:
        content = Path(inside.tree, "a").read_text()
        return [content, inside.ask("double", 21), "\udcff"]

    assert look(work, tmp_path, double=lambda number: 2 * number) == ["1", 42, "\udcff"]

    def refused(inside: boxed.Inside) -> Any:
        return inside.ask("other")

    with pytest.raises(FirstkeyError, match="other"):
        look(refused, tmp_path)


def test_what_takes_too_long_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds it up: a loop in C that hears no signal is one."""
    monkeypatch.setattr(boxed, "CPU_SECONDS", 0.3)

    def work(inside: boxed.Inside) -> Any:
        inside.at("file", "/quick")
        inside.at("file", "/a/slow\udcff one")
        return sum(range(10**12))

    before = processes.children(os.getpid())
    with pytest.raises(boxed.Overrun, match="took more work than it may") as caught:
        look(work, tmp_path)
    assert (caught.value.kind, caught.value.name) == ("file", "/a/slow\udcff one")
    assert processes.children(os.getpid()) == before


def test_an_answer_that_is_read_drop_by_drop_ends_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent waits for each drop, and looks at no other limit meanwhile."""
    monkeypatch.setattr(boxed, "ANSWER_SECONDS", 0.5)

    def work(inside: boxed.Inside) -> Any:
        inside._send(boxed._line("ask", ["large", []]))
        read = b""
        while not read.endswith(b"\n"):
            read = inside._answers.raw.read(4096)
            time.sleep(0.05)

    with pytest.raises(boxed.Overrun, match="came to a sudden end"):
        look(work, tmp_path, large=lambda: "x" * 250_000)


def test_a_child_that_dies_has_not_said_anything(tmp_path: Path) -> None:
    """Its silence is an error with what it was about."""

    def work(inside: boxed.Inside) -> Any:
        inside.at("rule", "deadly")
        os._exit(0)

    with pytest.raises(boxed.Overrun, match="deadly"):
        look(work, tmp_path)


def test_what_the_caller_has_open_is_closed(tmp_path: Path) -> None:
    """A connection to the journal, say: whoever may write to it need not open it."""
    held, other = socket.socketpair()
    with held, other:

        def work(_inside: boxed.Inside) -> Any:
            try:
                return os.write(held.fileno(), b"x")
            except OSError as error:
                return error.errno

        assert look(work, tmp_path) == errno.EBADF


@pytest.mark.root
def test_without_a_null_device_there_is_no_box(tmp_path: Path) -> None:
    """What the caller has open, a terminal or a pipe, would be open inside as well."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from firstkey.system import boxed;"
        "boxed.look([lambda _: os.write(1, b'out')], root=sys.argv[2], questions={}, on_report=print)"
    )
    hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /dev; exec "$@"', "sh", sys.executable]
    argv = [*hidden, "-c", program, str(AGENT), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, "came to a sudden end" in done.stderr) == ("", True)


def test_nothing_is_imported_from_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with a Python module of the name that somebody imports late is not run."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend("/")

    def work(_inside: boxed.Inside) -> Any:
        import colorsys

        return colorsys.__name__

    with pytest.raises(FirstkeyError, match="colorsys was not loaded"):
        look(work, tmp_path)


# --- programs that look -----------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(
    "deed", ["touch {victim}", "ssh-keygen -q -t ed25519 -N '' -f {above}/key", "cat {secret}"]
)
def test_a_program_that_looks_changes_nothing(deed: str, place: Place) -> None:
    """It reads what its user may read, and nothing is written."""
    before = treestate.take(place.above)
    sh = command.find("sh")
    done = inspector.run(
        [str(sh), "-c", deed.format(victim=place.above / "victim", above=place.above, secret="/run")]
    )
    assert done.status != 0
    assert treestate.take(place.above) == before


@pytest.mark.root
def test_a_program_that_looks_gets_copies_and_no_socket(place: Place) -> None:
    """Its copies are there by a name that stands for their directory, and go with it."""
    sh = str(command.find("sh"))
    done = inspector.run([sh, "-c", f"cat {inspector.HERE}/a; echo {inspector.HERE}"], files={"a": b"1\n"})
    assert done.stdout.decode().split() == ["1", inspector.HERE]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {place.port}))"
    assert b"PermissionError" in inspector.run(["/usr/bin/python3", "-c", connect]).stderr
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(place.unix)!r})"
    assert b"PermissionError" in inspector.run(["/usr/bin/python3", "-c", connect]).stderr


CALLS = (
    "ptrace", "process_vm_readv", "process_vm_writev", "connect", "bind", "pidfd_send_signal", "pidfd_open",
    "pidfd_getfd", "io_uring_setup", "io_uring_enter", "bpf", "keyctl", "add_key", "request_key",
    "userfaultfd", "perf_event_open", "unshare", "setns", "mount", "move_mount", "open_tree", "fsopen",
    "fsmount", "pivot_root", "chroot", "clone3", "tgkill", "rt_tgsigqueueinfo",
)  # fmt: skip
LOOKER = """
    import ctypes, json, os, resource, sys
    libc, taken = ctypes.CDLL(None, use_errno=True), []
    def asked(number, *arguments):
        ctypes.set_errno(0)
        return libc.syscall(*map(ctypes.c_long, (number, *arguments, *[-1] * 6)))
    calls = json.loads(sys.argv[1])
    for name, number in calls.items():
        asked(number)
        taken += [] if ctypes.get_errno() in (13, 38) else [name]
    parent = os.getppid()
    for deed in (lambda: os.kill(parent, 0), lambda: resource.prlimit(parent, resource.RLIMIT_AS)):
        try: taken.append(deed())
        except PermissionError: pass
    pid = asked(int(sys.argv[2]), 0x10000000 | 17, 0, 0, 0, 0)  # clone(CLONE_NEWUSER | SIGCHLD)
    if pid == 0: os._exit(0)
    taken += [pid] if pid > 0 else []
    sets = (ctypes.c_uint32 * 6)()
    libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), sets)
    limits = [resource.getrlimit(each)[1] for each in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)]
    print(json.dumps([taken, list(sets), limits]))
"""


@pytest.mark.root
def test_a_program_that_looks_has_no_way_to_more() -> None:
    """To no other process, namespace or capability; a new namespace would bring all capabilities along."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name
    numbers = {name: resolve(name.encode()) for name in (*CALLS, "clone")}
    clone = numbers.pop("clone")
    argv = ["/usr/bin/python3", "-c", textwrap.dedent(LOOKER), json.dumps(numbers), str(clone)]
    taken, capabilities, limits = json.loads(inspector.run(argv).stdout)
    assert taken == []
    may_read = 1 << box.CAP_DAC_READ_SEARCH
    assert (capabilities, limits) == ([may_read, may_read, 0, 0, 0, 0], [box.MEMORY, 0])


@pytest.mark.root
@pytest.mark.landlock
@pytest.mark.parametrize(
    "file", ["/etc/shadow", "/etc/hostname", "/root", "/var/lib/dpkg/status", "/proc/1/environ"]
)
def test_a_program_that_looks_sees_no_secret_of_the_machine(file: str) -> None:
    """A configuration that includes one would have sshd print its lines."""
    assert inspector.run([str(command.find("ls")), "-d", "/usr"]).status == 0
    assert inspector.run([str(command.find("head")), "-c1", file]).status != 0


@pytest.mark.parametrize(
    "argv",
    [
        ["/bin/sh", "-c", "id"],
        [],
        ["sshd"],
        [str(command.find("sshd")), "-T", "-f", "/etc/shadow"],
        [str(command.find("ssh-keygen")), "-D", f"{inspector.HERE}/x.so"],
        [str(command.find("ssh-keygen")), "-y", "-P", "", "-f", "/etc/ssh/ssh_host_ed25519_key"],
        [str(command.find("sshd")), 5],
    ],
)
def test_a_boxed_process_can_have_few_programs_run(argv: list[Any]) -> None:
    """Whoever took it over cannot name another one, nor a copy that is a path."""
    with pytest.raises(FirstkeyError, match="is not run"):
        inspector.answer_program(argv, {}, b"")
    keygen = str(command.find("ssh-keygen"))
    with pytest.raises(FirstkeyError, match="is a path"):
        inspector.answer_program([keygen, "-y", "-P", "", "-f", "/dev/stdin"], {"../x": b""}, b"")
