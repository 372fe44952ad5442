"""`firstkey config --check`: in CI, what the boot of the image would find."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from machine import Machine

BAD_CONFIG = 78
UNIT = (Path(__file__).parents[2] / "systemd" / "firstkey.service").read_text(encoding="utf-8")
DEPLOY = "[Keys]\nUsers=deploy\n[User deploy]\nCreate=yes\n"


@pytest.fixture
def image(machine: Machine) -> Machine:
    """A tree with a shell and the unit."""
    machine.write("/bin/bash", "")
    machine.write("/usr/lib/systemd/system/firstkey.service", UNIT)
    machine.write("/etc/sudoers", "@includedir /etc/sudoers.d\n")
    return machine


def test_a_good_configuration_has_no_mistake(image: Machine) -> None:
    """An account that is to be made, with its shell and a group that is there."""
    image.configure(f"{DEPLOY}Groups=users\n")
    done = image.firstkey("config", "--check")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    "text, line, said",
    [
        (f"{DEPLOY}Groups=wheels\n", 5, "Groups=: there is no group wheels"),
        (f"{DEPLOY}Shell=/bin/zsh\n", 5, "Shell=: there is no /bin/zsh, with which deploy would log in"),
        (
            "[Keys]\nUsers=deploy\n",
            2,
            "there is no account deploy, and [User deploy] does not have Create=yes",
        ),
        ("[IMDS]\nEndpoints=http://192.0.2.7\n[Keys]\nUsers=admin\n", 2, "IPAddressAllow=192.0.2.7"),
    ],
    ids=["group", "shell", "account", "endpoint"],
)
def test_what_the_tree_lacks_is_a_mistake(image: Machine, text: str, line: int, said: str) -> None:
    """With file and line, and exit 78."""
    image.configure(text)
    done = image.firstkey("config", "--check")
    assert (done.status, done.out) == (BAD_CONFIG, "")
    assert f"firstkey: /etc/firstkey/firstkey.conf:{line}: " in done.err
    assert said in done.err
    assert "the configuration has 1 mistake" in done.err


@pytest.mark.skipif(not shutil.which("visudo", path="/usr/sbin:/usr/bin"), reason="needs visudo")
@pytest.mark.parametrize(
    "rule, is_good", [("ALL=(ALL) NOPASSWD: ALL", True), ("ALL=(ALL NOPASSWD ALL", False)]
)
def test_a_rule_of_sudo_is_validated(image: Machine, tmp_path: Path, rule: str, is_good: bool) -> None:
    """By visudo, for a tree as for a file alone."""
    text = f"{DEPLOY}Sudo={rule}\n"
    image.configure(text)
    own = tmp_path / "own.conf"
    own.write_text(text)
    for options in ((), ("--config", str(own))):
        done = image.firstkey("config", "--check", *options)
        assert done.status == (0 if is_good else BAD_CONFIG)
        assert ("[User deploy] Sudo=: visudo rejects" in done.err) is not is_good


def test_a_rule_that_sudo_would_not_read_is_a_mistake(image: Machine) -> None:
    """Its file is written, and nothing includes the directory."""
    image.write("/etc/sudoers", "root ALL=(ALL) ALL\n")
    image.configure(f"{DEPLOY}Sudo=ALL=(ALL) NOPASSWD: ALL\n")
    done = image.firstkey("config", "--check")
    assert done.status == BAD_CONFIG
    assert "no file of sudo's includes /etc/sudoers.d" in done.err


@pytest.mark.parametrize("allowed, is_good", [("192.0.2.0/24", True), ("any", True), ("192.0.3.0/24", False)])
def test_a_drop_in_lets_an_endpoint_through(image: Machine, allowed: str, is_good: bool) -> None:
    """As systemd reads it: beside what the unit itself allows."""
    image.configure("[IMDS]\nEndpoints=http://192.0.2.7 http://169.254.169.254\n[Keys]\nUsers=admin\n")
    drop_in = f"[Service]\nIPAddressAllow={allowed} nonsense\n"
    image.write("/etc/systemd/system/firstkey.service.d/own.conf", drop_in)
    assert image.firstkey("config", "--check").status == (0 if is_good else BAD_CONFIG)
