"""An account whose making was cut off is completed by the next run, and nothing is ever taken away."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import places
import pytest
from machine import Run, new_key
from private_system import PrivateSystem

from firstkey.metadata.emulator import Emulator, Settings

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(places.missing_for_strace()), reason=str(places.missing_for_strace())),
]

USERADD = "rename:signal=KILL:when={}"
"""Firstkey itself renames by renameat(2): only shadow's programs call this, and Python without -B."""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PrivateSystem]:
    """A running system where an account is to be made."""
    with PrivateSystem(tmp_path) as made:
        made.write("/etc/default/useradd", f"HOME={made.homes}\nSHELL=/bin/sh\n")
        made.write("/etc/skel/.of-the-skeleton", "x\n", mode=0o640)
        for name in ("gshadow", "subuid", "subgid"):
            made.write(f"/etc/{name}", "", mode=0o600)
        made.configure("[Keys]\nUsers=deploy\n[User deploy]\nCreate=yes\nGroups=wheel\n")
        yield made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Emulator]:
    """A metadata service with a launch key."""
    with Emulator(Settings(keys=(("launch", new_key(tmp_path, "launch")),))) as running:
        yield running


def run(system: PrivateSystem, service: Emulator, *, fault: str = "") -> Run:
    """A run; with a fault that strace injects (strace(1): --inject), one that may be cut off."""
    argv = [sys.executable, "-B", "-m", "firstkey", "run", "--json", "--imds", service.url]
    if fault:
        call = fault.partition(":")[0]
        argv = ["strace", "-f", "-qq", "-o", "/dev/null", f"--trace={call}", f"--inject={fault}", *argv]
    done = system.run(*argv)
    return Run(done.returncode, done.stdout, done.stderr)


def is_whole(system: PrivateSystem, uid: int) -> bool:
    """Whether all of the account is there that a login takes."""
    home = system.path(f"{system.homes}/deploy")
    lines = {name: system.path(f"/etc/{name}").read_text().splitlines() for name in ("shadow", "group")}
    assert [line for line in lines["shadow"] if line.startswith("deploy:*:")]
    assert f"deploy:x:{uid}:" in lines["group"]
    assert "wheel:x:10:deploy" in lines["group"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (home, *home.rglob("*"))} == {(uid, uid)}
    assert {path.name for path in home.iterdir()} == {".ssh", *os.listdir(system.path("/etc/skel"))}
    assert stat.S_IMODE((home / ".of-the-skeleton").stat().st_mode) == 0o640
    assert [name for name in os.listdir(home.parent) if name.startswith(".firstkey")] == []
    return len(system.keys_of("deploy")) == 1


