"""Who would have seal remove what is not theirs: by a line, a link, a setting, or an exchange in between.

Everything in the tree that was not meant is compared before and after.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dead_homes
import fork_server
import pytest
import treestate
from image_builder import Builder, audited
from machine import AGENT, new_key
from private_system import PrivateSystem
from treestate import Entry

from firstkey import reasons
from firstkey.image import door, rules, seal
from firstkey.image.changes import Change, Empty, Remove
from firstkey.reasons import FirstkeyError
from firstkey.system.mounts import Mount
from firstkey.system.tree import Tree

pytestmark = [pytest.mark.root, pytest.mark.sshd]

ANN, BOB = 1000, 1001
PASSWD = (
    "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:{}:/home/ann:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/sh\n"
)
PRECIOUS = (
    "/etc/shadow", "/etc/fstab", "/etc/ssh/sshd_config", "/etc/site.conf", "/usr/bin/tool", "/srv/data/db",
    "/var/lib/app/state", "/home/bob/notes", "/home/ann/notes", "/boot/vmlinuz",
)  # fmt: skip


@pytest.fixture
def town(builder: Builder) -> Builder:
    """A tree with two users, and files that nobody may lose."""
    builder.file("/etc/passwd", PASSWD.format(""))
    for path in PRECIOUS:
        builder.file(path, f"precious: {path}\n", mode=0o600)
    builder.file("/etc/ssh/sshd_config", "# none\n")
    builder.file("/etc/shadow", "root:*:19000::::::\nann:*:19000::::::\n", mode=0o640)
    builder.directory("/root")
    builder.directory("/var/log")
    for name, uid in (("ann", ANN), ("bob", BOB)):
        for place in (f"/home/{name}", f"/home/{name}/notes"):
            os.chown(builder.path(place), uid, uid)
    return builder


def give(builder: Builder, path: str, content: str, uid: int = ANN) -> None:
    """A file of the user's: "->" before it makes it a link."""
    if content.startswith("->"):
        builder.link(path, content[2:])
    else:
        builder.file(path, content, mode=0o600)
    os.chown(builder.path(path), uid, uid, follow_symlinks=False)


def run(builder: Builder, *options: str) -> dict[str, Any]:
    """Seal the tree as people do."""
    argv = ("seal", "--root", str(builder.root), "--json", *options)
    done = fork_server.firstkey(*argv, environ=os.environ, timeout=100)
    assert b"Traceback" not in done.err
    report: dict[str, Any] = json.loads(done.out)
    return {**report, "status": done.status}


def looks(builder: Builder) -> dict[str, tuple[object, ...]]:
    """Everything in the tree, but for what directories and seal's own notes say."""
    state: Mapping[str, Entry] = treestate.take(builder.root)
    return {path: entry.looks for path, entry in state.items() if not path.startswith("/var/lib/firstkey")}


# A file of ann's, what is in it ("->": a link), and what may be gone or changed afterwards.
LINES: list[tuple[str, dict[str, str], set[str]]] = [
    ("a file of the system", {".bashrc": "HISTFILE=/etc/shadow\n"}, set()),
    ("another shell", {".zshrc": "export HISTFILE=/usr/bin/tool\n"}, set()),
    ("declared", {".bash_profile": "declare -x HISTFILE='/etc/ssh/sshd_config'\n"}, set()),
    ("any name", {".profile": "HISTFILE=/srv/data/$X\n"}, set()),
    ("every name", {".profile": "HISTFILE=/$X/$Y\n"}, set()),
    ("up and away", {".kshrc": "HISTFILE=~/../../etc/fstab\n"}, set()),
    ("another's home", {".bashrc": "HISTFILE=/home/bob/notes\n"}, set()),
    ("a link", {".bashrc": "HISTFILE=~/l\n", "l": "->/etc/shadow"}, set()),
    ("a link of a link", {".bashrc": "HISTFILE=~/l\n", "l": "->m", "m": "->/srv/data/db"}, set()),
    ("a linked directory", {".bashrc": "HISTFILE=~/d/fstab\n", "d": "->/etc"}, set()),
    ("her own", {".bashrc": "HISTFILE=~/typed\n", "typed": "ls\n"}, {"/home/ann/typed"}),
    ("her own by its path", {".bashrc": "HISTFILE=/home/ann/typed\n", "typed": "ls\n"}, {"/home/ann/typed"}),
    ("a known name", {".bash_history": "->/etc/shadow"}, {"/home/ann/.bash_history"}),
    ("another's notes", {".lesshst": "ls\n", ".zsh_history": "->/home/bob/notes"},
     {"/home/ann/.lesshst", "/home/ann/.zsh_history"}),
    ("round", {".bash_history": "->.zsh_history", ".zsh_history": "->.bash_history"},
     {"/home/ann/.bash_history", "/home/ann/.zsh_history"}),
    ("dot files kept elsewhere", {".inputrc": "->notes", ".vim": "->/srv/data", ".gone": "->/x"}, set()),
    ("her own behind a link", {".bash_history": "->h", "h": "ls\n"},
     {"/home/ann/.bash_history", "/home/ann/h"}),
]  # fmt: skip


