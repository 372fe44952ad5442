"""The door to files: a change is made in one instant or not at all, and no link is followed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import places
import processes
import pytest

from firstkey import reasons
from firstkey.reasons import FirstkeyError, Reason
from firstkey.system import files
from firstkey.system.files import Changed, Directory, File, Looks
from firstkey.system.tree import Tree

LIMIT = 1 << 20
PRIVATE = Looks(0o600)
needs_strace = pytest.mark.skipif(bool(places.missing_for_strace()), reason=str(places.missing_for_strace()))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    """An empty directory, open through the door."""
    place = tmp_path / "place"
    place.mkdir()
    with Tree(str(place)) as tree, tree.opened("/") as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path, directory: Directory) -> Path:
    """The same directory, seen from outside."""
    return tmp_path / "place"


def read(directory: Directory, name: str = "file") -> File:
    """The file, which must be there."""
    found = directory.read(name, limit=LIMIT)
    assert found is not None
    return found


def refused(attempt: Callable[[], Any]) -> Reason:
    """The reason for which it is refused."""
    with pytest.raises(FirstkeyError) as caught:
        attempt()
    return caught.value.reason


# --- reading --------------------------------------------------------------------------------------


def test_content_and_looks_are_read(directory: Directory, place: Path) -> None:
    """Every byte as it is, mode and owner with it; what is not there is None."""
    content = bytes(range(256)) * 5000
    (place / "file").write_bytes(content)
    (place / "file").chmod(0o640)
    found = directory.read("file", limit=len(content))
    assert found
    assert (found.content, found.mode, found.uid, found.gid) == (content, 0o640, os.getuid(), os.getgid())
    assert directory.read("nothing", limit=LIMIT) is None


def test_a_large_file_is_refused_before_it_fills_the_memory(directory: Directory, place: Path) -> None:
    """A sparse gigabyte costs what the limit is, not what the file says."""
    with (place / "file").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert refused(lambda: directory.read("file", limit=1000)) is reasons.FILE_TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


def bind(path: Path) -> None:
    """Leave a socket at the path."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(str(path))


Make = Callable[[Path], object]
ODD: dict[str, tuple[Make, Reason]] = {
    "symlink": (lambda path: path.symlink_to("/etc/passwd"), reasons.SYMLINK_REFUSED),
    "dangling": (lambda path: path.symlink_to("nowhere"), reasons.SYMLINK_REFUSED),
    "loop": (lambda path: path.symlink_to(path.name), reasons.SYMLINK_REFUSED),
    "fifo": (os.mkfifo, reasons.NOT_A_REGULAR_FILE),
    "socket": (bind, reasons.NOT_A_REGULAR_FILE),
    "directory": (lambda path: path.mkdir(), reasons.NOT_A_REGULAR_FILE),
}


@pytest.mark.parametrize("kind", ODD)
def test_only_a_regular_file_is_read(directory: Directory, place: Path, kind: str) -> None:
    """A link is not followed and a pipe not waited for; each has its reason, and the path is named."""
    make, reason = ODD[kind]
    make(place / "odd")
    with pytest.raises(FirstkeyError, match=r"/odd ") as caught:
        directory.read("odd", limit=LIMIT)
    assert caught.value.reason is reason


