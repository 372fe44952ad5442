"""Whom sudo's files make root: what audit reads in a tree's, and what sudo itself does with the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from image_builder import Builder
from private_system import PrivateSystem

from firstkey.image import rules
from firstkey.image.audit import verdict_of
from firstkey.image.rules import boot
from firstkey.image.verdict import FINDING, PASS, UNKNOWN, Verdict

pytestmark = pytest.mark.skipif(not shutil.which("cvtsudoers"), reason="needs sudo with cvtsudoers")

RULE = rules.by_id("launch-user-sudo")
MORE = "/etc/sudoers.more"
CASES: dict[str, bool | None] = {
    "ann ALL=(ALL) NOPASSWD: ALL": True,
    "ann ALL=(ALL) ALL": False,
    "%wheel ALL=(ALL:ALL) NOPASSWD: ALL": True,
    "%other ALL=(ALL:ALL) NOPASSWD: ALL": False,
    "%#10 ALL=NOPASSWD: ALL": True,
    "ann ALL=NOPASSWD: ALL\n%#10 ALL=ALL": False,
    "%#27 ALL=NOPASSWD: ALL": False,
    "Ann ALL=NOPASSWD: ALL": True,
    "ann ALL=NOPASSWD: ALL\n%Wheel ALL=ALL": False,
    "User_Alias OPS = svc, ann\nCmnd_Alias ANY = ALL\nOPS ALL=(root) NOPASSWD: ANY": True,
    "Defaults:ann !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults:%wheel !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults:%#10 !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults:root !authenticate\nann ALL=(ALL) ALL": False,
    "Defaults:!svc !authenticate\nann ALL=(ALL) ALL": False,
    "Defaults>root !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults>root !authenticate\nDefaults authenticate\nann ALL=(ALL) ALL": False,
    "Defaults>ann !authenticate\nann ALL=(ALL) ALL": False,
    "Defaults@ALL !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults@elsewhere !authenticate\nann ALL=(ALL) ALL": None,
    "Defaults@10.0.0.0/8 authenticate\nDefaults !authenticate\nann ALL=(ALL) ALL": True,
    "Defaults!ALL !authenticate\nDefaults authenticate\nann ALL=(ALL) ALL": True,
    "Defaults!/usr/bin/true !authenticate\nann ALL=(ALL) ALL": False,
    "Defaults !authenticate\nDefaults authenticate\nann ALL=(ALL) ALL": False,
    "Defaults !authenticate, authenticate\nann ALL=(ALL) ALL": False,
    "Defaults !authenticate\nann ALL=(ALL) PASSWD: ALL": False,
    "Defaults runas_default=ann\nann ALL=NOPASSWD: ALL": None,
    "Defaults exempt_group=wheel\nann ALL=(ALL) ALL": None,
    "Defaults:svc noexec\nann ALL=NOPASSWD: ALL": True,
    "Defaults noexec\nann ALL=NOPASSWD: ALL": None,
    "ann ALL=NOPASSWD: NOEXEC: ALL": None,
    "Defaults requiretty\nann ALL=NOPASSWD: ALL": True,
    "ann ALL=(www-data) NOPASSWD: ALL": False,
    "ann ALL=(:wheel) NOPASSWD: ALL": False,
    "ann ALL=() NOPASSWD: ALL": False,
    "ann ALL=(%root) NOPASSWD: ALL": True,
    "ann ALL=(%wheel) NOPASSWD: ALL": None,
    "ann ALL=(ALL, !root) NOPASSWD: ALL": False,
    "ann ALL=NOPASSWD: ALL\nann ALL=(!root) ALL": True,
    "ann ALL=NOPASSWD: ALL\nann ALL=(:wheel) ALL": True,
    "ann ALL=(#0) NOPASSWD: ALL": True,
    "ann ALL=NOPASSWD: ALL\nann ALL=(#0) ALL": False,
    "ann ALL=NOPASSWD: /usr/bin/true, ALL": True,
    "ann ALL=NOPASSWD: ALL, !ALL": False,
    "ann ALL=NOPASSWD: ALL, !/usr/bin/su": True,
    f"ann ALL=NOPASSWD: sha224:{'d06a2617' * 7} ALL": False,
    "ann ALL=NOPASSWD: ALL\n%wheel ALL=(ALL) ALL": False,
    "%wheel ALL=(ALL) ALL\nann ALL=NOPASSWD: ALL": True,
    "ann elsewhere=NOPASSWD: ALL": None,
    "ann ALL=NOPASSWD: ALL\nann 10.0.0.0/8=ALL": None,
    "ann ALL=NOPASSWD: ALL\nann !elsewhere=ALL": True,
    "+ops ALL=NOPASSWD: ALL": None,
    "ann ALL=NOPASSWD: ALL\n+ops ALL=ALL": None,
    "+ops ALL=ALL\nann ALL=NOPASSWD: ALL": True,
    "ann ALL=NOPASSWD: ALL\nann ALL=(www-data) ALL\nsvc ALL=ALL": True,
    "ALL, !ann ALL=NOPASSWD: ALL": False,
    "ann ALL=NOTAFTER=20200101000000Z NOPASSWD: ALL": False,
    "ann ALL=NOPASSWD: ALL\nann ALL=NOTAFTER=20200101000000Z ALL": True,
    "ann ALL=NOTAFTER=99990101000000Z NOPASSWD: ALL": None,
    "ann ALL=NOTBEFORE=20200101000000Z NOPASSWD: ALL": True,
    "ann ALL=NOTBEFORE=99990101000000Z NOPASSWD: ALL": None,
    "#include sudoers.more": True,
    f"@include {MORE}": True,
    f"@include \\\n {MORE}": True,
    "@includedir /etc/sudoers.none": False,
    f"# include {MORE}": False,
    "root ALL=(ALL) ALL": False,
}
"""What sudo's main file says, and whether that makes ann root without a password. None: it depends on what
the image does not say, or on what the rule does not judge.
"""
OUTCOMES = {True: PASS, False: FINDING, None: UNKNOWN}


def grow(builder: Builder, sudoers: str, user: str = "[User ann]\n") -> Verdict:
    """What the rule says of a tree in which firstkey gives ann the launch key."""
    builder.grow(boot.WORKING)
    builder.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    builder.file("/etc/group", "ann:x:1000:\nwheel:x:10:svc,ann\n")
    builder.file("/etc/firstkey/firstkey.conf", f"[Keys]\nUsers=ann\n{user}")
    builder.file("/usr/bin/sudo", "")
    builder.file("/etc/sudoers", f"{sudoers}\n")
    builder.file(MORE, "ann ALL=(ALL) NOPASSWD: ALL")
    return verdict_of(RULE, builder.image())


@pytest.mark.parametrize("sudoers", CASES)
@pytest.mark.sample(3)
def test_who_becomes_root_is_read(builder: Builder, sudoers: str) -> None:
    """The last rule counts that is about root and every program."""
    assert grow(builder, sudoers).outcome == OUTCOMES[CASES[sudoers]]


@pytest.mark.root
def test_sudo_itself_agrees(tmp_path: Path) -> None:
    """With each of the same files."""
    (tmp_path / "system").mkdir()
    with PrivateSystem(tmp_path / "system") as system:
        system.add_user("ann")
        system.write("/etc/group", f"{system.path('/etc/group').read_text()}wheel:x:10:svc,ann\n")
        system.write(MORE, "ann ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
        made: dict[str, bool | None] = {}
        for sudoers in CASES:
            system.write("/etc/sudoers", f"{sudoers}\n", mode=0o440)
            # With a terminal, as a person has one: some files ask for it. script types into it where its own
            # input is at its end, so the answer may stand behind an echo.
            argv = ("script", "-qec", "sudo -n sh -c 'echo I am $(id -u).'", "/dev/null")
            made[sudoers] = "I am 0." in system.run(*argv, user="ann").stdout
    assert made == {
        sudoers: made[sudoers] if is_root is None else is_root for sudoers, is_root in CASES.items()
    }


@pytest.mark.parametrize("includes", [True, False])
def test_the_rule_that_firstkey_will_write_counts_where_sudo_reads_it(
    builder: Builder, *, includes: bool
) -> None:
    """It comes after the others, and is written at boot."""
    include = "@includedir /etc/sudoers.d" if includes else ""
    said = grow(builder, f"%wheel ALL=(ALL) ALL\n{include}", "[User ann]\nSudo=ALL=(ALL) NOPASSWD: ALL\n")
    assert said.outcome == (PASS if includes else FINDING)


def test_without_sudo_nobody_becomes_root(builder: Builder) -> None:
    """Whatever the files say."""
    grow(builder, "ann ALL=(ALL) NOPASSWD: ALL")
    builder.path("/usr/bin/sudo").unlink()
    assert verdict_of(RULE, builder.image()).outcome == FINDING


def test_nothing_of_the_hosts_is_included(builder: Builder) -> None:
    """A tree's file names files of the tree, in every spelling; a file that includes itself is read once."""
    hosts = builder.root.parent / "hosts"
    hosts.write_text("ann ALL=NOPASSWD: ALL\n")
    lines = (
        f'@include"{hosts}"',
        f"\t #include\t{hosts}\\",
        "",
        f"@includedir {hosts.parent}",
        "@include sudoers",
    )
    assert grow(builder, "\n".join(lines)).outcome == FINDING


