"""A sudo rule is done when sudo lets the user, not when it is written: real sudo, and what others print."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Run, World
from private_system import PrivateSystem

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
RULE = "ALL=(ALL) NOPASSWD: ALL"
FILE = "/etc/sudoers.d/firstkey-deploy"
INCLUDE = "@includedir /etc/sudoers.d\n"
ROOT = "root ALL=(ALL) ALL\n"
DONE = ("changed", None)
IN_VAIN = ("failed", "sudo-not-effective")

pytestmark = pytest.mark.skipif(not shutil.which("visudo", path=PATH), reason="needs sudo and visudo")


def described(rule: str = RULE, more: str = "") -> str:
    """A configuration that promises sudo to one user."""
    return f"[Keys]\nUsers=deploy\n[User deploy]\nSudo={rule}\n{more}"


def accounts(done: Run) -> list[tuple[str, str | None]]:
    """What became of each change to an account."""
    return [(each["result"], each["reason"]) for each in done.report["accounts"]]


# --- the running system: sudo itself is asked -------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PrivateSystem]:
    """A running system with the user, whose home is there."""
    scratch = tmp_path / "system"
    scratch.mkdir()
    with PrivateSystem(scratch) as made:
        made.add_user("deploy")
        made.configure(described())
        yield made


def set_sudoers(system: PrivateSystem, content: str) -> None:
    """What /etc/sudoers says."""
    system.write("/etc/sudoers", content, mode=0o440)


def run(system: PrivateSystem, world: World) -> Run:
    """A run on the system."""
    return system.firstkey("run", "--json", service=world.service)


def may_become_root(system: PrivateSystem) -> bool:
    """Whether sudo lets the user, without a password."""
    return system.run("sudo", "-n", "id", "-u", user="deploy").stdout == "0\n"


@pytest.mark.root
def test_a_rule_that_sudo_reads_is_done(system: PrivateSystem, world: World) -> None:
    """Sudo lets the user; once more there is nothing to do."""
    set_sudoers(system, ROOT + INCLUDE)
    done = run(system, world)
    assert (done.status, accounts(done)) == (0, [DONE]), done.err
    assert f"{FILE} now lets deploy use sudo." in done.err
    assert may_become_root(system)
    assert accounts(run(system, world)) == []


@pytest.mark.root
@pytest.mark.parametrize(
    "sudoers",
    [
        ROOT,
        "",
        f"{ROOT}%wheel ALL=(ALL) ALL\n",
        f"{ROOT}%deploy ALL=(ALL:ALL) ALL\n",
        f"{ROOT}@includedir /etc/sudoers.more\n",
        f"{ROOT}# includedir /etc/sudoers.d\n",
    ],
    ids=["root", "empty", "wheel", "with a password", "elsewhere", "a comment"],
)
@pytest.mark.sample(6)
def test_a_rule_that_sudo_does_not_read_is_told(system: PrivateSystem, world: World, sudoers: str) -> None:
    """At each run, with a remedy that cures it; the user has the launch key all the same."""
    set_sudoers(system, sudoers)
    for _ in range(2):
        done = run(system, world)
        assert (done.status, done.report["outcome"], accounts(done)) == (1, "partial", [IN_VAIN]), done.err
        assert "now lets" not in done.err
        assert done.user("deploy")["reason"] is None
        assert not may_become_root(system)
    shown = system.firstkey("run", service=world.service).out
    assert "@includedir /etc/sudoers.d" in shown
    set_sudoers(system, sudoers + INCLUDE)
    written = system.path(FILE).stat().st_ino
    assert accounts(run(system, world)) == []
    assert may_become_root(system)
    assert system.path(FILE).stat().st_ino == written


@pytest.mark.root
def test_a_rule_for_another_host_is_told(system: PrivateSystem, world: World) -> None:
    """It is right, it is read, and it lets the user do nothing here."""
    set_sudoers(system, ROOT + INCLUDE)
    system.configure(described("elsewhere=(ALL) NOPASSWD: ALL"))
    assert accounts(run(system, world)) == [IN_VAIN]


@pytest.mark.root
@pytest.mark.parametrize("mode, content", [(0o446, ROOT + INCLUDE), (0o440, "nonsense(\n")])
@pytest.mark.sample(2)
def test_a_sudo_that_refuses_its_own_files_is_told(
    system: PrivateSystem, world: World, mode: int, content: str
) -> None:
    """With its own words."""
    system.write("/etc/sudoers", content, mode=mode)
    done = run(system, world)
    assert accounts(done) == [IN_VAIN]
    assert "sudo" in done.report["accounts"][0]["detail"]
    assert not may_become_root(system)


@pytest.mark.root
def test_a_sudo_that_is_gone_is_told(system: PrivateSystem, world: World) -> None:
    """After the rule was written, and before."""
    set_sudoers(system, ROOT + INCLUDE)
    assert accounts(run(system, world)) == [DONE]
    for program in ("sudo", "visudo"):
        place = str(shutil.which(program, path=PATH))
        assert system.run("mount", "--bind", "/dev/null", place).returncode == 0
    assert accounts(run(system, world)) == [("failed", "sudo-missing")]
    system.path(FILE).unlink()
    assert accounts(run(system, world)) == [("failed", "sudo-missing")]
    assert not system.path(FILE).exists()


@pytest.mark.root
def test_no_rule_waits_for_an_account(system: PrivateSystem, world: World) -> None:
    """Where the account could not be made, whoever gets its name one day would find the rule."""
    set_sudoers(system, ROOT + INCLUDE)
    system.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    system.configure(described(more="Create=yes\nShell=relative\n"))
    useradd = str(shutil.which("useradd", path=PATH))
    assert system.run("mount", "--bind", "/bin/false", useradd).returncode == 0
    done = run(system, world)
    assert accounts(done) == [("failed", "user-create-failed"), ("failed", "no-such-user")]
    assert not system.path(FILE).exists()


SUDO = '#!/bin/sh\n[ "$*" = "-l -l -U deploy" ] && [ "$LC_ALL" = C.UTF-8 ] || exit 9\n'
OF_SUDO_RS = """\
User deploy may run the following commands on vm:

