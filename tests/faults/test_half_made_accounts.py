"""An account whose making was cut off is made anew, and nothing goes that was there before it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import crash_scenes
import pytest
import treestate
from callwatch import KILL_ALL, Call
from crash_judge import Judge
from crash_scenes import FIRST, SECTION, Scene, machine_with_admin
from machine import Machine, new_key
from private_system import PrivateSystem

from firstkey.metadata.emulator import Emulator, Settings

pytestmark = [
    pytest.mark.root,
    pytest.mark.sshd,
    pytest.mark.skipif(bool(crash_scenes.missing()), reason=str(crash_scenes.missing())),
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where an account is to be made; what else it has is for the test to say."""
    made = machine_with_admin(tmp_path)
    made.configure(f"[Keys]\nUsers=deploy\n{SECTION}")
    return made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Emulator]:
    """A metadata service with a launch key."""
    key = new_key(tmp_path, "launch")
    with Emulator(Settings(instance_id=FIRST, keys=(("launch", key),))) as running:
        yield running


def cut_off_and_completed(machine: Machine, service: Emulator, path: str) -> dict[str, treestate.Entry]:
    """The tree after a run that was killed when it came to that path, and another one."""
    scene = Scene(machine.root, "run", "--imds", service.url)

    def wish(call: Call) -> str | None:
        return KILL_ALL if call.path == path else None

    assert scene.interrupted(wish).status == -9
    assert b"deploy:" in treestate.take(scene.root)["/etc/passwd"].content
    done = scene.again()
    state = treestate.take(scene.root)
    assert Judge(scene).at_the_end(state, done) == []
    return state


@pytest.mark.parametrize("path", ["/etc/shadow-", "/etc/subuid+"])
def test_a_home_that_was_there_before_stays(machine: Machine, service: Emulator, path: str) -> None:
    """An older disk's, say: only a home that useradd began is taken away."""
    machine.write("/home/deploy/work", "years\n")
    machine.write("/home/deploy/.ssh/config", "# years\n")
    assert cut_off_and_completed(machine, service, path)["/home/deploy/work"].content == b"years\n"


def test_a_group_that_was_there_before_keeps_its_number(machine: Machine, service: Emulator) -> None:
    """Files may belong to it. userdel would take it along."""
    for name, line in {"group": "deploy:x:77:\n", "gshadow": "deploy:!::\n"}.items():
        with machine.path(f"/etc/{name}").open("a") as file:
            file.write(line)
    state = cut_off_and_completed(machine, service, "/etc/shadow-")
    assert b"deploy:x:77:" in state["/etc/group"].content


def test_a_lock_that_went_down_with_the_power_keeps_nobody_out(machine: Machine, service: Emulator) -> None:
    """Useradd heeds a lock whose number some process has, as one may at the next boot; this one is older."""
    scene = Scene(machine.root, "run", "--imds", service.url)
    assert scene.interrupted(lambda call: KILL_ALL if call.path == "/etc/shadow-" else None).status == -9
    lock = machine.path("/etc/passwd.lock")
    assert lock.exists()
    lock.write_text(f"{os.getpid()}\0")
    machine.write("/proc/sys/kernel/random/boot_id", "the next\n")
    done = scene.again()
    assert Judge(scene).at_the_end(treestate.take(scene.root), done) == []


@pytest.mark.slow  # useradd waits for a lock for 15 s
def test_a_lock_of_this_boot_is_somebodys(machine: Machine, service: Emulator) -> None:
    """Whoever holds it may be at work on the accounts: it is told, and left."""
    machine.write("/proc/sys/kernel/random/boot_id", "this one\n")
    scene = Scene(machine.root, "run", "--imds", service.url)
    assert scene.interrupted(lambda call: KILL_ALL if call.path == "/etc/shadow-" else None).status == -9
    lock = machine.path("/etc/passwd.lock")
    lock.write_text(f"{os.getpid()}\0")
    assert scene.again().status == 1
    assert lock.read_text() == f"{os.getpid()}\0"