# useradd writes passwd, shadow, group, gshadow, subuid and subgid in this order.
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.slow
def test_a_useradd_that_was_killed_is_completed(
    system: PrivateSystem, service: Emulator, number: int
) -> None:
    """At each file: the next run takes its dead locks over, and makes what is missing."""
    cut = run(system, service, fault=USERADD.format(number))
    assert cut.report["accounts"][0]["reason"] == "user-create-failed"
    assert system.path("/etc/passwd.lock").exists()
    made = "deploy:" in system.path("/etc/passwd").read_text()
    assert made == (number > 1)
    done = run(system, service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed"), done.err
    assert is_whole(system, system.ids("deploy")[0])
    assert run(system, service).report["accounts"] == []


@pytest.mark.slow
@pytest.mark.parametrize("call", ["mkdirat", "fchown", "renameat"])
def test_a_home_whose_making_was_cut_off_is_made(system: PrivateSystem, service: Emulator, call: str) -> None:
    """The home is there with all that belongs into it, or not at all."""
    home = system.path(f"{system.homes}/deploy")
    seen = set()
    for number in range(1, 30):
        cut = run(system, service, fault=f"{call}:signal=KILL:when={number}")
        seen.add(home.exists())
        assert not home.exists() or (home / ".of-the-skeleton").stat().st_uid == system.ids("deploy")[0]
        if cut.status == 0:
            break
    done = run(system, service)
    assert done.status == 0, done.err
    assert is_whole(system, system.ids("deploy")[0])
    assert seen == {True, False}


def add(system: PrivateSystem, **lines: str) -> None:
    """Add lines to the system's files of accounts."""
    for name, line in lines.items():
        with system.path(f"/etc/{name}").open("a") as file:
            file.write(f"{line}\n")


def test_the_parts_that_are_missing_are_told(system: PrivateSystem, service: Emulator) -> None:
    """As one would type them; a dry run tells the same and makes nothing."""
    add(system, passwd=f"deploy:x:1700:1700::{system.homes}/deploy:/bin/sh")
    change = (
        "groupadd --gid 1700 deploy && usermod --password '*' deploy && "
        "usermod --append --groups wheel deploy && mkhomedir_helper deploy"
    )
    rehearsed = system.firstkey("run", "--json", "--dry-run", service=service)
    assert [each["change"] for each in rehearsed.report["accounts"]] == [change]
    assert not system.path(f"{system.homes}/deploy").exists()
    done = system.firstkey("run", "--json", service=service)
    assert [each["change"] for each in done.report["accounts"]] == [change]
    assert f"Missing parts of the account deploy were created, as by: {change}" in done.err
    assert is_whole(system, 1700)


@pytest.mark.parametrize(
    "lines",
    [
        {"passwd": "deploy:x:1700:100::/nonexistent:/bin/sh", "shadow": "deploy:!:1::::::"},
        {"passwd": "deploy:x:17:17::HOMES/root:/bin/ash", "shadow": "deploy:$6:1::::::", "group": "us:x:17:"},
    ],
)  # fmt: skip
def test_an_account_that_is_whole_stays_as_it_is(
    system: PrivateSystem, service: Emulator, lines: dict[str, str]
) -> None:
    """A home that is meant not to be there, a password, another shell and group: only a group comes to it."""
    lines = {name: line.replace("HOMES", system.homes) for name, line in lines.items()}
    add(system, **lines)
    done = system.firstkey("run", "--json", service=service)
    assert [each["change"] for each in done.report["accounts"]] == ["usermod --append --groups wheel deploy"]
    for name, line in lines.items():
        assert f"{line}\n" in system.path(f"/etc/{name}").read_text()
    assert not os.path.lexists("/nonexistent")


@pytest.mark.slow
def test_no_home_is_made_below_a_mount_that_comes_later(system: PrivateSystem, service: Emulator) -> None:
    """It would disappear then, with the keys in it; so it waits for that."""
    place = "/var/lib/disk"
    system.path(place).mkdir()
    system.write("/etc/fstab", f"# homes\nnone {place} tmpfs mode=0755 0 0\n")
    add(system, passwd=f"deploy:x:1700:1700::{place}/deploy:/bin/sh", group="deploy:x:1700:")
    done = system.firstkey("run", "--json", service=service)
    assert [each["reason"] for each in done.report["accounts"]] == ["home-missing"]
    assert f"{place} is not mounted yet" in done.report["accounts"][0]["detail"]
    assert done.user("deploy")["reason"] == "home-missing"
    assert system.run("mount", place).returncode == 0
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed")
    assert system.run("test", "-f", f"{place}/deploy/.ssh/authorized_keys").returncode == 0


PLACE = "/var/lib/disk"
HOME = f"{PLACE}/deploy"
OWN = f"mkdir -p {HOME} && chown 1700:1700 {HOME}"


def cover(system: PrivateSystem) -> None:
    """A user's home that is there, below the point of a mount that does not come before firstkey."""
    add(system, passwd=f"deploy:x:1700:1700::{HOME}:/bin/sh", group="deploy:x:1700:")
    assert system.run("sh", "-c", OWN).returncode == 0
    system.write("/etc/fstab", f"none {PLACE}/ tmpfs nofail,mode=0755 0 0\n")


def test_a_home_that_a_mount_will_cover_has_the_key_and_waits_for_the_mount(
    system: PrivateSystem, service: Emulator
) -> None:
    """The directory below lets in until then, which is said; and so root is redirected to that user.

    A key that nobody took out is not missed for ever after.
    """
    cover(system)
    system.configure("[Keys]\nUsers=root deploy\nRedirectRoot=yes\n")
    for added in (1, 0):
        done = system.firstkey("run", "--json", service=service)
        user = done.user("deploy")
        assert (user["result"], user["reason"], len(user["added"])) == ("refused", "home-missing", added)
        assert ("was added to" in done.err) == bool(added)
        assert f"{PLACE} is not mounted yet, and will cover {HOME}/.ssh/authorized_keys" in done.err
        assert system.run("test", "-s", f"{HOME}/.ssh/authorized_keys").returncode == 0
        assert 'login as the user \\"deploy\\"' in system.keys_of("root")[0]
    assert system.run("sh", "-c", f"mount {PLACE} && {OWN}").returncode == 0
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed")
    assert system.run("sh", "-c", f": > {HOME}/.ssh/authorized_keys").returncode == 0
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "unchanged")


