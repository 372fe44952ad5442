"""Acting as a user: with that user's rights and no others, out of the user's reach, and never for long."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest

from firstkey import reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.system import as_user, child
from firstkey.system.files import Looks
from firstkey.system.tree import Tree

ALICE = Account("alice", 64101, 64201, "/home/alice", "/bin/sh")
MALLORY = Account("mallory", 64102, 64202, "/home/mallory", "/bin/sh")
ME = Account("me", os.getuid(), os.getgid(), "/", "/bin/sh")
GROUPS = [64201, 64301]


def facts() -> dict[str, Any]:
    """What the kernel says of the process that asks."""
    status = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: line.split()[1:] for line in status}


def test_values_come_back() -> None:
    """Whatever JSON can carry, a home's worth of it too; bytes of a name that are no text survive."""
    value = {"a": [1, None, "\udcff", "x" * 500_000], "b": True}
    assert as_user.run_as(ME, [], lambda: value) == value


def test_a_refusal_comes_back_as_it_was() -> None:
    """Message, reason and hint."""

    def refuse() -> None:
        raise FirstkeyError("no", reason=reasons.HOME_MISSING, hint="do this")

    with pytest.raises(FirstkeyError) as caught:
        as_user.run_as(ME, [], refuse)
    assert (caught.value.message, caught.value.reason, caught.value.hint) == (
        "no",
        reasons.HOME_MISSING,
        "do this",
    )


@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os._exit(0), "alice died"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "alice died"),
        (object, "alice died"),
    ],
    ids=["raises", "exits", "killed", "no value"],
)
def test_an_accident_is_an_error_of_this_user(work: Callable[[], Any], words: str) -> None:
    """Nothing that happens in the child runs on in the parent's code, or passes for success."""
    before = os.getpid()
    with pytest.raises(FirstkeyError, match=words) as caught:
        as_user.run_as(ALICE._replace(uid=os.getuid(), gid=os.getgid()), [], work)
    assert caught.value.reason is reasons.INTERNAL_ERROR
    assert os.getpid() == before


def test_a_home_that_hangs_is_given_up() -> None:
    """The reason says so, and the child is gone."""
    before = processes.children(os.getpid())
    with pytest.raises(FirstkeyError, match=r"me did not answer within 0\.2 s") as caught:
        as_user.run_as(ME, [], lambda: time.sleep(60), seconds=0.2)
    assert caught.value.reason is reasons.TIMED_OUT
    assert processes.children(os.getpid()) == before


def test_a_visit_notes_what_it_does_and_waits_until_that_is_heeded() -> None:
    """In its own child, which may take one user's rights after the other's; the caller goes on meanwhile."""
    heeded: list[Any] = []

    def work(note: Any) -> list[int]:
        time.sleep(0.3)
        note("first")
        note(["second"])
        ids = []
        for account in (ALICE, ME._replace(uid=0, gid=0), MALLORY):
            child.become(account, [])
            ids.append(os.geteuid())
        return ids

    visit = child.Visit("me", work, seconds=60)
    assert visit.answer(time.monotonic(), heeded.append) is None
    assert heeded == []
    answer = visit.answer(time.monotonic() + 60, heeded.append)
    assert heeded == ["first", ["second"]]
    assert answer == ([ALICE.uid, 0, MALLORY.uid] if os.geteuid() == 0 else [os.geteuid()] * 3)
    visit.stop()


def test_a_visit_that_dies_while_it_is_heeded_is_an_error() -> None:
    """Nothing passes for an answer."""

    def work(note: Any) -> str:
        note("about to write")
        return "written"

    before = set(processes.children(os.getpid()))
    visit = child.Visit("me", work, seconds=60)
    (pid,) = set(processes.children(os.getpid())) - before
    with pytest.raises(FirstkeyError, match="me died"):
        visit.answer(time.monotonic() + 60, lambda _: os.kill(pid, signal.SIGKILL))


