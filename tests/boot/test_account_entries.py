"""Entries of accounts in a tree: as shadow's tools write them, and nothing outside, whatever is in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import processes
import pytest
import treestate

from firstkey import config
from firstkey.boot import account_entries, accounts
from firstkey.boot.target import Target
from firstkey.config import User
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree

SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
USERADD = shutil.which("useradd", path=SYSTEM_PATH)
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not USERADD, reason="needs useradd, to compare with (passwd, shadow-utils)"),
]

FILES = {
    "passwd": "root:x:0:0::/root:/bin/sh\nolder:x:1003:1003::/home/older:/bin/sh\n",
    "shadow": "root:*:1::::::\nolder:!:1::::::\n",
    "group": "root:x:0:\nadm:x:4:older\nwheel:x:10:\nusers:x:100:\nolder:x:1003:\n",
    "gshadow": "root:*::\nadm:*::older\nwheel:*::\nusers:*::\nolder:!::\n",
    "subuid": "older:100000:65536\n",
    "subgid": "older:100000:65536\n",
}
PRIVATE = ("shadow", "gshadow")
EPOCH = "1700000000"


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same day for both."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    monkeypatch.setenv("PATH", SYSTEM_PATH)


class Case(NamedTuple):
    """A tree and an account: what is different from the plain ones. A file that is None is not there."""

    login: str = "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n"
    useradd: str = "SHELL=/bin/sh\n"
    files: dict[str, str | None] = {}  # noqa: RUF012 - a tuple's default; nobody changes it
    groups: tuple[str, ...] = ("wheel", "adm")
    shell: str = ""


OWN = "USERGROUPS_ENAB yes\n"
ALL = "UID_MIN 1000\nUSERGROUPS_ENAB no\n"
OTHERS = "UID_MIN 2000\nUID_MAX 2999\nGID_MIN 5000\nGID_MAX 5999\n"
FEW = "SUB_UID_MIN 7000\nSUB_GID_MIN 8000\nSUB_UID_COUNT 10\nSUB_GID_COUNT 20\n"
NIS = {"passwd": "+::::::\n", "shadow": "+::::::::\n", "group": "+:::\n"}


def more(**lines: str) -> dict[str, str | None]:
    """The plain files with these lines behind their own."""
    return {name: FILES[name] + line for name, line in lines.items()}


CASES = {
    "plain": Case(),
    "the machine's own settings": Case(login=Path("/etc/login.defs").read_text(encoding="utf-8")),
    "no groups, a shell": Case(groups=(), shell="/bin/dash"),
    "no settings": Case(login="", groups=()),
    "ages": Case(login=f"PASS_MAX_DAYS 99\nPASS_MIN_DAYS\t1\nPASS_WARN_AGE 7\n{OWN}"),
    "the end of passwords": Case(useradd="SHELL=/bin/sh\nINACTIVE=30\n"),
    "no end of passwords": Case(useradd="SHELL=/bin/sh\nINACTIVE=-1\nEXPIRE=\n"),
    "other numbers": Case(login=OTHERS + OWN),
    "the last number is taken": Case(login=f"UID_MIN 1000\nUID_MAX 1003\nGID_MIN 1000\n{OWN}"),
    "the group's number is taken": Case(files=more(group="another:x:1004:\n")),
    "its group is there": Case(files=more(group="deploy:x:77:\n", gshadow="deploy:!::\n")),
    "a password of one that is gone": Case(files=more(shadow="deploy:$6$a$b:19000:0:9:7:::\n")),
    "one group for all": Case(login=ALL, useradd="SHELL=/bin/sh\nGROUP=100\n"),
    "one group for all, by name": Case(login=ALL, useradd="SHELL=/bin/sh\nGROUP=wheel\n", groups=("adm",)),
    "the mode of homes": Case(login=f"HOME_MODE 0711\nUMASK 077\n{OWN}"),
    "a mask": Case(login=f"UMASK 027\n{OWN}"),
    "homes elsewhere": Case(useradd="SHELL=/bin/sh\nHOME=/srv/people\n"),
    "NIS": Case(files=more(**NIS)),
    "no last newline": Case(files={name: content.rstrip("\n") for name, content in FILES.items()}),
    "no subordinate numbers": Case(files={"subuid": None, "subgid": None}),
    "the first subordinate numbers": Case(files={"subuid": "", "subgid": ""}),
    "gaps": Case(files={"subuid": "a:165536:1\n", "subgid": "a:9:100001\nb:165546:9\n"}),
    "few subordinate numbers": Case(login=FEW + OWN),
    "no gshadow": Case(files={"gshadow": None}),
    "no shadow": Case(files={"shadow": None}),
    "odd lines": Case(files={"passwd": f"# people\n{FILES['passwd']}\nbroken\n", **more(group="\n#\n")}),
}  # fmt: skip


def put(root: Path, case: Case = CASES["plain"]) -> Path:
    """The case's tree."""
    for directory in ("etc/default", "etc/skel/dir", "home", "srv/people"):
        (root / directory).mkdir(parents=True)
    for name, content in {**FILES, **case.files}.items():
        if content is not None:
            (root / "etc" / name).write_text(content)
            (root / "etc" / name).chmod(0o640 if name in PRIVATE else 0o644)
    (root / "etc/login.defs").write_text(case.login)
    (root / "etc/default/useradd").write_text(case.useradd)
    (root / "etc/skel/.profile").write_text("of the tree\n")
    (root / "etc/skel/dir/tool").write_text("#!/bin/sh\n")
    (root / "etc/skel/dir/tool").chmod(0o750)
    (root / "etc/skel/link").symlink_to("dir/tool")
    return root


