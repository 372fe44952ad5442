"""Who has an account: as libc reads the files, and NSS with a time limit."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import processes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey import reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree


class Read(Protocol):
    """Makes accounts of what stands in passwd and group."""

    def __call__(self, passwd: str, group: str = "") -> Accounts: ...


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """Makes accounts of what stands in passwd and group."""
    (tmp_path / "etc").mkdir()

    def made(passwd: str, group: str = "") -> Accounts:
        for name, text in (("passwd", passwd), ("group", group)):
            (tmp_path / "etc" / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        return Accounts(tree)

    with Tree(str(tmp_path)) as tree:
        yield made


def test_an_account_is_found(read: Read) -> None:
    """Name, numbers, home and shell; the first of two lines counts; no shell is /bin/sh (passwd(5))."""
    accounts = read(
        "root:x:0:0:root:/root:/bin/bash\n"
        "user:x:1000:1001:A,B,C:/home/user:\n"
        "user:x:0:0::/evil:/bin/sh\n"
        "short:x:1002:1002::/home/short"
    )
    assert accounts.find("root") == Account("root", 0, 0, "/root", "/bin/bash")
    assert accounts.find("user") == Account("user", 1000, 1001, "/home/user", "/bin/sh")
    assert accounts.find("short") == Account("short", 1002, 1002, "/home/short", "/bin/sh")
    assert accounts.find("nobody") is None
    assert accounts.unknown("nobody").reason is reasons.NO_SUCH_USER


@pytest.mark.parametrize(
    "line",
    [
        "", ":", "::::::", "user", "user:x", "user:x:1000:1000", "user:x:1000:1000:gecos",
        "user:x::1000::/h:/s",
        "user:x:1000:::/h:/s", "user:x:-1:1000::/h:/s", "user:x:0x10:1000::/h:/s",
        "user:x:4294967295:1::/h:/s",
        "user:x:1:4294967295::/h:/s", "user:x:99999999999:1::/h:/s", "user:x:1000:1000::home:/s",
        "user:x:1000:1000:::/s", "#user:x:1000:1000::/h:/s", "+user:x:0:0::/h:/s", "-user:x:0:0::/h:/s",
        "+:x:0:0::/h:/s", "+@group:x:0:0::/h:/s", "user :x:1000:1000::/h:/s", "user:x:1 :1::/h:/s",
        "\0user:x:1:1::/h:/s", "user\0:x:1:1::/h:/s", "user:x:1:1::\0:/h:/s",
    ],
)  # fmt: skip
def test_a_broken_line_names_nobody_and_hides_nobody(read: Read, line: str) -> None:
    """Above and below it, accounts are found; not one with a number that means "nobody" to the kernel."""
    accounts = read(f"above:x:1:1::/a:/s\n{line}\nbelow:x:2:2::/b:/s\n")
    assert [account.name for account in accounts.all() if account.name != "user "] == ["above", "below"]
    assert accounts.find("user") is None


def test_names_that_are_no_text_survive(read: Read) -> None:
    """Any byte but the separators, and no last newline."""
    account = read("\udcff\udcfe:x:5:5::/h/\udcff:/s").find("\udcff\udcfe")
    assert account
    assert os.fsencode(account.home) == b"/h/\xff"


def test_groups_are_those_of_initgroups(read: Read) -> None:
    """The primary one first, then each that lists the name, and no other; broken lines are nobody's."""
    accounts = read(
        "user:x:1000:1000::/h:/s\n",
        "user:x:1000:\nwheel:x:10:a,user,b\nother:x:11:user2\nfar:x:12:user\n"
        "broken:x:many:user\n+:x:13:user\nminus:x:-1:user\nlast:x:14",
    )
    account = accounts.find("user")
    assert account
    assert accounts.group_ids(account) == [1000, 10, 12]
    assert accounts.group_id("wheel") == 10
    assert accounts.group_id("last") == 14
    assert accounts.group_id("broken") is None


FIELD = st.text(st.sampled_from("ab01+-# \t"), max_size=3)
LINE = st.lists(st.one_of(FIELD, st.sampled_from(["/h", "0", "7", "a"])), min_size=5, max_size=8).map(
    ":".join
)