def test_its_files_are_its_own_whatever_the_umask() -> None:
    """It is 077 in the child, and there is no trace of that in the parent."""
    before = os.umask(0)
    try:
        assert as_user.run_as(ME, [], lambda: os.umask(0)) == 0o077
        assert os.umask(0) == 0
    finally:
        os.umask(before)


@pytest.mark.root
def test_it_has_the_users_rights_and_no_others() -> None:
    """Effective and file-system ids, the given groups and none of root's, and not one capability."""
    found = as_user.run_as(ALICE, GROUPS, facts)
    assert found["Uid"] == ["0", str(ALICE.uid), "0", str(ALICE.uid)]
    assert found["Gid"] == ["0", str(ALICE.gid), "0", str(ALICE.gid)]
    assert found["Groups"] == [str(group) for group in GROUPS]
    assert int(found["CapEff"][0], 16) == 0
    assert os.geteuid() == 0, "the parent is as it was"
    assert os.getgroups() != GROUPS


@contextlib.contextmanager
def working_as(account: Account) -> Iterator[int]:
    """The process that works as the account while the block runs."""
    code = """
        import os, sys, time
        from firstkey.model import Account
        from firstkey.system import as_user, child
        out = os.dup(1)  # the child has not this process's own
        def work():
            os.write(out, str(os.getpid()).encode() + bytes([10]))
            time.sleep(60)
        as_user.run_as(Account("x", int(sys.argv[1]), int(sys.argv[2]), "/", "/"), [], work, seconds=60)
    """
    parent = processes.start(code, account.uid, account.gid)
    assert parent.stdout
    try:
        yield int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()


def attempts_as(account: Account, target: int) -> list[str]:
    """What the account can do to a process: the names of the attempts that the kernel let pass."""
    code = """
        import ctypes, os, resource, signal, sys
        target = int(sys.argv[3])
        os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
        libc = ctypes.CDLL(None, use_errno=True)
        def passed(done):
            try:
                done()
            except OSError:
                return False
            return True
        def ptrace():
            if libc.ptrace(0x4206, target, None, None):  # PTRACE_SEIZE
                raise OSError(ctypes.get_errno(), "ptrace")
        attempts = {
            "signal": lambda: os.kill(target, 0),
            "kill": lambda: os.kill(target, signal.SIGKILL),
            "ptrace": ptrace,
            "limits": lambda: resource.prlimit(target, resource.RLIMIT_FSIZE, (0, 0)),
            "memory": lambda: open(f"/proc/{target}/mem", "rb").close(),
            "environ": lambda: open(f"/proc/{target}/environ", "rb").close(),
            "descriptors": lambda: os.listdir(f"/proc/{target}/fd"),
            "root": lambda: os.readlink(f"/proc/{target}/root"),
            "oom": lambda: open(f"/proc/{target}/oom_score_adj", "w").close(),
        }
        print(*[name for name, attempt in attempts.items() if passed(attempt)])
    """
    return processes.run(code, account.uid, account.gid, target).split()


@pytest.mark.root
def test_the_user_cannot_touch_the_process_that_has_its_rights() -> None:
    """No signal, no tracing, no look into memory, descriptors or environment, no limits, no oom score."""
    with working_as(ALICE) as pid:
        assert attempts_as(ALICE, pid) == []
        assert attempts_as(MALLORY, pid) == []
        assert "signal" in attempts_as(ALICE._replace(uid=0, gid=0), pid), "root can, or this test is blind"