@pytest.mark.parametrize("files,gone", [case[1:] for case in LINES], ids=[case[0] for case in LINES])
@pytest.mark.sample(6)
def test_what_a_user_writes_names_only_that_users_own(
    town: Builder, files: dict[str, str], gone: set[str]
) -> None:
    """Lines and links of ann's: nothing goes but hers."""
    for name, content in files.items():
        give(town, f"/home/ann/{name}", content)
    before = looks(town)
    report = run(town, "--rule", "histories")
    after = looks(town)
    assert {path for path in before if after.get(path) != before[path]} == gone
    assert after.keys() <= before.keys()
    assert report["status"] == 0


@pytest.mark.parametrize("line", ["/var/lib/$APP/$(whoami)", "/srv/$TEAM/$USER", "/srv/data/$X", "/$X/$USER"])
@pytest.mark.sample(4)
def test_a_variable_stands_for_no_name_but_the_users(town: Builder, line: str) -> None:
    """It would fit a database just as well: what it may mean is unknown, and nothing goes."""
    town.file("/etc/profile.d/b.sh", f"HISTFILE={line}\n")
    town.file("/var/lib/mysql/ibdata1", "precious\n")
    before = looks(town)
    report = run(town, "--rule", "histories")
    assert looks(town) == before
    assert report["status"] == 1


def test_a_name_is_taken_out_of_a_line_and_localhost_stays(town: Builder) -> None:
    """Many add the machine's name behind localhost, for sudo's sake."""
    town.file("/etc/hostname", "ip-10-0-3-17\n")
    lines = "127.0.0.1 localhost ip-10-0-3-17\n::1 localhost\n10.0.3.17 ip-10-0-3-17.x ip-10-0-3-17 db\n"
    town.file("/etc/hosts", f"{lines}10.0.3.17 ip-10-0-3-17 # me\n# 10.0.3.17 ip-10-0-3-17\n")
    run(town, "--rule", "builder-names")
    left = "127.0.0.1 localhost\n::1 localhost\n10.0.3.17 db\n# 10.0.3.17 ip-10-0-3-17\n"
    assert town.path("/etc/hosts").read_text() == left


def test_a_machine_id_that_leads_to_something_else_is_left(town: Builder) -> None:
    """What it leads to would be lost, and no system boots without passwd."""
    town.link("/etc/machine-id", "passwd")
    before = town.path("/etc/passwd").read_text()
    assert run(town, "--rule", "machine-id")["status"] == 1
    assert town.path("/etc/passwd").read_text() == before


@pytest.mark.parametrize("target", ["home", "home/ann"])
@pytest.mark.parametrize("place", ["tmp", "var/tmp", "var/log", "var/mail", "var/spool/mail", "var/crash"])
@pytest.mark.sample(12)
def test_a_link_at_a_place_that_is_emptied_takes_no_home_along(
    town: Builder, place: str, target: str
) -> None:
    """Who keeps /tmp or the logs on the disk of the homes has not given the homes away."""
    link = town.path(f"/{place}")
    if link.is_dir():
        link.rmdir()
    town.link(f"/{place}", f"{'../' * place.count('/')}{target}")
    before = treestate.take(town.path("/home"))
    run(town, "--yes")
    assert treestate.take(town.path("/home")) == before