Sudoers entry:
    RunAsUsers: ALL
    RunAsGroups: ALL
    Commands:
\tALL
"""
OWN_OF_SUDO_RS = """
Sudoers entry:
    RunAsUsers: ALL
    Options: !authenticate
    Commands:
\tALL
"""
OF_NEWER_SUDO = OF_SUDO_RS.replace("entry:", "entry: /etc/sudoers")
OWN_OF_NEWER_SUDO = OWN_OF_SUDO_RS.replace("entry:", f"entry: {FILE}")
NOT_ALLOWED = (
    "echo \"sudo-rs: Sorry, user root is not allowed to execute 'list' as deploy on vm.\" >&2\nexit 1\n"
)


def printing(text: str) -> str:
    """A sudo that prints this."""
    return f"{SUDO}cat <<'END'\n{text}END\n"


@pytest.mark.root
@pytest.mark.parametrize(
    "script, rule, expected",
    [
        (printing(OF_SUDO_RS + OWN_OF_SUDO_RS), RULE, DONE),
        (printing(OF_SUDO_RS), RULE, IN_VAIN),
        (printing(OF_SUDO_RS), "ALL=(ALL:ALL) ALL", DONE),
        (SUDO + NOT_ALLOWED, RULE, IN_VAIN),
        (printing(OF_NEWER_SUDO + OWN_OF_NEWER_SUDO), RULE, DONE),
        (printing(OF_NEWER_SUDO), RULE, IN_VAIN),
        (printing(OF_NEWER_SUDO), "ALL=(ALL:ALL) ALL", IN_VAIN),
        (printing("User deploy is not allowed to run sudo on vm.\n"), RULE, IN_VAIN),
        ("#!/bin/sh\nkill -9 $$\n", RULE, IN_VAIN),
    ],
    ids=[
        "sudo-rs", "sudo-rs does not read it", "sudo-rs, no tag", "sudo-rs lists nothing", "1.9.16",
        "1.9.16 does not read it", "1.9.16, no tag", "nothing", "killed",
    ],
)  # fmt: skip
@pytest.mark.sample(9)
def test_what_other_sudos_print_is_understood(
    system: PrivateSystem, world: World, script: str, rule: str, expected: tuple[str, str | None]
) -> None:
    """As seen of sudo-rs 0.2.5 and sudo 1.9.16, in the locale C."""
    system.configure(described(rule))
    system.write("/run/tools/sudo", script, mode=0o755)
    assert system.run("mount", "--bind", "/run/tools/sudo", str(shutil.which("sudo"))).returncode == 0
    assert accounts(run(system, world)) == [expected]


@pytest.mark.slow
@pytest.mark.root
def test_a_sudo_that_hangs_costs_a_few_seconds(system: PrivateSystem, world: World) -> None:
    """It may ask a directory service that is dead."""
    system.write("/run/tools/sudo", "#!/bin/sh\nsleep 1000\n", mode=0o755)
    assert system.run("mount", "--bind", "/run/tools/sudo", str(shutil.which("sudo"))).returncode == 0
    done = run(system, world)
    assert accounts(done) == [("failed", "timed-out")]
    assert done.user("deploy")["result"] == "changed"


# --- a tree: what can be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, DONE),
        ({"/etc/sudoers": ROOT + INCLUDE}, DONE),
        ({"/etc/sudoers": f"{ROOT}#includedir /etc/sudoers.d\n"}, DONE),
        ({"/etc/sudoers": ROOT + '  @includedir "/etc/sudoers.d/"\n'}, DONE),
        ({"/etc/sudoers": f"{ROOT}@includedir sudoers.d\n"}, DONE),
        ({"/etc/sudoers": f"{ROOT}@include more/first\n", "/etc/more/first": INCLUDE}, DONE),
        ({"/usr/etc/sudoers": ROOT + INCLUDE}, DONE),
        ({"/etc/sudoers": ROOT}, IN_VAIN),
        ({"/etc/sudoers": f"{ROOT}## includedir /etc/sudoers.d\n"}, IN_VAIN),
        ({"/etc/sudoers": f"{ROOT}@includedir /etc/sudoers.d2\n"}, IN_VAIN),
        ({"/etc/sudoers": f"{ROOT}@include /etc/sudoers\n@include /etc/none\n"}, IN_VAIN),
        ({"/etc/sudoers": ROOT, "/usr/etc/sudoers": ROOT + INCLUDE}, IN_VAIN),
    ],
)
@pytest.mark.sample(12)
def test_the_rule_of_a_tree_is_judged_by_its_files(
    world: World, files: dict[str, str], expected: tuple[str, str | None]
) -> None:
    """The builder's own sudo knows nothing of an image; a dry run tells the same."""
    machine = world.machine
    machine.add_user("deploy")
    for path, content in files.items():
        machine.write(path, content, mode=0o440)
    machine.configure(described())
    assert accounts(machine.run(world.service, "--dry-run")) == [expected]
    assert accounts(machine.run(world.service)) == [expected]
    assert machine.path(FILE).exists()
    assert accounts(machine.run(world.service)) == ([] if expected == DONE else [expected])
