"""Whom sudo's files make root: what audit reads in a tree's, and what sudo itself does with the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from private_system import PrivateSystem
from sapling import Sapling

from firstkey.image import rules
from firstkey.image.audit import verdict_of
from firstkey.image.rules import boot
from firstkey.image.verdict import FINDING, PASS, UNKNOWN, Verdict

pytestmark = pytest.mark.skipif(not shutil.which("cvtsudoers"), reason="needs sudo with cvtsudoers")

RULE = rules.by_id("launch-user-sudo")
MORE = "/etc/sudoers.more"
CASES = {
    "ann ALL=(ALL) NOPASSWD: ALL": True,
    "ann ALL=(ALL) ALL": False,
    "%wheel ALL=(ALL:ALL) NOPASSWD: ALL": True,
    "%other ALL=(ALL:ALL) NOPASSWD: ALL": False,
    "User_Alias OPS = svc, ann\nCmnd_Alias ANY = ALL\nOPS ALL=(root) NOPASSWD: ANY": True,
    "Defaults:ann !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults !authenticate\nDefaults authenticate\nann ALL=(ALL) ALL": False,
    "Defaults !authenticate\nann ALL=(ALL) PASSWD: ALL": False,
    "ann ALL=(www-data) NOPASSWD: ALL": False,
    "ann ALL=(:wheel) NOPASSWD: ALL": False,
    "ann ALL=NOPASSWD: ALL\nann ALL=(:wheel) ALL": True,
    "ann ALL=(#0) NOPASSWD: ALL": True,
    "ann ALL=NOPASSWD: ALL\nann ALL=(#0) ALL": False,
    "ann ALL=NOPASSWD: /usr/bin/true, ALL": True,
    "ann ALL=NOPASSWD: ALL, !ALL": False,
    "ann ALL=NOPASSWD: ALL\n%wheel ALL=(ALL) ALL": False,
    "%wheel ALL=(ALL) ALL\nann ALL=NOPASSWD: ALL": True,
    "ann elsewhere=NOPASSWD: ALL": False,
    "ann ALL=NOPASSWD: ALL\nann ALL=(www-data) ALL\nsvc ALL=ALL": True,
    "ALL, !ann ALL=NOPASSWD: ALL": False,
    "#include sudoers.more": True,
    f"@include {MORE}": True,
    "@includedir /etc/sudoers.none": False,
    f"# include {MORE}": False,
    "root ALL=(ALL) ALL": False,
}
"""What sudo's main file says, and whether that makes ann root without a password."""


def grow(sapling: Sapling, sudoers: str, user: str = "[User ann]\n") -> Verdict:
    """What the rule says of a tree in which firstkey gives ann the launch key."""
    sapling.grow(boot.WORKING)
    sapling.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    sapling.file("/etc/group", "ann:x:1000:\nwheel:x:10:svc,ann\n")
    sapling.file("/etc/firstkey/firstkey.conf", f"[Keys]\nUsers=ann\n{user}")
    sapling.file("/usr/bin/sudo", "")
    sapling.file("/etc/sudoers", f"{sudoers}\n")
    sapling.file(MORE, "ann ALL=(ALL) NOPASSWD: ALL")
    return verdict_of(RULE, sapling.image())


@pytest.mark.parametrize("sudoers", CASES)
def test_who_becomes_root_is_read(sapling: Sapling, sudoers: str) -> None:
    """The last rule counts that is about root and every program."""
    assert grow(sapling, sudoers).outcome == (PASS if CASES[sudoers] else FINDING)


@pytest.mark.root
def test_sudo_itself_agrees(tmp_path: Path) -> None:
    """With each of the same files."""
    (tmp_path / "system").mkdir()
    with PrivateSystem(tmp_path / "system") as system:
        system.add_user("ann")
        system.write("/etc/group", f"{system.path('/etc/group').read_text()}wheel:x:10:svc,ann\n")
        system.write(MORE, "ann ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
        made = {}
        for sudoers in CASES:
            system.write("/etc/sudoers", f"{sudoers}\n", mode=0o440)
            made[sudoers] = system.run("sudo", "-n", "id", "-u", user="ann").stdout == "0\n"
    assert made == CASES


@pytest.mark.parametrize("includes", [True, False])
def test_the_rule_that_firstkey_will_write_counts_where_sudo_reads_it(
    sapling: Sapling, *, includes: bool
) -> None:
    """It comes after the others, and is written at boot."""
    include = "@includedir /etc/sudoers.d" if includes else ""
    said = grow(sapling, f"%wheel ALL=(ALL) ALL\n{include}", "[User ann]\nSudo=ALL=(ALL) NOPASSWD: ALL\n")
    assert said.outcome == (PASS if includes else FINDING)


def test_without_sudo_nobody_becomes_root(sapling: Sapling) -> None:
    """Whatever the files say."""
    grow(sapling, "ann ALL=(ALL) NOPASSWD: ALL")
    sapling.path("/usr/bin/sudo").unlink()
    assert verdict_of(RULE, sapling.image()).outcome == FINDING


def test_nothing_of_the_hosts_is_included(sapling: Sapling) -> None:
    """A tree's file names files of the tree, in every spelling; a file that includes itself is read once."""
    hosts = sapling.root.parent / "hosts"
    hosts.write_text("ann ALL=NOPASSWD: ALL\n")
    lines = (
        f'@include"{hosts}"',
        f"\t #include\t{hosts}\\",
        "",
        f"@includedir {hosts.parent}",
        "@include sudoers",
    )
    assert grow(sapling, "\n".join(lines)).outcome == FINDING


def test_files_that_sudo_rejects_are_unknown(sapling: Sapling) -> None:
    """With what is wrong."""
    said = grow(sapling, "ann ALL=(")
    assert (said.outcome, said.doubts[0].refusal.reason.code) == (UNKNOWN, "sudoers-invalid")


def test_json_that_is_none_is_unknown(sapling: Sapling) -> None:
    """Cvtsudoers of sudo 1.9.13 prints such where a rule has a directory to begin in."""
    said = grow(sapling, "ann ALL=(ALL) CWD=/ NOPASSWD: ALL")
    assert {doubt.refusal.reason.code for doubt in said.doubts} <= {"not-looked-at"}
    assert said.outcome in (PASS, UNKNOWN)


@pytest.mark.root
def test_without_cvtsudoers_it_is_unknown(sapling: Sapling, tmp_path: Path) -> None:
    """As on a host with sudo-rs; in an image for AWS Marketplace that is not enough."""
    grow(sapling, "ann ALL=(ALL) NOPASSWD: ALL")
    (tmp_path / "system").mkdir()
    with PrivateSystem(tmp_path / "system") as system:
        argv = ("audit", "--root", str(sapling.root), "--rule", RULE.id, "--profile", "marketplace", "--json")
        assert system.firstkey(*argv).status == 0
        assert system.run("mount", "--bind", "/dev/null", str(shutil.which("cvtsudoers"))).returncode == 0
        done = system.firstkey(*argv)
    (doubt,) = done.report["rules"][0]["unknown"]
    assert (done.status, doubt["reason"]) == (1, "not-looked-at")
    assert "cvtsudoers" in doubt["detail"]