@pytest.mark.parametrize("needed", ["/etc/shadow", "/etc/fstab", "/etc/ssh/sshd_config"])
@pytest.mark.parametrize("kept", ["{}.real", "/var/tmp/x/file", "/var/log/file.1"])
@pytest.mark.sample(4)
def test_what_a_needed_name_leads_to_is_needed(town: Builder, needed: str, kept: str) -> None:
    """A system that keeps it elsewhere and links to it has no other one."""
    before = town.path(needed).read_text()
    town.file(kept.format(needed), before)
    for link, leads in (("/var/tmp/link", kept.format(needed)), (needed, "/var/tmp/link")):
        town.path(link).unlink(missing_ok=True)
        town.link(link, leads)
    run(town, "--rule", "account-backups", "--rule", "temporary-files", "--rule", "logs")
    assert town.path(kept.format(needed)).read_text() == before
    assert os.readlink(town.path("/var/tmp/link")) == kept.format(needed)
    for path in (kept.format(needed), "/var/tmp/link"):
        with pytest.raises(FirstkeyError, match="is the system's"):
            Remove(path, "x", seen=door.seen(os.lstat(town.path(path)))).apply(town.context())


def test_the_running_system_by_another_name_is_the_running_system(tmp_path: Path) -> None:
    """Bound to another place, it is no image: seal asks, and here nobody can be asked."""
    seal_it = [sys.executable, "-m", "firstkey", "seal", "--root", str(tmp_path)]
    bind = f'mount --bind / {tmp_path} && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", bind, "sh", *seal_it]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )
    assert (done.returncode, "there is no terminal to ask on" in done.stderr) == (2, True)


def test_a_second_name_of_anothers_file_is_not_overwritten(town: Builder) -> None:
    """Where hard links to anybody's files are allowed, they are taken away and not followed."""
    for name in (".bash_history", "typed"):
        os.link(town.path("/srv/data/db"), town.path(f"/home/ann/{name}"))
    give(town, "/home/ann/.bashrc", "HISTFILE=~/typed\n")
    run(town, "--rule", "histories")
    assert town.path("/srv/data/db").read_text() == "precious: /srv/data/db\n"
    assert town.path("/home/ann/typed").exists()
    assert not town.path("/home/ann/.bash_history").exists()


@pytest.mark.parametrize("second", [True, False])
def test_in_her_home_it_must_be_hers_and_have_one_name(town: Builder, second: bool) -> None:
    """A file of root's there, and one of hers that has another name as well, are for a person to look at."""
    give(town, "/home/ann/typed", "ls\n", ANN if second else 0)
    if second:
        os.link(town.path("/home/ann/typed"), town.path("/home/ann/other"))
    give(town, "/home/ann/.bashrc", "HISTFILE=~/typed\n")
    report = run(town, "--rule", "histories")
    assert report["steps"] == []
    assert report["status"] == int(second)
    assert town.path("/home/ann/typed").read_text() == "ls\n"


def test_her_own_file_elsewhere_is_for_a_person(town: Builder) -> None:
    """It may well be the history: that is not passed over in silence, and nothing is taken."""
    give(town, "/srv/ann-typed", "ls\n")
    give(town, "/home/ann/.bashrc", "HISTFILE=/srv/ann-typed\n")
    report = run(town, "--rule", "histories")
    (rule,) = report["audit"]["rules"]
    assert (report["status"], rule["outcome"], rule["unknown"][0]["reason"]) == (
        1,
        "unknown",
        "not-looked-at",
    )
    assert town.path("/srv/ann-typed").read_text() == "ls\n"