@given(st.lists(LINE, max_size=4))
def test_libc_finds_the_same_accounts(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Whatever stands in the file, each account found is one that libc finds there, with the same values."""
    etc = tmp_path_factory.mktemp("root") / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("\n".join(lines) + "\n")
    with Tree(str(etc.parent)) as tree:
        ours = Accounts(tree).all()
    theirs = libc_accounts(etc / "passwd")
    for account in ours:
        assert account._replace(shell="") in [found._replace(shell="") for found in theirs]


def libc_accounts(file: Path) -> list[Account]:
    """What fgetpwent(3) reads."""
    import ctypes

    class Entry(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_char_p), ("password", ctypes.c_char_p), ("uid", ctypes.c_uint32),
            ("gid", ctypes.c_uint32), ("gecos", ctypes.c_char_p), ("home", ctypes.c_char_p),
            ("shell", ctypes.c_char_p),
        ]  # fmt: skip

    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fgetpwent.restype = ctypes.POINTER(Entry)
    libc.fgetpwent.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
    stream = libc.fopen(str(file).encode(), b"r")
    found = []
    while entry := libc.fgetpwent(stream):
        each = entry.contents
        found.append(Account(each.name.decode(), each.uid, each.gid, each.home.decode(), each.shell.decode()))
    libc.fclose(stream)
    return found


def test_a_file_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    """It is not read into memory."""
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc" / "passwd").open("wb") as file:
        file.truncate(1 << 30)
    with Tree(str(tmp_path)) as tree, pytest.raises(FirstkeyError) as caught:
        Accounts(tree).find("root")
    assert caught.value.reason is reasons.FILE_TOO_LARGE


def test_an_image_knows_nobody_of_the_hosts(read: Read) -> None:
    """NSS is the running system's: in a tree, only its own files count."""
    me = pwd.getpwuid(os.geteuid())
    assert read("").find(me.pw_name) is None


def test_the_running_system_knows_itself() -> None:
    """Its accounts and their groups are those that libc tells."""
    with Tree("/") as host:
        accounts = Accounts(host)
        me = pwd.getpwuid(os.geteuid())
        account = accounts.find(me.pw_name)
        assert account
        assert (account.uid, account.gid, account.home) == (me.pw_uid, me.pw_gid, me.pw_dir)
        assert sorted(accounts.group_ids(account)) == sorted(os.getgrouplist(me.pw_name, me.pw_gid))
        assert accounts.find("no-such-user-here") is None
        assert accounts.unknown("no-such-user-here").reason is reasons.NO_SUCH_USER


HANGING_NSS = """
    #include <nss.h>
    #include <pwd.h>
    #include <string.h>
    #include <unistd.h>
    enum nss_status _nss_trial_getpwnam_r(const char *name, struct passwd *found, char *buffer, size_t size,
                                          int *error) {
        if (strcmp(name, "hanging") == 0) sleep(60);
        if (strcmp(name, "faraway") != 0) return NSS_STATUS_NOTFOUND;
        memset(found, 0, sizeof *found);
        strcpy(buffer, "faraway"); found->pw_name = buffer;
        found->pw_passwd = found->pw_gecos = "";
        found->pw_dir = "/home/faraway"; found->pw_shell = "";
        found->pw_uid = 70001; found->pw_gid = 70002;
        return NSS_STATUS_SUCCESS;
    }
    enum nss_status _nss_trial_initgroups_dyn(const char *name, gid_t group, long *start, long *size,
                                              gid_t **groups, long limit, int *error) {
        if (strcmp(name, "faraway") == 0) sleep(60);
        return NSS_STATUS_NOTFOUND;
    }
"""

ASKING = """
    import time
    from firstkey.system import accounts
    from firstkey.system.tree import Tree
    HANGS, ANSWERS = 1.0, 50.0  # a good answer may take its time on a busy machine
    with Tree("/") as host:
        known = accounts.Accounts(host)
        accounts.NSS_SECONDS = HANGS
        begin = time.monotonic()
        print(known.find("hanging"), known.find("hanging"), known.unknown("hanging").reason.code)
        accounts.NSS_SECONDS = ANSWERS
        print(known.find("faraway"))
        accounts.NSS_SECONDS = HANGS
        print(known.group_ids(known.find("faraway")), time.monotonic() - begin < 50)
        accounts.NSS_SECONDS = ANSWERS
        print(known.find("root").uid, known.find("nobody-at-all"), known.unknown("nobody-at-all").reason.code)
"""


@pytest.mark.root
def test_a_directory_service_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Whom it does not tell in time is no known account, and it is not asked twice; others are found."""
    module = tmp_path / "libnss_trial.so.2"
    source = tmp_path / "trial.c"
    source.write_text(HANGING_NSS)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", module, source], check=True)
    except FileNotFoundError:
        pytest.skip("needs a C compiler, to make a name service that hangs")
    configuration = tmp_path / "nsswitch.conf"
    configuration.write_text("passwd: files trial\\ngroup: files trial\\n".replace("\\n", "\n"))
    script = 'mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", configuration, *processes.program(ASKING)],
        capture_output=True,
        text=True,
        check=False,
        env=processes.environment(LD_LIBRARY_PATH=str(tmp_path)),
        timeout=processes.PATIENCE,
    )
    assert done.stdout.splitlines() == [
        "None None timed-out",
        "Account(name='faraway', uid=70001, gid=70002, home='/home/faraway', shell='/bin/sh')",
        "[70002] True",
        "0 None no-such-user",
    ], done.stderr