@pytest.mark.root
def test_a_device_is_not_opened(directory: Directory, place: Path) -> None:
    """Opening a device can be an act (a tape rewinds), and /dev/zero has no end."""
    os.mknod(place / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert refused(lambda: directory.read("zero", limit=LIMIT)) is reasons.NOT_A_REGULAR_FILE
    assert refused(lambda: directory.set_mode("zero", 0o600)) is reasons.NOT_A_REGULAR_FILE
    assert (place / "zero").stat().st_mode & 0o777 == 0o666 & ~0o022


@pytest.mark.parametrize("name", ["..", "a/b", "/etc/passwd", "a\0b", "../x"])
def test_a_name_is_the_name_of_one_file(directory: Directory, place: Path, name: str) -> None:
    """Whatever is done to a name, none leads out of the directory."""
    (place.parent / "x").write_bytes(b"outside")
    attempts: list[Callable[[], object]] = [
        lambda: directory.status(name),
        lambda: directory.child(name),
        lambda: directory.make(name, PRIVATE),
        lambda: directory.read(name, limit=LIMIT),
        lambda: directory.replace(name, b"x", PRIVATE),
        lambda: directory.rename("x", name),
        lambda: directory.rename(name, "x"),
        lambda: directory.remove(name),
        lambda: directory.remove_all(name),
        lambda: directory.set_mode(name, 0o600),
        lambda: directory.open_to_lock(name),
    ]
    for attempt in attempts:
        assert refused(attempt) is reasons.UNSAFE_DIRECTORY
    assert os.listdir(place) == []
    assert (place.parent / "x").read_bytes() == b"outside"


# --- directories ----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_directory_has_its_mode_whatever_the_umask(
    directory: Directory, place: Path, mode: int, umask: int
) -> None:
    """And the umask is as it was afterwards."""
    before = os.umask(umask)
    try:
        directory.make("new", Looks(mode)).__exit__()
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE((place / "new").stat().st_mode) == mode


def test_a_directory_that_is_there_stays_as_it_is(directory: Directory, place: Path) -> None:
    """Homes' modes are their owners' business."""
    (place / "old").mkdir(mode=0o750)
    directory.make("old", Looks(0o700)).__exit__()
    assert stat.S_IMODE((place / "old").stat().st_mode) == 0o750


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "directory"])
def test_nothing_but_a_directory_is_entered(directory: Directory, place: Path, kind: str) -> None:
    """Not a link to a directory, either."""
    ODD[kind][0](place / "odd")
    link = kind in ("symlink", "dangling", "loop")
    expected = reasons.SYMLINK_REFUSED if link else reasons.NOT_A_DIRECTORY
    assert refused(lambda: directory.child("odd")) is expected
    assert refused(lambda: directory.make("odd", Looks(0o700))) is expected
    (place / "link").symlink_to(place)
    assert refused(lambda: directory.child("link")) is reasons.SYMLINK_REFUSED


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nothing", "file", *ODD])
def test_whatever_was_there_is_replaced_and_not_followed(
    directory: Directory, place: Path, kind: str
) -> None:
    """The name holds the new file; what a link led to is untouched. A directory is no file, and stays."""
    target = place.parent / "target"
    target.write_bytes(b"precious")
    if kind == "file":
        (place / "file").write_bytes(b"old")
    elif kind == "symlink":
        (place / "file").symlink_to(target)
    elif kind != "nothing":
        ODD[kind][0](place / "file")
    if kind == "directory":
        assert refused(lambda: directory.replace("file", b"new", PRIVATE)) is reasons.NOT_A_REGULAR_FILE
        assert os.listdir(place) == ["file"]
        return

    directory.replace("file", b"new", Looks(0o640))
    found = (place / "file").lstat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (place / "file").read_bytes() == b"new"
    assert target.read_bytes() == b"precious"
    assert os.listdir(place) == ["file"]


def test_another_name_of_the_file_keeps_the_old_content(directory: Directory, place: Path) -> None:
    """A hard link that a user made of another's file is cut, not written through, chowned or chmodded."""
    other = place.parent / "other"
    other.write_bytes(b"another's")
    other.chmod(0o444)
    (place / "file").hardlink_to(other) if sys.version_info >= (3, 10) else os.link(other, place / "file")
    before = other.stat()
    directory.replace("file", b"new", PRIVATE, expected=read(directory))
    assert other.read_bytes() == b"another's"
    assert (other.stat().st_mode, other.stat().st_uid) == (before.st_mode, before.st_uid)


@pytest.mark.parametrize("mode", [0o4600, 0o2640, 0o6755])
def test_no_set_id_bit_is_handed_on(directory: Directory, place: Path, mode: int) -> None:
    """The old file's mode goes on to the new one, but not what could make it more than a file of keys."""
    directory.replace("file", b"x", Looks(mode))
    assert stat.S_IMODE((place / "file").stat().st_mode) == mode & 0o777


