"""Every remedy that an audit prints, pasted into a shell that stands elsewhere; or why a person decides.

What is pasted can write to the tree alone: in a mount namespace, all else is read-only, so that a wrong
remedy fails and harms nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from image_builder import Builder, audited
from machine import AGENT

from firstkey.display import DECIDE
from firstkey.image import audit, formats, render, rules
from firstkey.image.audit import Audit, Entry
from firstkey.image.rule import Example
from firstkey.text import REMEDY

ODD = "-a 'b'  $(id)\n\"c\" \u00fc*"
"""A name of the root's that a shell takes apart wherever it is not quoted."""
SSHD = "/etc/ssh/sshd_config"
PASSWD = "/etc/passwd"
FIRSTKEY = rules.by_id("first-login").failing

# Why no command is sure to be right: what is found may be meant, and only its maker knows.
DECIDED = {
    "ami-tools": "nothing that is in an image is run",
    "first-login": "who is to log in, and by which of sshd's settings",
    "self-signed-keys": "each instance has to make its own, at its boot",
    "machine-info": "the image may be meant to have it",
    "boot-entries": "without them the image does not boot",
    "cloud-init-sshd": "what it sets may be all that forbids passwords",
    "cron-spools": "an image may be meant to have a crontab",
    "account-files": "what the line was meant to say",
    "password-login": "an image that stays in the house may take passwords",
    "root-login": "the launch key may be root's",
    "launch-user-sudo": "who is to become root",
    "first-boot-waits": "an image may be built to have its units turned on by presets",
    "supported-system": "another release is another image",
    "encrypted-disks": "the disk cannot be decrypted in place",
}
"""The rules whose failing example has words for a person, and why."""


class Case(NamedTuple):
    """A tree, and whether all that the rule finds in it is repaired by a command."""

    rule: str
    tree: Example
    is_command: bool


LINE_FEED = "/root/.-a 'b\"\n$(id)_history"
MORE = {
    "history-with-an-odd-name": Case("histories", {LINE_FEED: "ls\n"}, True),
    "link-in-place-of-a-history": Case(
        "histories", {"/root/.bash_history": "->/etc/bash.bashrc", "/etc/bash.bashrc": "x\n"}, True
    ),
    "host-key-is-a-link": Case("host-keys", {"/etc/ssh/ssh_host_rsa_key": "->/victim"}, True),
    "host-key-without-a-key": Case("host-keys", {SSHD: "HostKey /etc/app\n", "/etc/app": "x\n"}, False),
    "launch-key-through-a-link": Case(
        "authorized-keys",
        {PASSWD: "a:x:1000:1000::/home/a:/bin/sh\n", "/home/a/.ssh/authorized_keys": "->/victim"},
        True,
    ),
    "authority": Case("trusted-logins", {SSHD: "\nTrustedUserCAKeys /etc/ca\n"}, False),
    "record-of-a-user": Case(
        "trusted-logins", {"/etc/userdb/a.user": '{"sshAuthorizedKeys": ["ssh-ed25519 AAAA"]}'}, False
    ),
    "password-in-fstab": Case(
        "system-credentials", {"/etc/fstab": "//h/s /mnt cifs username=a,password=Secr3t-9 0 0\n"}, False
    ),
    "hash-in-another-file": Case(
        "account-backups", {"/srv/notes": f"root:$6$salt${'h4' * 20}:19000:0:99999:7:::\n"}, False
    ),
    "firstkey-is-missing": Case("key-installer", {SSHD: "\n"}, False),
    "firstkey-is-off-on-the-command-line": Case(
        "key-installer",
        {**FIRSTKEY, "/etc/default/grub": 'GRUB_CMDLINE_LINUX="quiet firstkey=off"\n'},
        False,
    ),
    "firstkey-is-disabled": Case("key-installer", {**FIRSTKEY, "/etc/firstkey/disabled": ""}, True),
    "machine-id-elsewhere": Case("machine-id", {"/etc/machine-id": "->/etc/x", "/etc/x": "mine\n"}, False),
    "name-servers": Case("builder-names", {"/etc/resolv.conf": "nameserver 10.0.0.2\n"}, False),
    "network-card": Case(
        "network-names", {"/etc/network/interfaces": "hwaddress 0a:00:00:00:00:01\n"}, False
    ),
    "login-by-cloud-init": Case(
        "cloud-init-data", {"/etc/cloud/cloud.cfg": "ssh_authorized_keys:\n  - ssh-ed25519 AAAA\n"}, False
    ),
    "publisher-is-not-set": Case("publisher", {PASSWD: "root:x:0:0::/root:/bin/sh\n"}, False),
}
NEED_SSHD = (
    "root-password-login",
    "use-dns",
    "first-login",
    "password-login",
    "root-login",
    "trusted-logins",
)


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Where it can run."""
    return [pytest.mark.sshd] if name in NEED_SSHD else []


ALL = [
    *(pytest.param(rule.id, rule.failing, rule.id not in DECIDED, id=rule.id, marks=marks(rule.id))
      for rule in rules.ALL if rule.id != "everything-seen"),  # it finds nothing: it is unknown
    *(pytest.param(*case, id=name, marks=marks(case.rule)) for name, case in MORE.items()),
]  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Builder]:
    """An empty tree whose path has to be quoted."""
    root = tmp_path / ODD
    root.mkdir()
    grown = Builder(root)
    yield grown
    grown.close()


def entries(done: Audit) -> list[Entry]:
    """What is found."""
    return [entry for result in done.results for entry in result.entries]


def said_by(tree: Builder, rule: str) -> Audit:
    """What that rule says of the tree as it is now."""
    return audited(tree.image(), audit.chosen([rule]))


READ_ONLY = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 none /run  # where sshd is asked, on copies
mount --bind -- "$1" "$1"
mounts=$(cat /proc/self/mountinfo)  # all at once: what is remounted changes the lines that follow
while read -r _ _ _ _ at _; do
  at=$(printf '%b_' "$at") at=${at%_}
  case $at in
    "$1" | /run | /run/*) ;;
    *) mount -o remount,bind,ro -- "$at" 2>/dev/null || echo "$at" >&3 ;;
  esac
done <<< "$mounts"
cd /usr
exec bash
"""