# The rule, the files ("->": a link), and what may be gone or changed afterwards.
SETTINGS: list[tuple[str, dict[str, str], set[str]]] = [
    ("host-keys", {"/etc/ssh/sshd_config": "HostKey /etc/shadow\nHostKey /etc/site.conf\n"}, set()),
    ("host-keys", {"/etc/ssh/sshd_config": "HostKey /etc/ssh/ssh_host_a_key/../../shadow\n",
                   "/etc/ssh/ssh_host_a_key/x": ""}, set()),
    ("host-keys", {"/etc/ssh/sshd_config": "HostCertificate /usr/bin/tool\n"}, set()),
    ("host-keys", {"/etc/ssh/ssh_host_rsa_key": "->../shadow"}, {"/etc/ssh/ssh_host_rsa_key"}),
    ("authorized-keys",
     {"/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/%u\n", "/etc/localtime": "->/x"}, set()),
    ("authorized-keys", {"/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/passwd /etc/site.conf\n"}, set()),
    ("authorized-keys", {"/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/zone\n",
                         "/etc/zone": "->/usr/bin/tool"}, set()),
    ("authorized-keys", {"/root/.ssh/authorized_keys": "->/etc/shadow"}, {"/root/.ssh/authorized_keys"}),
    ("histories", {"/etc/profile": "HISTFILE=/etc/$USER\n"}, set()),
    ("histories", {"/etc/profile": "HISTFILE=/$A/$B\n", "/etc/bashrc": "HISTFILE=/boot/vmlinuz\n"}, set()),
    ("histories", {"/etc/profile": "HISTFILE=/usr/bin/$X\n", "/etc/zshrc": "HISTFILE=/var/h\n",
                   "/var/h": "->/srv/data/db"}, set()),
    ("histories",
     {"/etc/profile": "HISTFILE=/home/$USER/typed\n", "/home/bob/typed": "->/srv/data/db"}, set()),
    ("histories", {"/root/.bash_history": "->/etc/fstab"}, {"/root/.bash_history"}),
    ("logs", {"/var/log/a.log": "->/etc/fstab", "/var/log/b.1": "->/usr/bin/tool"}, set()),
    ("mail", {"/var/mail/ann": "->/etc/site.conf"}, set()),
    ("mail", {"/var/spool/postfix/hold": "->/etc"}, set()),
    ("account-backups", {"/etc/shadow-": "->shadow"}, set()),
    ("cloud-credentials", {"/root/.aws/credentials": "->/etc/site.conf"}, set()),
    ("tool-credentials", {"/root/.password-store": "->/etc", "/etc/a.gpg": "x"}, set()),
    ("dhcp-leases", {"/var/lib/dhclient": "->/etc"}, set()),
    ("temporary-files", {"/tmp/x": "->/srv", "/home/ann/.a.swp": "->/etc/shadow"}, {"/tmp/x"}),
    ("temporary-files", {"/var/tmp": "->/etc"}, set()),
    ("crash-dumps", {"/var/crash": "->/boot"}, set()),
    ("cloud-init-data", {"/var/lib/cloud/instances": "->/etc"}, set()),
]  # fmt: skip


@pytest.mark.parametrize("rule,files,gone", SETTINGS, ids=[f"{case[0]}-{max(case[1])}" for case in SETTINGS])
@pytest.mark.sample(12)
def test_a_setting_or_a_link_of_roots_is_no_proof(
    town: Builder, rule: str, files: dict[str, str], gone: set[str]
) -> None:
    """It may name or lead to any file: what is no key or history, or is the system's, is left as it is."""
    for path, content in files.items():
        town.path(path).unlink(missing_ok=True)
        (town.link(path, content[2:]) if content.startswith("->") else town.file(path, content))
    before = looks(town)
    run(town, "--rule", rule, "--remove-credentials")
    after = looks(town)
    assert {path for path in before if after.get(path) != before[path]} == gone
    assert after.keys() <= before.keys()


def test_a_name_with_a_key_in_it_does_not_take_the_accounts_along(town: Builder) -> None:
    """Whoever may change the name that passwd has for her puts an access key there; the file stays."""
    key = "AKIA" + "Z7QK3WJT5NP2XR6M"
    town.file("/etc/passwd", PASSWD.format(key))
    report = run(town, "--rule", "access-keys", "--remove-credentials")
    assert town.path("/etc/passwd").read_text() == PASSWD.format(key)
    assert [entry["reason"] for entry in report["left"]] == ["needed-by-the-system"]
    assert report["status"] == 1