def set_up(root: Path, case: Case = CASES["plain"], *, rule: str = "") -> list[tuple[str, str | None]]:
    """Have firstkey make the account; what became of each change."""
    user = User("deploy", True, case.groups, case.shell, rule, "")
    with Tree(str(root)) as tree:
        setup = accounts.set_up(Target(tree, Accounts(tree), config.read(()), lambda _entry: None), user)
    return [(each.result, each.refusal and each.refusal.reason.code) for each in setup.results]


def state(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """The tree, but for the file that only this lock leaves."""
    return {path: entry.looks for path, entry in treestate.take(root).items() if path != "/etc/.pwd.lock"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.sample(3)
def test_the_entries_are_those_of_useradd(tmp_path: Path, case: Case) -> None:
    """Every byte, mode and owner of the files, their backups and the home."""
    ours, theirs = put(tmp_path / "ours", case), put(tmp_path / "theirs", case)
    has_group = "deploy:" in (theirs / "etc/group").read_text()
    argv = [
        "useradd",
        "--prefix",
        str(theirs),
        "--create-home",
        "--password",
        "*",
        "--skel",
        f"{theirs}/etc/skel",
    ]
    argv += ["--gid", "deploy"] if has_group else []
    argv += ["--groups", ",".join(case.groups)] if case.groups else []
    argv += ["--shell", case.shell] if case.shell else []
    subprocess.run([*argv, "deploy"], check=True, capture_output=True, timeout=60)
    assert set_up(ours, case) == [("changed", None)]
    assert state(ours) == state(theirs)
    assert set_up(ours, case) == []


def test_what_a_cut_off_useradd_left_out_is_made(tmp_path: Path) -> None:
    """It writes passwd first: without a line in shadow, nobody could log in, with a key either."""
    root = put(tmp_path / "tree", Case(files=more(passwd="deploy:x:1005:1005::/home/deploy:/bin/sh\n")))
    set_up(root)
    assert "\ndeploy:*:" in (root / "etc/shadow").read_text()
    assert "\ndeploy:x:1005:" in (root / "etc/group").read_text()


@pytest.mark.parametrize("case", ["plain", "no gshadow", "no last newline", "NIS"])
def test_the_groups_are_those_of_usermod(tmp_path: Path, case: str) -> None:
    """Of an account that is there already."""
    ours, theirs = put(tmp_path / "ours", CASES[case]), put(tmp_path / "theirs", CASES[case])
    (ours / "home/older").mkdir()
    (theirs / "home/older").mkdir()
    argv = ["usermod", "--prefix", str(theirs), "--append", "--groups", "wheel,users", "older"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    with Tree(str(ours)) as tree:
        user = User("older", True, ("wheel", "users", "adm"), "", "", "")
        setup = accounts.set_up(Target(tree, Accounts(tree), config.read(()), lambda _entry: None), user)
    assert [each.result for each in setup.results] == ["changed"]
    group, their_group = ((root / "etc/group").read_bytes() for root in (ours, theirs))
    assert group.rstrip(b"\n") == their_group.rstrip(b"\n")
    assert (ours / "etc/passwd").read_text() == (CASES[case].files.get("passwd") or FILES["passwd"])


def test_what_is_there_of_an_account_is_kept(tmp_path: Path) -> None:
    """Of one without a home, and in no group yet: only that comes to it."""
    root = put(tmp_path / "ours")
    for name, line in {
        "passwd": "deploy:x:1500:1500::/home/deploy:/bin/zsh",
        "group": "deploy:x:1500:",
    }.items():
        (root / "etc" / name).write_text(f"{FILES[name]}{line}\n")
    assert set_up(root) == [("changed", None)]
    assert "deploy:x:1500:1500::/home/deploy:/bin/zsh\n" in (root / "etc/passwd").read_text()
    assert (root / "home/deploy/dir/tool").stat().st_uid == 1500
    assert set_up(root) == []


# --- what leads out of the tree -------------------------------------------------------------------

PLACES = [
    f"/etc/{name}{ending}"
    for name in FILES
    for ending in ("", "-", "+", ".lock", ".PID")
] + [
    "/etc", "/etc/.pwd.lock", "/etc/login.defs", "/etc/default", "/etc/default/useradd", "/etc/fstab",
    "/etc/skel", "/etc/skel/dir", "/etc/skel/.profile", "/etc/sudoers.d", "/etc/sudoers.d/firstkey-deploy",
    "/home", "/home/deploy", "/var", "/var/mail", "/var/mail/deploy", "/var/spool/mail/deploy",
    "/usr/etc/skel", "/usr/etc/login.defs",
]  # fmt: skip
OUTSIDE = {**FILES, "login.defs": "UID_MIN 7\n", "useradd": "HOME=/srv\n", ".profile": "the host's\n"}


def host(directory: Path) -> Path:
    """What stands for the host: files like those of its /etc, and what links may lead to."""
    for place in ("etc", "dir/deploy", "dir/dir"):
        (directory / place).mkdir(parents=True)
        for name, content in OUTSIDE.items():
            (directory / place / name).write_text(content)
    return directory


Trap = Callable[[Path, Path], object]
TRAPS: dict[str, Trap] = {
    "a link to a file": lambda path, outside: path.symlink_to(outside / "etc/passwd"),
    "a link to a directory": lambda path, outside: path.symlink_to(outside / "dir"),
    "a link to nothing yet": lambda path, outside: path.symlink_to(outside / "new"),
    "a link out by way of ..": lambda path, outside: path.symlink_to(f"{'../' * 30}{outside}/etc/passwd"),
    "a pipe": lambda path, _outside: os.mkfifo(path),
    "a directory": lambda path, _outside: path.mkdir(),
    "a hard link": lambda path, outside: os.link(outside / "etc/passwd", path),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
@pytest.mark.sample(29)
def test_nothing_outside_the_tree_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, trap: Trap
) -> None:
    """Whatever stands in the place of each file and directory that shadow's tools would touch."""
    monkeypatch.setattr(account_entries, "LOCK_SECONDS", 0.05)
    outside = host(tmp_path / "host")
    root = put(tmp_path / "tree")
    path = root / place.lstrip("/").replace("PID", str(os.getpid()))
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    trap(path, outside)
    before = treestate.take(outside)
    set_up(root, rule="ALL=(ALL) NOPASSWD: ALL")
    set_up(root)
    assert treestate.take(outside) == before
    text = b"".join(
        entry.content for name, entry in treestate.take(root).items() if name.startswith("/home/")
    )
    assert b"the host's" not in text


def test_the_traps_would_catch_useradd(tmp_path: Path) -> None:
    """The program itself writes through a link that lies in the place of a backup: so the test can fail."""
    outside, root = host(tmp_path / "host"), put(tmp_path / "tree")
    (root / "etc/passwd-").symlink_to(outside / "etc/passwd")
    (root / "etc/passwd").write_text(f"{FILES['passwd']}more:x:3:3::/:/bin/sh\n")
    before = treestate.take(outside)
    subprocess.run(["useradd", "--prefix", str(root), "deploy"], check=True, capture_output=True, timeout=60)
    assert treestate.take(outside) != before


# --- others at work -------------------------------------------------------------------------------

ADDING = """
    import subprocess, sys
    for number in range(int(sys.argv[2])):
        subprocess.run([sys.argv[3], "--prefix", sys.argv[1], f"theirs{number}"], check=True)
"""


def ensure(root: Path, name: str) -> None:
    """Have firstkey write the entries of an account."""
    with Tree(str(root)) as tree:
        user = User(name, True, (), "", "", "")
        account_entries.ensure(tree, user, ["wheel"], f"/home/{name}")


def test_no_account_is_lost_that_another_step_of_the_build_adds(tmp_path: Path) -> None:
    """Useradd and firstkey make accounts at the same time: all are there, each with a number of its own."""
    root, number = put(tmp_path / "tree"), 10
    other = processes.start(ADDING, root, number, USERADD)
    made = 0
    while other.poll() is None or made < 2:
        begin = time.monotonic()
        ensure(root, f"ours{made}")
        made += 1
        # Shadow's tools look 15 times, once a second, whether a lock is free.
        time.sleep(2 * (time.monotonic() - begin))
    _, logged = other.communicate()
    assert other.returncode == 0, logged
    users_made = [f"theirs{each}" for each in range(number)] + [f"ours{each}" for each in range(made)]
    for name, content in FILES.items():
        lines = (root / "etc" / name).read_text().splitlines()
        assert {line.partition(":")[0] for line in lines} >= set(users_made), name
        assert len(lines) == len(content.splitlines()) + len(users_made)
    numbers = re.findall("^[^:]+:x:([0-9]+):", (root / "etc/passwd").read_text(), re.MULTILINE)
    assert len(numbers) == len(set(numbers))
    assert {path.name for path in root.glob("etc/*.lock")} <= {".pwd.lock"}


HOLDING = """
    import fcntl, sys, time
    with open(sys.argv[1], "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        print(flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("lock", ["passwd.lock", "subgid.lock"])
def test_a_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    """For as long as shadow's tools do; then that is the reason, and nothing is written."""
    root = put(tmp_path / "tree")
    (root / "etc" / lock).write_text(f"{os.getpid()}\0")
    before = treestate.take(root)
    monkeypatch.setattr(account_entries, "LOCK_SECONDS", 0.2)
    assert set_up(root) == [("failed", "concurrent-change")]
    after = treestate.take(root)
    after.pop("/etc/.pwd.lock")
    assert after == before
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (root / "etc" / lock).write_text(f"{dead.pid}\0")
    assert set_up(root) == [("changed", None)], "its holder was killed"
    assert not (root / "etc" / lock).exists()


def test_the_lock_of_the_library_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lckpwdf(3), which systemd-sysusers takes."""
    root = put(tmp_path / "tree")
    monkeypatch.setattr(account_entries, "LOCK_SECONDS", 0.2)
    other = processes.start(HOLDING, root / "etc/.pwd.lock")
    try:
        assert other.stdout
        assert other.stdout.readline() == "\n"
        assert set_up(root) == [("failed", "concurrent-change")]
    finally:
        other.kill()
        other.communicate()
    assert set_up(root) == [("changed", None)]


# --- the pure parts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", b"new\n"),
        (b"a", b"a\nnew\n"),
        (b"a\n\n", b"a\n\nnew\n"),
        (b"a\n+::\nb\n", b"a\nnew\n+::\nb\n"),
        (b"a\n-x\n+::", b"a\nnew\n-x\n+::\n"),
        (b"\xff\r\n\0", b"\xff\r\n\0\nnew\n"),
    ],
)
def test_a_line_is_added_and_nothing_else_changes(content: bytes, expected: bytes) -> None:
    """Every other byte is as it was."""
    assert account_entries.with_line(content, b"new") == expected


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"g:x:1:", b"g:x:1:me"),
        (b"g:x:1:a\ng:x:2:\n", b"g:x:1:a,me\ng:x:2:\n"),
        (b"g:x:1:a,me\n", b"g:x:1:a,me\n"),
        (b"G:x:1:\nbroken\ng\n", b"G:x:1:\nbroken\ng\n"),
        (b"\xff:x:1:\ng:x:1:mexico\n", b"\xff:x:1:\ng:x:1:mexico,me\n"),
    ],
)
def test_a_member_is_added_and_nothing_else_changes(content: bytes, expected: bytes) -> None:
    """The first group of that name, as for libc."""
    assert account_entries.with_member(content, b"g", b"me") == expected