def paste(tree: Builder, text: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Give the text to a shell as a terminal would: it stands in /usr, and can write to the tree alone."""
    shim = scratch / "bin" / "firstkey"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m firstkey "$@"\n')
    shim.chmod(0o755)
    environment = {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(AGENT),
        "LC_ALL": "C.UTF-8",
    }
    with (scratch / "still-writable").open("w+") as others:
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", f"exec 3>&{others.fileno()}\n{READ_ONLY}", "bash",
             str(tree.root)],
            input=text, capture_output=True, text=True, check=False, timeout=300, env=environment,
            pass_fds=[others.fileno()],
        )  # fmt: skip
        others.seek(0)
        assert others.read() == ""
    return done


@pytest.mark.root
def test_what_is_pasted_can_write_to_the_tree_alone(odd: Builder, tmp_path: Path) -> None:
    """Else the tests below would prove nothing, and a wrong remedy would harm this machine."""
    for place in (tmp_path, Path("/etc"), Path("/usr"), Path("/var/lib"), Path("/tmp")):
        assert paste(odd, f"touch {place}/firstkey-test && echo done\n", tmp_path).stdout == ""
    assert paste(odd, f"touch {shlex.quote(str(odd.root))}/a && echo done\n", tmp_path).stdout == "done\n"


@pytest.mark.parametrize("rule, tree, is_command", ALL)
@pytest.mark.sample(3)
def test_each_remedy_is_a_command_or_words(
    odd: Builder, rule: str, tree: Mapping[str, str | bytes | None], *, is_command: bool
) -> None:
    """A command names the root, however odd; words say that a person decides, and hold nothing to paste."""
    odd.grow(tree)
    done = said_by(odd, rule)
    found = entries(done)
    assert found
    report = formats.as_json(done)["rules"][0]["findings"]
    shown = [line.strip() if isinstance(line, str) else line.text for line in render.lines(done)]
    for entry, plain in zip(found, report):
        assert (bool(entry.command), plain["is_command"]) == (is_command, is_command), entry
        assert plain["remedy"] == entry.remedy
        assert f"{REMEDY if is_command else DECIDE}{entry.remedy}" in shown
        words = ["firstkey", "seal", "--root", str(odd.root), "--rule", rule]
        if is_command:
            # The shell's own reading, since $'...' is none of shlex's.
            argv = ["bash", "-c", f"printf '%s\\0' {entry.command}"]
            read = subprocess.run(argv, capture_output=True, check=True).stdout
            assert [os.fsdecode(word) for word in read.split(b"\0")][: len(words)] == words
        else:
            assert not {"rm", "shred", "truncate", "firstkey"} & set(entry.remedy.split())


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("rule, tree, is_command", [each for each in ALL if each.values[2]])
def test_a_pasted_command_cures(
    odd: Builder, tmp_path: Path, rule: str, tree: Mapping[str, str | bytes | None], *, is_command: bool
) -> None:
    """What was found is gone, and the command says that all went well."""
    odd.grow(tree)
    commands = dict.fromkeys(entry.command for entry in entries(said_by(odd, rule)))
    for command in commands:
        done = paste(odd, f"{command}\n", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert is_command
    assert entries(said_by(odd, rule)) == []
