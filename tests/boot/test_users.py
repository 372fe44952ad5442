"""Accounts on an image's tree: made, added to groups, given a proved sudo rule; and never beyond the tree."""

from __future__ import annotations

import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from machine import Run, World
from nested_tree import nested
from private_system import PrivateSystem

from firstkey import config
from firstkey.boot import accounts as users
from firstkey.boot.target import Target
from firstkey.config import User
from firstkey.metadata.emulator import Fault
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree

RULE = "ALL=(ALL) NOPASSWD: ALL"
needs_visudo = pytest.mark.skipif(
    not shutil.which("visudo", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"), reason="needs visudo (sudo)"
)


def section(**settings: str) -> str:
    """A configuration with one user, `deploy`, who is described."""
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    return f"[Keys]\nUsers=deploy\n[User deploy]\n{lines}"


def accounts(done: Run) -> list[tuple[str, str | None]]:
    """What became of each change to an account."""
    return [(each["result"], each["reason"]) for each in done.report["accounts"]]


@pytest.fixture
def image(world: World) -> World:
    """An image with the files that useradd works on."""
    for name, content in {"shadow": "root:*:1::::::\n", "gshadow": "", "subuid": "", "subgid": ""}.items():
        world.machine.write(f"/etc/{name}", content, mode=0o600)
    world.machine.write("/etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n")
    world.machine.write("/etc/group", "root:x:0:\nwheel:x:10:\nadm:x:4:\n")
    return world


def line_of(world: World, file: str, name: str) -> list[str]:
    """The fields of one line of passwd(5) and its like."""
    lines = (line.split(":") for line in world.machine.path(file).read_text().splitlines())
    return next(fields for fields in lines if fields[0] == name)


@pytest.mark.root
def test_a_user_is_created_as_described(image: World) -> None:
    """With a home, groups, a shell, no password, and the launch key; once more changes nothing."""
    image.machine.configure(section(Create="yes", Groups="wheel adm", Shell="/bin/dash"))
    done = image.machine.run(image.service)
    assert done.status == 0, done.out
    *_, uid, gid, _, home, shell = line_of(image, "/etc/passwd", "deploy")
    assert (home, shell) == ("/home/deploy", "/bin/dash")
    assert line_of(image, "/etc/group", "wheel")[3] == line_of(image, "/etc/group", "adm")[3] == "deploy"
    assert line_of(image, "/etc/shadow", "deploy")[1] == "*"
    file = image.machine.path("/home/deploy/.ssh/authorized_keys")
    assert file.read_text() == f"{image.key}\n"
    assert (file.stat().st_uid, file.stat().st_gid) == (int(uid), int(gid))
    before = image.machine.snapshot()
    assert accounts(image.machine.run(image.service)) == []
    assert image.machine.snapshot() == before


@pytest.mark.root
def test_a_home_that_is_there_is_not_walked_through(image: World) -> None:
    """It may hold anything, without end and as deep as its owner likes: that costs nobody a host key."""
    home = image.machine.path("/home/deploy")
    home.mkdir(parents=True)
    image.machine.configure(section(Create="yes"))
    with nested(home):
        done = image.machine.run(image.service)
    assert accounts(done) == [("changed", None)], done.out
    assert len(image.machine.host_keys()) == 1


@pytest.mark.root
@pytest.mark.slow
def test_host_keys_do_not_wait_for_accounts(image: World) -> None:
    """A lock that is stuck costs 15 s for each account, and sshd starts at the boot deadline."""
    image.machine.ask_for_all_host_keys()
    lock = image.machine.write("/etc/passwd.lock", f"{os.getpid()}\0")
    image.machine.configure(section(Create="yes"))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(image.machine.run, image.service)
        while len(list(image.machine.path("/etc/ssh").glob("ssh_host_*_key"))) < 3:
            assert not running.done()
            time.sleep(0.05)
        assert "deploy:" not in image.machine.path("/etc/passwd").read_text()
        lock.unlink()
    assert accounts(running.result()) == [("changed", None)]


@pytest.mark.root
def test_an_account_is_made_once_where_the_answer_comes_late(image: World) -> None:
    """It is made before the wait for the service, and the report of the whole run tells of it."""
    image.service.inject(Fault("status", 503, first=2))
    image.machine.configure(section(Create="yes"))
    done = image.machine.run(image.service)
    assert (done.status, accounts(done)) == (0, [("changed", None)]), done.out
    assert done.user("deploy")["result"] == "changed"


@pytest.mark.root
def test_an_account_that_breaks_firstkey_costs_nobody_else(
    image: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is a failure of that account alone."""

    def broken(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(users, "plan", broken)
    with Tree(str(image.machine.root)) as tree:
        target = Target(tree, Accounts(tree), config.read(()), lambda _entry: None)
        setup = users.set_up(target, User("deploy", True, (), "", "", ""))
    assert [(result.result, result.refusal and result.refusal.reason.code) for result in setup.results] == [
        ("failed", "internal-error")
    ]


@pytest.mark.root
def test_an_existing_user_only_gains_groups(image: World) -> None:
    """Groups that the user has stay; shell and home are as they were."""
    machine = image.machine
    machine.accounts.append("deploy:x:1500:1500::/home/deploy:/bin/zsh")
    machine.write("/etc/passwd", "\n".join(machine.accounts) + "\n")
    machine.write("/etc/group", "root:x:0:\nwheel:x:10:\nadm:x:4:deploy\ndeploy:x:1500:\n")
    machine.path("/home/deploy").mkdir()
    os.chown(machine.path("/home/deploy"), 1500, 1500)
    machine.configure(section(Create="yes", Groups="wheel", Shell="/bin/sh"))
    done = machine.run(image.service)
    assert (done.status, accounts(done)) == (0, [("changed", None)])
    assert line_of(image, "/etc/passwd", "deploy")[6] == "/bin/zsh"
    assert line_of(image, "/etc/group", "wheel")[3] == line_of(image, "/etc/group", "adm")[3] == "deploy"


def test_without_create_nobody_is_made(image: World) -> None:
    """The user does not exist, and that is the reason."""
    image.machine.configure(section(Groups="wheel", Sudo=RULE))
    done = image.machine.run(image.service)
    assert (done.status, accounts(done)) == (1, [])
    assert done.user("deploy")["reason"] == "no-such-user"
    assert not image.machine.path("/etc/sudoers.d").exists()


@needs_visudo
def test_a_sudo_rule_is_written_and_stays(image: World) -> None:
    """A name that sudo reads, root's mode; once more it is left alone."""
    image.machine.add_user("deploy")
    image.machine.configure(section(Sudo=RULE))
    assert accounts(image.machine.run(image.service)) == [("changed", None)]
    rule = image.machine.path("/etc/sudoers.d/firstkey-deploy")
    assert rule.read_text().splitlines()[1:] == [f"deploy {RULE}"]
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440
    before = image.machine.snapshot()
    assert accounts(image.machine.run(image.service)) == []
    assert image.machine.snapshot() == before


@needs_visudo
@pytest.mark.parametrize("mode", [0o666, 0o460])
@pytest.mark.sample(2)
def test_a_rule_that_sudo_ignores_is_written_anew(image: World, mode: int) -> None:
    """Sudo reads no file that others can write."""
    image.machine.add_user("deploy")
    image.machine.configure(section(Sudo=RULE))
    image.machine.run(image.service)
    rule = image.machine.path("/etc/sudoers.d/firstkey-deploy")
    rule.chmod(mode)
    assert accounts(image.machine.run(image.service)) == [("changed", None)]
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440


@needs_visudo
@pytest.mark.parametrize("there", [None, "# mine\n"])
@pytest.mark.sample(2)
def test_a_wrong_rule_is_never_put_in_place(image: World, there: str | None) -> None:
    """Visudo's own words are told, the user gets the key all the same, and nothing lies about."""
    image.machine.add_user("deploy")
    image.machine.configure(section(Sudo="ALL=(ALL NOPASSWD: ALL"))
    rule = image.machine.path("/etc/sudoers.d/firstkey-deploy")
    if there:
        image.machine.write("/etc/sudoers.d/firstkey-deploy", there, mode=0o440)
    rehearsed = image.machine.run(image.service, "--dry-run")
    assert accounts(rehearsed) == [("refused", "sudoers-invalid")]
    done = image.machine.run(image.service)
    assert (done.status, done.report["outcome"]) == (1, "partial")
    assert accounts(done) == [("refused", "sudoers-invalid")]
    assert "syntax error" in done.report["accounts"][0]["detail"]
    assert done.user("deploy")["result"] == "changed"
    assert [path.name for path in rule.parent.glob("*")] == ([rule.name] if there else [])
    assert (rule.read_text() if there else None) == there


VISUDO = """#!/bin/sh
[ "$3" != - ] || { echo "visudo: cannot open -" >&2; exit 1; }
exec "$VISUDO" "$@"
"""
"""As that of sudo-rs, which reads no standard input."""


@needs_visudo
@pytest.mark.parametrize(
    "script, rule, expected",
    [
        (VISUDO, RULE, ("changed", None)),
        (VISUDO, "ALL=(ALL", ("refused", "sudoers-invalid")),
        (
            "#!/bin/sh\necho 'visudo: /etc/sudo.conf is broken' >&2\nexit 1\n",
            RULE,
            ("failed", "sudo-unchecked"),
        ),
        ("#!/bin/sh\nkill -9 $$\n", RULE, ("failed", "sudo-unchecked")),
    ],
    ids=["sudo-rs", "sudo-rs and a wrong rule", "broken", "killed"],
)
@pytest.mark.sample(4)
def test_a_checker_that_cannot_look_is_told_from_a_wrong_rule(
    image: World, tmp_path: Path, script: str, rule: str, expected: tuple[str, str | None]
) -> None:
    """A rule is put in place only if it was looked at, and is not blamed for what the program lacks."""
    real = shutil.which("visudo", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    program = tmp_path / "bin/visudo"
    program.parent.mkdir()
    program.write_text(script.replace("$VISUDO", str(real)))
    program.chmod(0o755)
    image.machine.add_user("deploy")
    image.machine.configure(section(Sudo=rule))
    path = f"{program.parent}:{os.environ['PATH']}"
    done = image.machine.firstkey("run", "--json", service=image.service, PATH=path)
    assert accounts(done) == [expected]
    assert image.machine.path("/etc/sudoers.d/firstkey-deploy").exists() == (expected[0] == "changed")


def test_an_unknown_group_costs_nothing_but_itself(image: World) -> None:
    """The user has the key; the report names the group."""
    image.machine.add_user("deploy")
    image.machine.configure(section(Groups="nosuchgroup"))
    done = image.machine.run(image.service)
    assert (done.status, accounts(done)) == (0, [("skipped", "no-such-group")])
    assert "nosuchgroup" in done.report["accounts"][0]["detail"]


@needs_visudo
def test_a_dry_run_shows_accounts_rules_and_keys(image: World) -> None:
    """What would be typed and what would stand in the files; nothing is there afterwards."""
    image.machine.configure(section(Create="yes", Groups="wheel", Shell="/bin/sh", Sudo=RULE))
    before = sorted(str(path) for path in image.machine.root.rglob("*"))
    done = image.machine.firstkey("run", "--dry-run", service=image.service)
    assert done.status == 0
    assert (
        "useradd --create-home --password '*' --groups wheel --shell /bin/sh deploy  would change" in done.out
    )
    assert f"+deploy {RULE}" in done.out
    assert "+++ /home/deploy/.ssh/authorized_keys" in done.out
    assert f"+{image.key}" in done.out
    assert sorted(str(path) for path in image.machine.root.rglob("*")) == before
    report = image.machine.run(image.service, "--dry-run").report
    assert [each["result"] for each in report["accounts"]] == ["changed", "changed"]
    assert report["users"][0]["result"] == "changed"


def test_a_dry_run_knows_where_homes_are_made(image: World) -> None:
    """By useradd's own defaults in the tree."""
    image.machine.write("/etc/default/useradd", "SHELL=/bin/sh\nHOME=/srv/people\n")
    image.machine.configure(section(Create="yes"))
    report = image.machine.run(image.service, "--dry-run").report
    assert report["users"][0]["file"] == "/srv/people/deploy/.ssh/authorized_keys"


@pytest.mark.root
@pytest.mark.parametrize("name", ["passwd-", "group-", "shadow-", "gshadow-", "passwd+", "subuid"])
@pytest.mark.sample(3)
def test_no_link_leads_out_of_the_tree(image: World, tmp_path: Path, name: str) -> None:
    """Useradd --prefix writes through these: the host's file is untouched, and so is the link's target."""
    outside = tmp_path / "outside"
    outside.write_text("precious\n")
    image.machine.path(f"/etc/{name}").unlink(missing_ok=True)
    image.machine.path(f"/etc/{name}").symlink_to(outside)
    image.machine.configure(section(Create="yes"))
    done = image.machine.run(image.service)
    refused = [("failed", "symlink-refused")]
    assert accounts(done) == (refused if name == "subuid" else [("changed", None)])
    assert outside.read_text() == "precious\n"
    assert sorted(path.name for path in tmp_path.glob("outside*")) == ["outside"]


@pytest.mark.root
@pytest.mark.parametrize("skeleton", ["/etc/skel", "/usr/share/skel"])
@pytest.mark.sample(2)
def test_the_new_home_is_as_the_tree_has_it(image: World, skeleton: str) -> None:
    """Filled from the tree's own skeleton, not from that of the machine which makes the image."""
    image.machine.write(
        "/etc/default/useradd", f"SHELL=/bin/sh\nSKEL={skeleton}\n" if "usr" in skeleton else ""
    )
    image.machine.write(f"{skeleton}/.of-the-tree", "")
    image.machine.configure(section(Create="yes"))
    assert accounts(image.machine.run(image.service))[0] == ("changed", None)
    home = image.machine.path("/home/deploy")
    assert sorted(file.name for file in home.iterdir()) == [".of-the-tree", ".ssh"]


@pytest.mark.root
def test_a_useradd_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """On the running system: the detail has its own words, and host keys are made all the same."""
    (tmp_path / "system").mkdir()
    with PrivateSystem(tmp_path / "system") as system:
        tools = system.path("/run/tools")
        system.write(
            "/run/tools/useradd", "#!/bin/sh\necho 'useradd: the disk is full of eels' >&2\nexit 1\n"
        )
        (tools / "useradd").chmod(0o755)
        system.configure(section(Create="yes"))
        monkeypatch.setenv("PATH", f"/run/tools:{os.environ['PATH']}")
        done = system.firstkey("run", "--json", service=world.service)
        assert accounts(done) == [("failed", "user-create-failed")]
        assert "full of eels" in done.report["accounts"][0]["detail"]
        assert done.user("deploy")["reason"] == "user-create-failed"
        assert system.path("/etc/ssh/ssh_host_ed25519_key").exists()