@pytest.mark.parametrize("others", [True, False], ids=["another user's turn", "no key pair"])
def test_another_instances_key_below_a_late_mount_goes_once_that_is_there(
    system: PrivateSystem, service: Emulator, tmp_path: Path, *, others: bool
) -> None:
    """Where it cannot be seen it is not gone: the ledger knows of it until it is."""
    cover(system)
    assert system.run("sh", "-c", f"mount {PLACE} && {OWN}").returncode == 0
    assert system.firstkey("run", service=service).status == 0
    assert system.run("sh", "-c", f"cp -a {PLACE} /run/volume && umount {PLACE}").returncode == 0
    if others:
        system.configure("[Keys]\nUsers=root\n")
    keys = (("other", new_key(tmp_path, "other")),) if others else ()
    with Emulator(Settings(keys=keys, instance_id="i-0000000000000222")) as second:
        done = system.firstkey("run", "--json", service=second)
        assert (done.status, done.user("deploy")["reason"]) == (1, "home-missing")
        assert system.run("sh", "-c", f"mount {PLACE} && cp -a /run/volume/. {PLACE}").returncode == 0
        done = system.firstkey("run", "--json", service=second)
    assert (done.status, len(done.user("deploy")["revoked"])) == (0, 1)
    assert system.run("cat", f"{HOME}/.ssh/authorized_keys").stdout == ""


def test_a_mount_whose_point_is_a_link_is_found_where_that_leads(
    system: PrivateSystem, service: Emulator
) -> None:
    """As on systems whose /home is a link to /var/home, and stands in fstab as /home."""
    cover(system)
    moved = f"mv {PLACE} {PLACE}.real && ln -s disk.real {PLACE} && mount -t tmpfs none {PLACE}.real && {OWN}"
    assert system.run("sh", "-c", moved).returncode == 0
    done = system.firstkey("run", "--json", service=service)
    assert (done.status, done.user("deploy")["result"]) == (0, "changed")


@pytest.mark.slow
def test_a_lock_that_somebody_holds_is_told(system: PrivateSystem, service: Emulator) -> None:
    """Useradd waits for it, and names it; nothing is taken over from a process that lives."""
    with subprocess.Popen(["sleep", "60"]) as holder:
        system.write("/etc/passwd.lock", f"{holder.pid}\0")
        done = system.firstkey("run", "--json", service=service)
        holder.kill()
    assert done.user("deploy")["reason"] == "user-create-failed"
    assert "lock" in done.report["accounts"][0]["detail"]
    assert system.firstkey("run", "--json", service=service).user("deploy")["result"] == "changed"