ID = "0123456789abcdef0123456789abcdef\n"


@pytest.mark.parametrize(
    "etc,dbus",
    [
        ("->/var/lib/dbus/machine-id", ID),
        ("->../var/lib/dbus/machine-id", ID),
        ("->hop", ID),
        (ID, ID),
        (ID, "->/data/id"),
        ("->/data/id", ID),
        ("->/data/id", "->/data/id"),
        ("->/var/lib/dbus/machine-id", "->/data/id"),
        ("->/var/lib/dbus/machine-id", "->/etc/machine-id"),
    ],
)
@pytest.mark.sample(9)
def test_machine_id_and_dbus_agree_whichever_is_the_link(town: Builder, etc: str, dbus: str) -> None:
    """Both say uninitialized through whatever links there are, and sealing again has nothing to do."""
    town.link("/etc/hop", "/var/lib/dbus/machine-id")
    town.file("/data/id", ID)
    for path, content in (("/etc/machine-id", etc), ("/var/lib/dbus/machine-id", dbus)):
        (town.link(path, content[2:]) if content.startswith("->") else town.file(path, content))
    report = run(town, "--rule", "machine-id")
    assert report["status"] == 0, report
    tree = town.target().tree
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        assert tree.read(path, limit=100) == b"uninitialized\n"
    assert run(town, "--rule", "machine-id")["steps"] == []


def test_machine_id_where_dbus_has_its_files_in_etc(town: Builder) -> None:
    """The two are one file then: no link to itself is put there."""
    town.file("/etc/machine-id", ID)
    town.link("/var/lib/dbus", "/etc")
    assert run(town, "--rule", "machine-id")["status"] == 0
    assert not town.path("/etc/machine-id").is_symlink()
    assert town.path("/etc/machine-id").read_text() == "uninitialized\n"


@pytest.mark.slow
def test_one_user_cannot_keep_the_histories_of_the_others(town: Builder) -> None:
    """A start-up file that is too large to be read is told; all else goes."""
    give(town, "/home/ann/.bashrc", "#" * (17 * 1024 * 1024))
    give(town, "/home/bob/.bash_history", "ls\n", BOB)
    report = run(town, "--rule", "histories")
    assert not town.path("/home/bob/.bash_history").exists()
    (rule,) = report["audit"]["rules"]
    assert [unknown["reason"] for unknown in rule["unknown"]] == ["file-too-large"]


def swap(path: Path, make: Callable[[Path], object]) -> object:
    """Put something else in the place of what is there."""
    path.rename(path.with_name("before"))
    return make(path)


def fill(directory: Path, name: str) -> None:
    """Make a directory with such a file in it."""
    directory.mkdir()
    (directory / name).write_text("another")


EXCHANGES: dict[str, Callable[[Builder, Path], object]] = {
    "another file": lambda _, path: swap(path, lambda new: new.write_text("another")),
    "a link": lambda town, path: swap(path, lambda new: new.symlink_to(town.path("/srv/data/db"))),
    "a second name": lambda _, path: os.link(path, path.with_name("second")),
    "another owner": lambda _, path: os.chown(path, BOB, BOB),
    "a directory": lambda _, path: swap(path, lambda new: new.mkdir()),
    "a pipe": lambda _, path: swap(path, os.mkfifo),
    "a link on the way": lambda town, path: (
        (town.path("/srv/data") / path.name).write_text("precious"),
        swap(path.parent, lambda new: new.symlink_to(town.path("/srv/data"))),
    ),
    "another directory on the way": lambda _, path: swap(path.parent, lambda new: fill(new, path.name)),
}
# A file that is rewritten has no other name afterwards, and stays whose it is.
REWRITTEN = ("debconf-passwords",)
HARMLESS_THERE = ("a second name", "another owner")
STEPS = [
    ("histories", "/home/ann/x/.bash_history", "ls\n"),
    ("mail", "/var/spool/postfix/hold/a", "x"),
    ("login-records", "/var/log/wtmp", "x"),
    ("host-keys", "/etc/ssh/ssh_host_rsa_key", "x"),
    ("debconf-passwords", "/var/cache/debconf/passwords.dat", "Value: x\n"),
    ("machine-id", "/var/lib/dbus/machine-id", ID),
]