def test_acls_and_users_attributes_go_on(directory: Directory, place: Path) -> None:
    """An ACL and a user's attribute are on the new file too."""
    (place / "file").write_bytes(b"old")
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in [
            (1, 6, 2**32 - 1),
            (2, 4, 12345),
            (4, 0, 2**32 - 1),
            (16, 4, 2**32 - 1),
            (32, 0, 2**32 - 1),
        ]
    )
    try:
        os.setxattr(place / "file", "user.note", b"kept")
        os.setxattr(place / "file", "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"the file system of {place} takes no extended attributes: {error}")
    old = read(directory)
    directory.replace("file", b"new", Looks(old.mode, attributes=old.attributes), expected=old)
    assert os.getxattr(place / "file", "user.note") == b"kept"
    assert os.getxattr(place / "file", "system.posix_acl_access") == acl
    assert (place / "file").stat().st_mode == 0o100640


def test_a_long_name_can_be_replaced(directory: Directory, place: Path) -> None:
    """The temporary name fits beside any name that a file can have."""
    for name in ("x" * 255, "ü" * 127):
        directory.replace(name, b"new", PRIVATE)
        assert (place / name).read_bytes() == b"new"


ORDER = """
    import sys
    from firstkey.system.files import Changed, Looks
    from firstkey.system.tree import Tree
    owner = int(sys.argv[2]), int(sys.argv[3])
    with Tree(sys.argv[1]) as tree, tree.opened("/") as directory:
        try:
            eval("directory." + sys.argv[4])
        except Changed:
            sys.exit(3)
"""
NEW = "replace('file', b'content', Looks(0o640, owner), expected=None)"
WRITTEN = ["create 0600", "fchown", "fchmod", "write", "fsync"]
STEPS = {
    "replace('old', b'content', Looks(0o640, owner))": [*WRITTEN, "rename", "fsync"],
    NEW: [*WRITTEN, "link", "unlink", "fsync"],
    "rename('old', 'new')": ["rename", "fsync"],
    "remove('old', durable=True)": ["unlink", "fsync"],
    "link('old', 'target')": ["symlink", "fchown", "rename", "fsync"],
    "make('new', Looks(0o700)).__exit__()": ["mkdir", "fchmod", "fsync"],
}


@needs_strace
@pytest.mark.parametrize("change", STEPS)
def test_owner_and_mode_come_first_and_the_name_last(place: Path, tmp_path: Path, change: str) -> None:
    """A file is new, and root's alone before it has content; then its name, and fsync of the directory."""
    (place / "old").write_bytes(b"x")
    log = tmp_path / "log"
    calls = (
        "openat,fchown,fchownat,fchmod,write,pwrite64,fsync,fdatasync,/^(rename|link|unlink|symlink|mkdir)"
    )
    argv = processes.program(ORDER, place, os.getuid(), os.getgid(), change)
    subprocess.run(
        ["strace", "-qq", "-o", log, "-e", f"trace={calls}", *argv],
        check=True,
        env=processes.environment(),
        timeout=processes.PATIENCE,
    )
    new = re.sub(r"openat\(.*O_CREAT\|O_EXCL.*, (0\d+)\)", r"create \1(", log.read_text())
    made = [line.split("(")[0] for line in new.splitlines() if "(" in line and not line.startswith("openat")]
    assert [name.removesuffix("2").removesuffix("at") for name in made] == STEPS[change]


@pytest.mark.root
def test_a_link_is_given_away_and_not_what_it_leads_to(directory: Directory, place: Path) -> None:
    """A skeleton's link becomes its user's, and root's file behind it stays root's."""
    (place / "file").write_bytes(b"x")
    directory.link("link", "file", (65534, 65534))
    assert ((place / "link").lstat().st_uid, (place / "file").stat().st_uid) == (65534, 0)


# --- changes of others ----------------------------------------------------------------------------


def test_a_change_since_the_reading_is_noticed(directory: Directory, place: Path) -> None:
    """Written to, exchanged, chmodded, removed, or come into being: nothing is touched then."""
    path = place / "file"

    def exchange() -> None:
        path.rename(place.parent / "elsewhere")
        path.write_bytes(b"theirs")

    path.write_bytes(b"theirs")
    with pytest.raises(Changed):
        directory.replace("file", b"ours", PRIVATE, expected=None)
    changes: list[Callable[[], object]] = [
        lambda: path.write_bytes(b"changed"),
        exchange,
        lambda: path.chmod(0o644),
    ]
    for change in changes:
        path.write_bytes(b"theirs")
        old = read(directory)
        change()
        content = path.read_bytes()
        with pytest.raises(Changed):
            directory.replace("file", b"ours", PRIVATE, expected=old)
        assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(Changed):
        directory.replace("file", b"ours", PRIVATE, expected=old)
    assert os.listdir(place) == []


APPENDING = """
    import sys
    for number in range(int(sys.argv[2])):
        with open(f"{sys.argv[1]}.{number}", "ab") as file:
            file.write(b"theirs")
"""


def test_a_file_that_comes_meanwhile_is_not_replaced(directory: Directory, place: Path) -> None:
    """Two programs make the same new files: nothing of the other one's is lost, whoever comes first."""
    number = 3000
    looks = Looks(0o600, durable=False)
    other = processes.start(APPENDING, place / "file", number)
    for each in range(number):
        with suppress(Changed):
            directory.replace(f"file.{each}", b"ours", looks, expected=None)
    other.communicate()
    content = {(place / f"file.{each}").read_bytes() for each in range(number)}
    assert content <= {b"theirs", b"ourstheirs"}
    assert b"ourstheirs" in content
    assert len(os.listdir(place)) == number


NAMING = "/^(rename|link)"


def put_while(place: Path, tmp_path: Path, comes: bytes) -> tuple[int, list[str]]:
    """Put a new file there that gets its name only a moment later, and another one before that.

    The exit status (3: the other file is there), and the calls as strace saw them.
    """
    log = tmp_path / "log"
    argv = ["strace", "-qq", "-o", str(log), "-e", f"trace={NAMING}"]
    argv += ["-e", f"inject={NAMING}:delay_enter=300000"]
    argv += processes.program(ORDER, place, os.getuid(), os.getgid(), NEW)
    with subprocess.Popen(argv, env=processes.environment()) as running:
        deadline = time.monotonic() + processes.PATIENCE
        while not any(path.stat().st_size for path in place.iterdir()) and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        (place / "file").write_bytes(comes)
    return running.returncode, log.read_text().splitlines()


@needs_strace
def test_a_file_that_comes_after_the_last_look_stays(place: Path, tmp_path: Path) -> None:
    """Whatever another program put there while the new file was being written."""
    status, calls = put_while(place, tmp_path, b"theirs")
    assert status == 3, calls
    assert (place / "file").read_bytes() == b"theirs"
    assert os.listdir(place) == ["file"]


# --- stopped at any moment ------------------------------------------------------------------------


def at_line(number: int, act: Callable[[], None], work: Callable[[], None]) -> bool:
    """Do `work` in a child, and `act` when it comes to that line of the door's code; whether it did."""
    left = [number]

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                act()
        return trace

    def hurried() -> bytes:
        sys.settrace(trace)
        try:
            work()
        except (FirstkeyError, Changed):
            return b"refused"
        finally:
            sys.settrace(None)
        return b"done"

    said = processes.in_child(hurried)
    assert said in (b"", b"done")
    return said == b""


def stop() -> None:
    """What SIGTERM does."""
    sys.exit(1)


@pytest.mark.parametrize(
    "act", [stop, lambda: os.kill(os.getpid(), signal.SIGKILL)], ids=["stopped", "killed"]
)
@pytest.mark.parametrize("before", [b"old", None], ids=["replaced", "new"])
@pytest.mark.sample(4)
def test_stopped_at_any_line_the_file_is_the_old_or_the_new_one(
    directory: Directory, place: Path, before: bytes | None, act: Callable[[], None]
) -> None:
    """SIGKILL leaves at most a temporary file, which the next change removes, SIGTERM not even that."""
    path = place / "file"
    seen = set()
    line = 0
    reached = True
    while reached:
        line += 1
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
        old = directory.read("file", limit=LIMIT)
        reached = at_line(line, act, lambda: directory.replace("file", b"new", PRIVATE, expected=old))  # noqa: B023
        content = path.read_bytes() if path.exists() else None
        seen.add(content)
        assert content in (before, b"new")
        if content == b"new":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if act is stop:
            assert set(os.listdir(place)) <= {"file"}
        directory.remove_stale()
        assert set(os.listdir(place)) <= {"file"}
    assert seen == {before, b"new"}
    assert line > 30


@pytest.mark.slow
def test_a_directory_has_its_mode_at_any_line(directory: Directory, place: Path) -> None:
    """Killed while it is made, it is not there or as it should be: nobody comes back to repair it."""
    line, seen, umask = 0, set(), os.umask(0o077)
    try:
        reached = True
        while reached:
            line += 1
            reached = at_line(
                line,
                lambda: os.kill(os.getpid(), signal.SIGKILL),
                lambda: directory.make("new", Looks(0o755)).__exit__(),
            )
            made = place / "new"
            seen.add(stat.S_IMODE(made.stat().st_mode) if made.exists() else None)
            if made.exists():
                made.rmdir()
    finally:
        os.umask(umask)
    assert seen == {None, 0o755}


EXCHANGING = """
    import ctypes, os, random, sys, time
    one, other = (os.fsencode(path) for path in sys.argv[1:])
    exchange = ctypes.CDLL(None).renameat2
    assert exchange(-100, one, -100, other, 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
    print(flush=True)
    while True:
        for _ in range(random.randrange(100)):  # an odd number of them at times, and a rest:
            exchange(-100, one, -100, other, 2)  # both sides wait for the directory's lock, and could
        time.sleep(random.random() / 10000)  # else take turns for good, so that one thing is never seen
"""
ROUNDS = 15000


def rounds(least: int, outcomes: Collection[object], good: object) -> Iterator[int]:
    """Numbers until there were enough of them, with the good outcome and another: each may get no turn."""
    deadline = time.monotonic() + processes.PATIENCE
    for number in count():
        if number >= least and good in outcomes and len(outcomes) > 1:
            return
        assert time.monotonic() < deadline, f"{number} rounds, and nothing but {outcomes}"
        yield number


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
@pytest.mark.slow
def test_a_file_exchanged_all_the_time_is_itself_or_refused(
    directory: Directory, place: Path, kind: str
) -> None:
    """Thousands of rounds against a loop that exchanges it: nothing outside is read or changed, no hang."""
    secret = place.parent / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o640)
    file, trap = place / "file", place / "trap"
    file.write_bytes(b"plain")
    if kind == "symlink":
        trap.symlink_to(secret)
    else:
        ODD[kind][0](trap)
    other = processes.start(EXCHANGING, file, trap)
    try:
        assert other.stdout
        assert other.stdout.readline() == "\n"
        outcomes: set[object] = set()
        for _ in rounds(ROUNDS, outcomes, b"plain"):
            try:
                found = directory.read("file", limit=100)
                outcomes.add(found and found.content)
            except FirstkeyError as error:  # noqa: PERF203 - each round for itself
                outcomes.add(error.reason.code)
        for _ in range(ROUNDS // 10):
            with suppress(FirstkeyError):
                directory.set_mode("file", 0o600)
    finally:
        other.kill()
        other.communicate()
    expected: set[object] = {b"plain", "symlink-refused", "not-a-regular-file", "concurrent-change"}
    assert outcomes <= expected
    assert secret.read_bytes() == b"secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o640


def test_a_directory_exchanged_all_the_time_is_itself_or_refused(directory: Directory, place: Path) -> None:
    """What is made in it lands in it, never where a link leads that stood there for an instant."""
    outside = place.parent / "outside"
    outside.mkdir()
    (place / "inner").mkdir()
    (place / "trap").symlink_to(outside)
    other = processes.start(EXCHANGING, place / "inner", place / "trap")
    outcomes: set[object] = set()
    try:
        assert other.stdout
        assert other.stdout.readline() == "\n"
        for number in rounds(ROUNDS // 20, outcomes, "made"):
            try:
                with directory.make("inner", Looks(0o700)) as inner:
                    inner.replace(f"file{number}", b"x", Looks(0o600, durable=False))
                    outcomes.add("made")
            except FirstkeyError as error:  # noqa: PERF203 - each round for itself
                outcomes.add(error.reason.code)
    finally:
        other.kill()
        other.communicate()
    assert os.listdir(outside) == []


def test_only_what_firstkey_left_is_cleared_away(directory: Directory, place: Path) -> None:
    """A person's file with a similar name stays, and nothing is followed."""
    keep = [
        "authorized_keys",
        ".firstkey-x",
        ".firstkey-x.1234567",
        ".firstkey-x.1234567g",
        "a.firstkey-x.12345678",
    ]
    gone = [".firstkey-x.12345678", ".firstkey-a\nb.00000000"]
    for name in (*keep, *gone):
        (place / name).write_bytes(b"x")
    (place / ".firstkey-dir.12345678" / "inner").mkdir(parents=True)
    (place / ".firstkey-dir.12345678" / "inner" / "key").write_bytes(b"secret")
    (place / ".firstkey-link.12345678").symlink_to(place / "authorized_keys")
    directory.remove_stale()
    # A user could give such a name to a directory of root's in the home, which only root could empty.
    assert sorted(os.listdir(place)) == sorted([*keep, ".firstkey-dir.12345678"])
    assert (place / ".firstkey-dir.12345678" / "inner" / "key").exists()
    directory.remove_stale(directories=True)
    assert sorted(os.listdir(place)) == sorted(keep)
    assert (place / "authorized_keys").read_bytes() == b"x"


def test_a_crowded_directory_costs_little_to_clear(directory: Directory, place: Path) -> None:
    """Whose directory it is may have put many names there."""
    for number in range(2000):
        (place / f"name.{number}").touch()
    (place / ".firstkey-x.12345678").touch()
    directory.remove_stale()
    assert len(os.listdir(place)) == 2000


# --- a file system that refuses -------------------------------------------------------------------

REFUSING = """
    import os, sys
    from firstkey.reasons import FirstkeyError
    from firstkey.system.files import Looks
    from firstkey.system.tree import Tree
    with Tree(sys.argv[1]) as tree, tree.opened("/") as directory:
        try:
            directory.replace("file", b"new" * 1000, Looks(0o600))
            print("done", end=" ")
        except FirstkeyError as error:
            print(error.reason.code, end=" ")
        content = open(os.path.join(sys.argv[1], "file"), "rb").read()
        print("old" if content == b"old" else "new" if content == b"new" * 1000 else content)
        print(*os.listdir(sys.argv[1]))
"""


@needs_strace
@pytest.mark.parametrize(
    "injection, outcome",
    [
        ("fchmod:error=EPERM", "read-only old"),
        ("write:error=ENOSPC:when=1", "no-space old"),
        ("write:error=EDQUOT:when=1", "no-space old"),
        ("write:error=EIO:when=1", "io-error old"),
        ("write:retval=1:when=1", None),
        ("fsync:error=EIO:when=1", "io-error old"),
        ("fsync:error=ENOSPC:when=1", "no-space old"),
        ("renameat,renameat2:error=EIO", "io-error old"),
        ("renameat,renameat2:error=EXDEV", "io-error old"),
        ("fsync:error=EIO:when=2", "io-error new"),
        ("fsync:error=EINVAL:when=2", "done new"),
    ],
)
@pytest.mark.sample(3)
def test_a_call_that_fails_leaves_the_old_file_or_the_new_one(
    place: Path, injection: str, outcome: str | None
) -> None:
    """Each call of a write fails once: the reason fits, and no temporary file is left.

    A directory that the file system cannot sync is no failure; one that it fails to sync is one, and the new
    file is there. A write that took only a part is gone on with.
    """
    (place / "file").write_bytes(b"old")
    argv = processes.program(REFUSING, place)
    if outcome is None:
        # strace only pretends that a byte was written: the rest must follow, so the file is one byte short.
        done = places.with_failing_calls(argv, injection)
        assert (place / "file").read_bytes() == (b"new" * 1000)[1:], done.stderr
        return
    done = places.with_failing_calls(argv, injection)
    assert done.stdout == f"{outcome}\nfile\n", done.stderr


FULL = """
    import os, sys
    from firstkey.reasons import FirstkeyError
    from firstkey.system.files import Looks
    from firstkey.system.tree import Tree
    def attempt(do):
        try:
            do()
        except FirstkeyError as error:
            return error.reason.code
        return "done"
    place = sys.argv[1]
    with Tree(place) as tree, tree.opened("/") as directory:
        directory.replace("file", b"old", Looks(0o600))
        if sys.argv[2] == "space":
            try:
                open(place + "/filler", "wb", buffering=0).write(b"x" * (2 << 20))
                open(place + "/filler", "ab", buffering=0).write(b"x" * (2 << 20))
            except OSError:
                pass
        elif sys.argv[2] == "inodes":
            try:
                for number in range(10000):
                    open(f"{place}/{number}", "w").close()
            except OSError:
                pass
        else:
            assert os.system(f"mount -o remount,ro {place}") == 0
        before = set(os.listdir(place))
        print(attempt(lambda: directory.replace("file", b"new" * 5000, Looks(0o600))))
        make = lambda: directory.make("new", Looks(0o700)).__exit__()
        print(attempt(make) if sys.argv[2] != "space" else "-")
        print(directory.read("file", limit=99).content == b"old", set(os.listdir(place)) == before)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    "kind, options, outcome",
    [
        ("space", "size=64k", "no-space\n-\nTrue True\n"),
        ("inodes", "nr_inodes=50", "no-space\nno-space\nTrue True\n"),
        ("read-only", "size=64k", "read-only\nread-only\nTrue True\n"),
    ],
)
def test_a_file_system_without_room_keeps_the_old_file(
    place: Path, kind: str, options: str, outcome: str
) -> None:
    """Full, out of inodes, read-only: the reason, the old content, and nothing beside it."""
    assert places.run_on_tmpfs(FULL, place, kind, options=options) == outcome


@pytest.mark.root
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_immutable_stays(directory: Directory, place: Path, what: str) -> None:
    """As chattr +i makes the file or its directory: read-only, with the remedy that names it."""
    (place / "file").write_bytes(b"old")
    target = place / "file" if what == "file" else place
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", target], check=False).returncode:
        pytest.skip(f"the file system of {place} knows no immutable files, or chattr is missing")
    try:
        with pytest.raises(FirstkeyError) as caught:
            directory.replace("file", b"new", PRIVATE)
    finally:
        subprocess.run(["chattr", "-i", target], check=True)
    assert caught.value.reason is reasons.READ_ONLY
    assert "chattr -i" in caught.value.hint
    assert (place / "file").read_bytes() == b"old"
    assert os.listdir(place) == ["file"]


def test_a_directory_without_write_permission(place: Path) -> None:
    """permission-denied, and nothing is changed (a user's own rights; root has more)."""
    (place / "file").write_bytes(b"old")
    place.chmod(0o555)
    for above in (place.parent, *place.parent.parents):
        if above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode | 0o111)
    # After the imports: where this Python lies, another user may not be able to reach it.
    become = "    if os.geteuid() == 0:\n        os.setgid(64102); os.setuid(64102)\n"
    source = REFUSING.replace("    with Tree", f"{become}    with Tree", 1)
    try:
        assert processes.run(source, place) == "permission-denied old\nfile\n"
    finally:
        place.chmod(0o755)


# --- other acts -----------------------------------------------------------------------------------


def test_mode_and_owner_change_only_on_files_and_directories(directory: Directory, place: Path) -> None:
    """Through a link or on anything odd, nothing is changed."""
    (place / "file").write_bytes(b"x")
    directory.set_mode("file", 0o640, (os.getuid(), os.getgid()))
    directory.set_mode(".", 0o700)
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (place / "link").symlink_to("file")
    os.mkfifo(place / "fifo")
    for name, reason in (("link", reasons.SYMLINK_REFUSED), ("fifo", reasons.NOT_A_REGULAR_FILE)):
        assert refused(lambda name=name: directory.set_mode(name, 0o777)) is reason  # type: ignore[misc]
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640


def test_removing_takes_the_name_and_not_what_it_leads_to(directory: Directory, place: Path) -> None:
    """A link goes, its target stays; what is gone already is no matter; a directory is no file."""
    (place / "file").write_bytes(b"x")
    (place / "link").symlink_to("file")
    directory.remove("link")
    directory.remove("link")
    assert os.listdir(place) == ["file"]
    (place / "inner").mkdir()
    assert refused(lambda: directory.remove("inner")) is reasons.NOT_A_REGULAR_FILE
    (place / "inner" / "deep").mkdir()
    (place / "inner" / "deep" / "link").symlink_to(place)
    (place / "link").symlink_to(place)
    for name in ("inner", "inner", "link"):
        directory.remove_all(name)
    assert os.listdir(place) == ["file"]


def test_a_free_name_is_not_taken(directory: Directory, place: Path) -> None:
    """What is set aside replaces nothing, not even a dangling link."""
    names = []
    for number in range(9):
        (place / "x").symlink_to(f"nowhere-{number}")
        names.append(directory.back_up("x", "broken"))
    assert [os.readlink(place / name) for name in names] == [f"nowhere-{number}" for number in range(9)]
    assert sorted(names) == sorted(os.listdir(place))


def test_a_file_to_lock_is_nobody_elses(directory: Directory, place: Path) -> None:
    """Made for its owner alone, whatever the umask, since whoever can open it can lock it."""
    before = os.umask(0)
    try:
        os.close(directory.open_to_lock("lock"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "lock").stat().st_mode) == 0o600
    for kind, (make, reason) in ODD.items():
        make(place / kind)
        assert refused(lambda kind=kind: directory.open_to_lock(kind)) is reason  # type: ignore[misc]


def test_the_host_finds_a_moved_directory(directory: Directory, place: Path) -> None:
    """The path for programs is where the open directory is now, not where it was opened."""
    place.rename(place.parent / "moved")
    assert directory.on_host == str(place.parent / "moved")


def test_nothing_stays_open(directory: Directory, place: Path) -> None:
    """Neither good nor bad ends leave a descriptor behind."""
    (place / "link").symlink_to("file")
    os.mkfifo(place / "fifo")
    before = os.listdir("/proc/self/fd")
    for name in ("file", "link", "fifo", "missing", "a/b"):
        for attempt in (
            lambda: directory.read(name, limit=10),  # noqa: B023
            lambda: directory.replace(name, b"x" * 20, PRIVATE, expected=None),  # noqa: B023
            lambda: directory.child(name),  # noqa: B023
            lambda: directory.make(name, Looks(0o700)),  # noqa: B023
            lambda: directory.open_to_lock(name),  # noqa: B023
            directory.remove_stale,
        ):
            try:
                opened = attempt()
            except (FirstkeyError, Changed):
                continue
            if isinstance(opened, Directory):
                opened.__exit__()
            elif isinstance(opened, int):
                os.close(opened)
    assert os.listdir("/proc/self/fd") == before