def test_an_account_that_somebody_completed_is_left_alone(machine: Machine, service: Emulator) -> None:
    """A person may have been quicker than the next boot: what was put into the home shows it."""
    scene = Scene(machine.root, "run", "--imds", service.url)
    assert scene.interrupted(lambda call: KILL_ALL if call.path == "/etc/subuid+" else None).status == -9
    home = machine.path("/home/deploy")
    home.mkdir(exist_ok=True)
    (home / "work").write_text("today's")
    note = machine.path("/var/lib/firstkey/making-deploy")
    os.utime(note, (note.stat().st_mtime - 3600,) * 2)
    assert scene.again().status == 0
    assert (home / "work").read_text() == "today's"


def half_made_by_note(machine: Machine, *, age: float) -> Path:
    """An account in all files but without a home, and a note so many seconds old that it is being made."""
    lines = {"passwd": "deploy:x:1700:1700::/home/deploy:/bin/zsh", "group": "deploy:x:1700:"}
    for name, line in {**lines, "shadow": "deploy:*:19000:0:99999:7:::"}.items():
        with machine.path(f"/etc/{name}").open("a") as file:
            file.write(f"{line}\n")
    note = machine.path("/var/lib/firstkey/making-deploy")
    machine.write(
        "/var/lib/firstkey/making-deploy", '{"had_home": false, "group": null, "boot": "x"}', mode=0o600
    )
    note.parent.chmod(0o700)
    os.utime(note, (time.time() - age,) * 2)
    return note


def years_of_work(machine: Machine) -> Path:
    """What a home holds that its user has had for long; the home is as old."""
    work = machine.path("/home/deploy/work")
    machine.write("/home/deploy/work", "years\n")
    os.chown(work.parent, 1700, 1700)
    os.utime(work.parent, (time.time() - 300 * 86400,) * 2)
    return work


def test_a_home_that_is_older_than_the_note_is_not_useradds(machine: Machine, service: Emulator) -> None:
    """It came later, with a volume that was not mounted when useradd was cut off."""
    note = half_made_by_note(machine, age=60)
    work = years_of_work(machine)
    assert machine.run(service).status == 0
    assert work.read_text() == "years\n"
    assert not note.exists()


def test_a_note_that_holds_no_more_never_counts_again(machine: Machine, service: Emulator) -> None:
    """Else the account would go on a day when its home is not mounted."""
    half_made_by_note(machine, age=86400)
    home = years_of_work(machine).parent
    os.utime(home)
    assert machine.run(service).status == 0
    home.rename(home.with_name("away"))
    assert machine.run(service, "--force").user("deploy")["reason"] == "home-missing"
    assert "/bin/zsh" in machine.path("/etc/passwd").read_text()


def test_an_account_with_a_password_was_completed(machine: Machine, service: Emulator) -> None:
    """By somebody who has an eye on it, though its home may not be there."""
    half_made_by_note(machine, age=60)
    shadow = machine.path("/etc/shadow")
    shadow.write_text(shadow.read_text().replace("deploy:*:", "deploy:$6$salt$hash:"))
    assert machine.run(service).user("deploy")["reason"] == "home-missing"
    assert "deploy:$6$salt$hash:" in shadow.read_text()
    assert not machine.path("/var/lib/firstkey/making-deploy").exists()


@pytest.mark.parametrize("path", ["/etc/passwd-", "/home/deploy"])
def test_it_can_be_cut_off_again_while_what_there_was_is_taken_away(
    machine: Machine, service: Emulator, path: str
) -> None:
    """Long after: then the home was changed in that, and the locks are those of that boot."""
    machine.write("/etc/skel/.profile", "x\n")
    scene = Scene(machine.root, "run", "--imds", service.url)
    assert scene.interrupted(lambda call: KILL_ALL if call.path == "/etc/subuid+" else None).status == -9
    machine.write("/home/deploy/.profile", "x\n")
    for place in ("/home/deploy", "/var/lib/firstkey/making-deploy"):
        os.utime(machine.path(place), (time.time() - 3600,) * 2)
    machine.write("/proc/sys/kernel/random/boot_id", "the next\n")
    assert scene.interrupted_again(lambda call: KILL_ALL if call.path == path else None).status == -9
    machine.write("/proc/sys/kernel/random/boot_id", "the one after\n")
    if path.startswith("/etc"):
        lock = machine.path("/etc/passwd.lock")
        assert lock.exists()
        lock.write_text(f"{os.getpid()}\0")
    done = scene.again()
    assert Judge(scene).at_the_end(treestate.take(scene.root), done) == []
    assert not machine.path("/var/lib/firstkey/making-deploy").exists()