@pytest.mark.parametrize(
    "exchange,rule,path,content",
    [
        (exchange, *step)
        for step in STEPS
        for exchange in EXCHANGES
        if step[0] not in REWRITTEN or exchange not in HARMLESS_THERE
    ],
)
@pytest.mark.sample(8)
def test_what_was_exchanged_since_it_was_looked_at_is_left(
    town: Builder, exchange: str, rule: str, path: str, content: str
) -> None:
    """Between the look and the step: nothing is touched then, and the step says why."""
    town.file(path, content, mode=0o600)
    (change,) = town.settled(rule)
    EXCHANGES[exchange](town, town.path(path))
    before = looks(town)
    with pytest.raises(FirstkeyError) as caught:
        change.apply(town.context())
    assert caught.value.reason in (reasons.CONCURRENT_CHANGE, reasons.NOT_A_REGULAR_FILE)
    assert looks(town) == before


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE (/dev/fuse)")
def test_a_server_that_is_gone_does_not_hold_seal(town: Builder, tmp_path: Path) -> None:
    """Where all homes are on it, as on a machine that builds images: nothing asks it."""
    town.file("/tmp/x", "x")
    argv = [sys.executable, "-m", "firstkey", "seal", "--root", str(town.root), "--rule", "temporary-files"]
    with PrivateSystem(tmp_path) as system, dead_homes.dead(system, f"{town.root}/home"):
        done = system.start("env", f"PYTHONPATH={AGENT}", *argv)
        done.communicate(timeout=100)
    assert (done.returncode, town.path("/tmp/x").exists()) == (0, False)


def test_nothing_is_opened_in_what_is_mounted_from_elsewhere(tmp_path: Path) -> None:
    """Whatever a plan says: the box that it came out of may have been taken over."""
    with Tree(str(tmp_path)) as tree:
        mount = Mount(f"{tmp_path}/srv", "ext4", "8:1", "/")
        context = door.Context(tree, lambda *_: True, foreign=(mount,))
        for path in ("/srv", "/srv/a/b"):
            with pytest.raises(FirstkeyError) as caught, context.door(path, make=True):
                pass
            assert caught.value.reason.code == "mounted-from-elsewhere"
    assert not any(tmp_path.iterdir())


def test_what_changed_since_it_was_read_is_not_replaced(tmp_path: Path) -> None:
    """What another step of the build wrote meanwhile stays."""
    (tmp_path / "file").write_text("old")
    with Tree(str(tmp_path)) as tree, tree.opened("/") as here:
        old = door.read(here, "file")
        (tmp_path / "file").write_text("theirs")
        with pytest.raises(FirstkeyError, match="changed while it was written"):
            door.put(here, "file", b"ours", old, mode=0o600)
    assert (tmp_path / "file").read_text() == "theirs"


def test_a_directory_that_was_exchanged_is_left(town: Builder) -> None:
    """What is removed with all that is in it is the directory that was looked at."""
    town.file("/tmp/build/x", "x")
    (change,) = town.settled("temporary-files")
    town.path("/tmp/build").rename(town.path("/tmp/other"))
    town.file("/tmp/build/precious", "x")
    with pytest.raises(FirstkeyError) as caught:
        change.apply(town.context())
    assert caught.value.reason is reasons.CONCURRENT_CHANGE
    assert town.path("/tmp/build/precious").exists()


@pytest.mark.parametrize("change", [Remove, Empty])
def test_what_took_the_place_of_a_link_is_left(town: Builder, change: Callable[..., Change]) -> None:
    """With a file go the links that lead to it; a file that its owner put in the place of one stays."""
    for path in ("/srv/real", "/srv/exchanged"):
        town.file(path, "x")
    town.link("/srv/link", "real")
    seen = door.seen(os.stat(town.path("/srv/real")))
    change("/srv/real", "a file", links=("/srv/link", "/srv/exchanged"), seen=seen).apply(town.context())
    assert not os.path.lexists(town.path("/srv/link"))
    assert town.path("/srv/exchanged").read_text() == "x"