def test_files_that_sudo_rejects_are_unknown(builder: Builder) -> None:
    """With what is wrong."""
    said = grow(builder, "ann ALL=(")
    assert (said.outcome, said.unknowns[0].refusal.reason.code) == (UNKNOWN, "sudoers-invalid")


def test_files_that_are_too_long_are_unknown(builder: Builder) -> None:
    """As JSON they have ten times their length."""
    said = grow(builder, "\n".join(f"user{number} ALL=(ALL) /usr/bin/true" for number in range(9000)))
    assert (said.outcome, said.unknowns[0].refusal.reason.code) == (UNKNOWN, "not-looked-at")


def test_one_user_who_becomes_root_is_enough(builder: Builder) -> None:
    """Of another it may be unknown; so may the number of a user who is yet to be made."""
    rules = "#1001 ALL=NOPASSWD: ALL\n"
    users = "[User ann]\n[User eve]\nCreate=yes\n"
    grow(builder, rules, users)
    builder.file("/etc/firstkey/firstkey.conf", f"[Keys]\nUsers=eve ann\n{users}")
    assert verdict_of(RULE, builder.image()).outcome == UNKNOWN
    builder.file("/etc/sudoers", f"{rules}ann ALL=NOPASSWD: ALL\n")
    assert verdict_of(RULE, builder.image()).outcome == PASS