@pytest.mark.root
def test_no_core_file_is_written() -> None:
    """The child is not dumpable: a crash in a home leaves no image of its memory there."""
    dumpable = as_user.run_as(ALICE, [], lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    assert dumpable != 1


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """A place that every user can pass through, with two private homes."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o111)
    for account in (ALICE, MALLORY):
        home = tmp_path / account.name
        home.mkdir(mode=0o700)
        os.chown(home, account.uid, account.gid)
    return tmp_path


def write_in(homes: Path, account: Account, path: str) -> None:
    """Have the account's process write the file `path`, relative to the homes."""

    def work() -> None:
        with Tree(str(homes)) as tree:
            tree.write(f"/{path}", b"new\n", mode=0o600)

    as_user.run_as(account, [], work)


@pytest.mark.root
def test_it_writes_where_the_user_can_and_nowhere_else(homes: Path) -> None:
    """Its own home: yes, and the file is the user's. Another's, and root's directory: permission-denied."""
    write_in(homes, ALICE, "alice/file")
    found = (homes / "alice" / "file").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (ALICE.uid, ALICE.gid, 0o600)

    for path in ("mallory/file", "file"):
        with pytest.raises(FirstkeyError) as caught:
            write_in(homes, ALICE, path)
        assert caught.value.reason is reasons.PERMISSION_DENIED
    assert os.listdir(homes / "mallory") == []


@pytest.mark.root
def test_it_cannot_give_files_away(homes: Path) -> None:
    """That is for root, and the child is not: nothing is left behind either."""

    def work() -> None:
        with Tree(str(homes)) as tree, tree.opened("/alice") as home:
            home.replace("file", b"x", Looks(0o600, (MALLORY.uid, MALLORY.gid)))

    with pytest.raises(FirstkeyError):
        as_user.run_as(ALICE, [], work)
    assert os.listdir(homes / "alice") == []


SQUASHED = """
    import os, sys
    from firstkey.reasons import FirstkeyError
    from firstkey.model import Account
    from firstkey.system import as_user, child
    from firstkey.system.tree import Tree
    def work():
        with Tree(sys.argv[1]) as tree:
            tree.write("/alice/.ssh/authorized_keys", b"key", mode=0o600)
    try:
        work()
    except FirstkeyError as error:
        print(error.reason.code)
    as_user.run_as(Account("alice", int(sys.argv[2]), int(sys.argv[3]), "/alice", "/"), [], work)
"""


@pytest.mark.root
def test_a_home_that_root_cannot_enter_is_served(homes: Path) -> None:
    """As on NFS with root squash: root is nobody there (no CAP_DAC_OVERRIDE), the user's process is not."""
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-dac_override,-dac_read_search",
            *processes.program(SQUASHED, homes, ALICE.uid, ALICE.gid),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=processes.environment(),
        timeout=processes.PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "permission-denied\n", "")
    assert (homes / "alice" / ".ssh" / "authorized_keys").read_bytes() == b"key"


INTERRUPTED = """
    import os, sys, time
    from firstkey.model import Account
    from firstkey.system import as_user, child
    child.own_signals(0)
    out = os.dup(1)
    def work():
        path = os.path.join(sys.argv[1], "temporary")
        try:
            open(path, "w").close()
            os.write(out, b"at work" + bytes([10]))
            while True:
                time.sleep(0.01)
        finally:
            os.unlink(path)
    as_user.run_as(Account("me", os.getuid(), os.getgid(), "/", "/"), [], work, seconds=60)
"""


def test_a_request_to_stop_lets_the_child_tidy_up(tmp_path: Path) -> None:
    """SIGTERM to the parent in the middle of the work: no temporary file stays in the home."""
    parent = processes.start(INTERRUPTED, tmp_path)
    assert parent.stdout
    assert parent.stdout.readline() == "at work\n"
    assert os.listdir(tmp_path) == ["temporary"]
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=processes.PATIENCE)
    assert parent.returncode == 0
    assert os.listdir(tmp_path) == []


def test_the_caller_without_root_works_with_its_own_rights() -> None:
    """An image of one's own needs no root: ids and groups stay as they are."""
    code = """
        import os
        from firstkey.model import Account
        from firstkey.system import as_user, child
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(64102); os.setuid(64102)
        ids = lambda: [*os.getresuid(), *os.getresgid(), os.getgroups()]
        print(as_user.run_as(Account("x", 1, 1, "/", "/"), [5], ids) == ids())
    """
    assert processes.run(code) == "True\n"