@pytest.mark.parametrize("change", [Remove, Empty])
def test_a_link_that_the_system_needs_is_left(town: Builder, change: Callable[..., Change]) -> None:
    """On a merged /usr, /bin is such a link: a process that was taken over in the box could name it."""
    town.file("/srv/real", "x")
    town.link("/bin", "usr/bin")
    seen = door.seen(os.stat(town.path("/srv/real")))
    with pytest.raises(FirstkeyError, match="/bin is the system's"):
        change("/srv/real", "a file", links=("/bin",), seen=seen).apply(town.context())
    assert os.readlink(town.path("/bin")) == "usr/bin"
    assert town.path("/srv/real").read_text() == "x"


def test_the_second_audit_is_held_against_the_prediction(town: Builder) -> None:
    """What should be gone and is not, and what is new, is told with a reason; a dry run says what stays."""
    town.file("/var/mail/root", "x")
    town.file("/etc/userdb/bob.user", '{"privileged": {"hashedPassword": ["$6$x"]}}')
    town.file("/root/.rhosts", "builder\n")
    wanted = [rule for rule in rules.ALL if rule.id in ("mail", "trusted-logins")]
    planned = seal.plan(town.image(), wanted, [])
    assert [match.path for match in planned.stays] == ["/etc/userdb/bob.user"]
    assert {match.path for match in planned.found if not match.stays} == {"/root/.rhosts", "/var/mail/root"}

    foreseen = run(town, "--rule", "mail", "--rule", "trusted-logins", "--dry-run")
    assert foreseen["stays"] == [{"rule": "trusted-logins", "path": "/etc/userdb/bob.user"}]

    def carried_out(send: Callable[[seal.Outcome], None]) -> seal.Sealing:
        outcomes = []
        for outcome in seal.carry_out(planned, town.context()):
            send(outcome)
            outcomes.append(outcome)
        return seal.Sealing(planned, tuple(outcomes), audited(town.image(), wanted))

    def mail(outcome: seal.Outcome) -> None:
        if outcome.step.rule.id == "mail":
            town.file("/var/mail/root", "back")
            town.file("/var/mail/bob", "new")

    done = carried_out(mail)
    said = {entry.refusal.detail for entry in done.unpredicted}
    assert said == {"/var/mail/root should be gone, and is not", "/var/mail/bob was not found before"}
    assert {entry.refusal.reason.code for entry in done.unpredicted} == {"not-as-predicted"}
    assert not done.is_fit
    for name in ("root", "bob"):
        town.path(f"/var/mail/{name}").unlink()
    assert carried_out(lambda _: None).unpredicted == ()


# --- the running system ---------------------------------------------------------------------------

LIVE = """
set -e
mount --bind "$2" "$1/agent"
mount -o remount,bind,ro "$1/agent"
mount --bind /usr "$1/usr"
mount -o remount,bind,ro "$1/usr"
# Where these are no links into /usr, as in Debian 11.
for place in bin sbin lib lib64; do
    [ -L "/$place" ] || [ ! -d "/$place" ] || mount --bind "/$place" "$1/$place"
done
mount -t proc none "$1/proc"
mount -t tmpfs none "$1/dev"
touch "$1/dev/null"
mount --bind /dev/null "$1/dev/null"
shift 2
exec chroot "$ROOT" /usr/bin/python3 -c "$@"
"""