def test_a_useradd_that_refuses_leaves_no_note(machine: Machine, service: Emulator) -> None:
    """Who makes the account by hand then finds it as it was made on the next boot."""
    machine.path("/etc/login.defs").write_text("UID_MIN 1500\nUID_MAX 1500\nGID_MIN 1000\n")
    assert machine.run(service).user("deploy")["reason"] == "user-create-failed"
    assert not machine.path("/var/lib/firstkey/making-deploy").exists()


@pytest.mark.parametrize("note", [None, b"", b"[]", b"{", b'{"had_home": true, "group": null}'])
def test_an_account_that_firstkey_was_not_making_is_left_alone(
    machine: Machine, service: Emulator, note: bytes | None
) -> None:
    """One without a home may be meant so: without a note of firstkey's own nothing of it is taken away."""
    line = "deploy:x:1700:1700::/home/deploy:/bin/sh\n"
    with machine.path("/etc/passwd").open("a") as file:
        file.write(line)
    if note is not None:
        machine.write("/var/lib/firstkey/making-deploy", note)
    done = machine.run(service)
    assert done.user("deploy")["reason"] == "home-missing"
    assert line in machine.path("/etc/passwd").read_text()


@pytest.mark.parametrize(
    "had_home, has_account, expected",
    [
        ("false", True, "rm -rf /home/deploy && userdel deploy && useradd"),
        ("false", False, "rm -rf /home/deploy && useradd"),
        ("true", True, "userdel deploy && useradd"),
    ],
)
def test_a_dry_run_tells_what_would_go(
    machine: Machine, service: Emulator, had_home: str, has_account: bool, expected: str
) -> None:
    """And takes nothing away."""
    if has_account:
        with machine.path("/etc/passwd").open("a") as file:
            file.write("deploy:x:1700:1700::/home/deploy:/bin/sh\n")
    machine.write("/home/deploy/.profile", "")
    note = f'{{"had_home": {had_home}, "group": null, "boot": "an earlier one"}}\n'
    machine.write("/var/lib/firstkey/making-deploy", note, mode=0o600)
    before = {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()}
    done = machine.run(service, "--dry-run")
    assert done.report["accounts"][0]["change"].startswith(f"{expected} --create-home"), done.out
    assert {path: path.read_bytes() for path in machine.root.rglob("*") if path.is_file()} == before


def test_the_same_on_the_running_system(tmp_path: Path, service: Emulator) -> None:
    """There useradd and userdel work on the files that everybody uses, locks of an earlier boot and all."""
    with PrivateSystem(tmp_path) as system:
        system.configure("[Keys]\nUsers=deploy\n[User deploy]\nCreate=yes\n")
        system.write("/etc/default/useradd", f"HOME={system.homes}\n")
        with system.path("/etc/passwd").open("a") as file:
            file.write(f"deploy:x:1700:1700::{system.homes}/deploy:/bin/sh\n")
        note = b'{"had_home": false, "group": null, "boot": "an earlier one"}\n'
        system.write("/var/lib/firstkey/making-deploy", note.decode(), mode=0o600)
        system.path("/var/lib/firstkey").chmod(0o700)
        system.write("/etc/passwd.lock", f"{os.getpid()}\0")
        system.write(f"{system.homes}/deploy/.profile", "")
        done = system.firstkey("run", "--json", service=service)
        assert (done.status, done.user("deploy")["result"]) == (0, "changed"), done.err
        assert "was made anew" in done.err
        assert system.ids("deploy")[0] == 1700
        home = system.path(f"{system.homes}/deploy").stat()
        assert (home.st_uid, len(system.keys_of("deploy"))) == (1700, 1)
        assert "deploy:*:" in system.path("/etc/shadow").read_text()
        assert not system.path("/var/lib/firstkey/making-deploy").exists()