def test_json_that_is_none_is_unknown(builder: Builder) -> None:
    """Cvtsudoers of sudo 1.9.13 prints such where a rule has a directory to begin in."""
    said = grow(builder, "ann ALL=(ALL) CWD=/ NOPASSWD: ALL")
    assert {unknown.refusal.reason.code for unknown in said.unknowns} <= {"not-looked-at"}
    assert said.outcome in (PASS, UNKNOWN)


@pytest.mark.root
def test_without_cvtsudoers_it_is_unknown(builder: Builder, tmp_path: Path) -> None:
    """As on a host with sudo-rs; in an image for AWS Marketplace that is not enough."""
    grow(builder, "ann ALL=(ALL) NOPASSWD: ALL")
    (tmp_path / "system").mkdir()
    with PrivateSystem(tmp_path / "system") as system:
        argv = ("audit", "--root", str(builder.root), "--rule", RULE.id, "--profile", "marketplace", "--json")
        assert system.firstkey(*argv).status == 0
        assert system.run("mount", "--bind", "/dev/null", str(shutil.which("cvtsudoers"))).returncode == 0
        done = system.firstkey(*argv)
    (unknown,) = done.report["rules"][0]["unknown"]
    assert (done.status, unknown["reason"]) == (1, "not-looked-at")
    assert "cvtsudoers" in unknown["detail"]