def live(builder: Builder, program: str) -> dict[str, Any]:
    """Run the Python program where the tree is the running system, with its own processes and mounts.

    It prints a JSON object. Nothing of the host's can be reached but /usr and the code, which are read-only.
    """
    for place in ("usr", "agent", "proc", "dev", "run", "tmp"):
        builder.directory(f"/{place}")
    shutil.rmtree(builder.path("/usr"))
    builder.directory("/usr")
    for place in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{place}"):
            builder.link(f"/{place}", os.readlink(f"/{place}"))
        elif os.path.isdir(f"/{place}"):
            builder.directory(f"/{place}")
    # Of its own network too: whose sockets are bound is asked of the kernel, for all roots of a network.
    argv = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-c", LIVE, "sh"]
    done = subprocess.run(
        [*argv, str(builder.root), str(AGENT), program],
        env={"ROOT": str(builder.root), "PATH": os.environ["PATH"], "PYTHONPATH": "/agent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


USERS = """
import json, os, shutil, subprocess, sys
for name in ("agent/work", "held", "idle", "s", "systemd-private-1"): os.makedirs("/tmp/" + name)
for name in ("used", "idle"): os.makedirs("/var/crash/" + name)
for name in ("held/file", "idle/file", "own"): open("/tmp/" + name, "w").write("x")
library = next(line.split()[5] for line in open("/proc/self/maps") if "libm.so" in line or "libm-" in line)
shutil.copy(library, "/tmp/mapped")
held = '''
import ctypes, os, signal, socket
bound = socket.socket(socket.AF_UNIX); bound.bind("/tmp/s/socket")
ctypes.CDLL("/tmp/mapped")
keep = open("/tmp/held/file"), os.open("/var/crash/used", os.O_RDONLY)
os.chdir("/tmp/agent/work"); print("ready", flush=True); signal.pause()
'''
other = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE)
other.stdout.readline()
seal = [sys.executable, "-m", "firstkey", "seal", "--yes", "--json", "--rule", "temporary-files"]
seal += ["--rule", "crash-dumps"]
done = subprocess.run(seal, capture_output=True, text=True, stdin=subprocess.DEVNULL)
left = sorted(os.listdir("/tmp")); crash = sorted(os.listdir("/var/crash"))
other.kill(); other.wait()
again = subprocess.run(seal, capture_output=True, text=True, stdin=subprocess.DEVNULL)
print(json.dumps({"left": left, "report": json.loads(done.stdout), "status": done.returncode,
                  "err": done.stderr,
                  "then": sorted(os.listdir("/tmp")), "crash": crash, "after": again.returncode}))
"""


def test_what_running_programs_use_stays(town: Builder) -> None:
    """Open and mapped files, working directories and sockets, with the directories that they lie in."""
    found = live(town, USERS)
    assert found["left"] == ["agent", "held", "mapped", "s", "systemd-private-1"], found
    (rule,) = [rule for rule in found["report"]["audit"]["rules"] if rule["id"] == "temporary-files"]
    assert "/tmp/agent" in rule["remark"]
    assert rule["outcome"] == "pass"
    assert found["crash"] == ["used"]
    assert [entry["reason"] for entry in found["report"]["left"]] == ["in-use"]
    assert (found["status"], found["then"], found["after"]) == (1, ["systemd-private-1"], 0)


REFUSED = """
import json, subprocess, sys
traced = subprocess.run([sys.executable, "-m", "firstkey", "seal"], capture_output=True, text=True,
                        stdin=subprocess.DEVNULL)
print(json.dumps({"status": traced.returncode, "err": traced.stderr}))
"""


def test_it_refuses_before_it_looks_where_nobody_can_be_asked(town: Builder) -> None:
    """Without --yes and without a terminal: at once, and nothing was scanned or changed."""
    fifo = town.path("/etc/profile")
    os.mkfifo(fifo)
    before = looks(town)
    started = time.monotonic()
    found = live(town, REFUSED)
    assert found["status"] == 2
    assert "there is no terminal to ask on" in found["err"]
    assert time.monotonic() - started < 90
    after = looks(town)
    assert {path: after.get(path) for path in before if not path.startswith("/usr")} == {
        path: entry for path, entry in before.items() if not path.startswith("/usr")
    }


def test_a_key_that_is_one_goes_whatever_the_setting_is(town: Builder, tmp_path: Path) -> None:
    """By its content, wherever HostKey says; its public half too."""
    key = new_key(tmp_path, "host")
    town.file("/srv/keys/host", (tmp_path / "host").read_text(), mode=0o600)
    town.file("/srv/keys/host.pub", key)
    town.file("/etc/ssh/sshd_config", "HostKey /srv/keys/host\n")
    assert run(town, "--rule", "host-keys")["status"] == 0
    assert list(town.path("/srv/keys").iterdir()) == []
