"""The head start of the RSA host key, as its unit runs it, and as the daemon takes it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import AGENT
from private_system import PrivateSystem

from firstkey.system import head_start

UNIT = ["/usr/bin/python3", "-BIS", str(AGENT / "firstkey/system/head_start.py")]
DAEMON = """\
import json, os, subprocess, sys, time
from firstkey.system import head_start
before = head_start.join()
maker = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
while not (early := head_start.join()) and maker.poll() is None:
    time.sleep(0.001)
if early:
    early.wait(seconds=60)
print(json.dumps([before is None, early is not None, os.path.exists(head_start.DIRECTORY + "/key.pub")]))
"""

TAKING = """\
import os
from firstkey import config
from firstkey.boot import host_key_survey
from firstkey.boot.host_key_making import Making
from firstkey.boot.ledger import Ledger
from firstkey.boot.site import Site
from firstkey.system import head_start
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree
with Tree("/") as tree:
    site = Site(tree, Accounts(tree), config.read(()), print)
    actions = host_key_survey.survey(site, ["/etc/ssh/ssh_host_rsa_key"], Ledger(), None)
    with Making(site, actions) as making:
        pairs = making.finish()
        print(pairs[0].public_line.decode().strip(), os.path.exists(head_start.DIRECTORY))
"""

needs_root = [pytest.mark.root, pytest.mark.sshd]
needs_root_and_time = [*needs_root, pytest.mark.slow]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PrivateSystem]:
    """A system whose /run/firstkey/head-start systemd has just made."""
    with PrivateSystem(tmp_path) as private:
        private.write("/etc/hostname", "ip-10-0-0-1\n")
        private.run("install", "-d", "-m", "0755", "/run/firstkey")
        private.run("install", "-d", "-m", "0700", head_start.DIRECTORY)
        yield private


def replace_keygen(system: PrivateSystem, script: str) -> None:
    """Another program in the place of ssh-keygen."""
    system.write("/run/fake-keygen", f"#!/bin/sh\n{script}\n", mode=0o755)
    assert system.run("mount", "--bind", "/run/fake-keygen", head_start.PROGRAM).returncode == 0


def left(system: PrivateSystem) -> set[str]:
    """The names in the directory."""
    return {path.name for path in system.path(head_start.DIRECTORY).iterdir()}


LOOKS = """\
sleep 0.2
group=$(cut -d " " -f 3 /proc/self/autogroup 2>/dev/null || true)
policy=$(chrt --pid $$ | sed -n "s/.*policy: //p")
echo "$(nice) $policy ${group:-$(nice)}" >"/run/${9##*/}"
exit 1"""


def looks_of_racers(system: PrivateSystem, *argv: str) -> list[list[str]]:
    """Of each racer: its nice value, its policy (sched(7)), and the nice value of its session."""
    replace_keygen(system, LOOKS)
    assert system.run(*argv).returncode == 0
    return [file.read_text().split() for file in sorted(system.path("/run").glob("key.?"))]


class TestOnASystem:
    pytestmark = needs_root_and_time

    def test_the_unit_leaves_one_whole_key(self, system: PrivateSystem) -> None:
        """For root alone, with the comment that ssh-keygen -A gives."""
        done = system.run(*UNIT)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert {"at-work", "key", "key.pub"} <= left(system)
        key = system.path(f"{head_start.DIRECTORY}/key")
        assert key.stat().st_mode & 0o777 == 0o600
        said = system.run("ssh-keygen", "-l", "-f", f"{head_start.DIRECTORY}/key.pub").stdout
        assert said.endswith(" root@ip-10-0-0-1 (RSA)\n")
        derived = system.run("ssh-keygen", "-y", "-f", f"{head_start.DIRECTORY}/key").stdout
        assert derived == system.path(f"{head_start.DIRECTORY}/key.pub").read_text()

    def test_the_daemon_waits_for_it(self, system: PrivateSystem) -> None:
        """It joins while the key is being made, and has it once it is there."""
        assert json.loads(system.run(sys.executable, "-c", DAEMON, *UNIT).stdout) == [True, True, True]

    def test_the_daemon_finds_what_is_done(self, system: PrivateSystem) -> None:
        """Where the key was made before the daemon came."""
        system.run(*UNIT)
        program = (
            "import time\n"
            "from firstkey.system import head_start\n"
            "began = time.monotonic()\n"
            "head_start.join().wait(seconds=60)\n"
            "assert time.monotonic() - began < 30\n"
        )
        assert system.run(sys.executable, "-c", program).stderr == ""

    @pytest.mark.parametrize("script", ["exit 1", "kill -9 $$", "kill -9 $PPID; sleep 1"])
    def test_one_that_comes_to_nothing(self, system: PrivateSystem, script: str) -> None:
        """Whoever waits is told that there is no key: ssh-keygen failed, or what had started it died."""
        replace_keygen(system, script)
        *_, is_made = json.loads(system.run(sys.executable, "-c", DAEMON, *UNIT).stdout)
        assert not is_made
        assert not {"key", "key.pub"} & left(system)

    def test_what_an_earlier_one_left_is_no_key(self, system: PrivateSystem) -> None:
        """A daemon that was killed may have left files; they are never taken for this boot's."""
        system.write(f"{head_start.DIRECTORY}/key.pub", "old")
        replace_keygen(system, "exit 1")
        system.run(*UNIT)
        assert left(system) == {"at-work"}

    @pytest.mark.parametrize("types, made", [("auto", {"ecdsa", "ed25519", "rsa"}), ("ed25519", {"ed25519"})])
    def test_firstkey_takes_it_up(self, system: PrivateSystem, types: str, made: set[str]) -> None:
        """Its RSA key becomes the host's, if one is wanted; in any case nothing is left of it."""
        system.write("/etc/ssh/sshd_config", "")
        system.write("/etc/firstkey/firstkey.conf", f"[HostKeys]\nTypes={types}\nConsole=no\n")
        system.run(*UNIT)
        early = system.path(f"{head_start.DIRECTORY}/key.pub").read_text()
        assert system.firstkey("host-keys").status == 0
        keys = {path.name: path.read_text() for path in system.path("/etc/ssh").glob("ssh_host_*_key.pub")}
        assert set(keys) == {f"ssh_host_{kind}_key.pub" for kind in made}
        assert (early in keys.values()) is (types == "auto")
        assert not system.path(head_start.DIRECTORY).exists()

    def test_firstkey_makes_one_itself_where_it_failed(self, system: PrivateSystem) -> None:
        """A head start is no promise."""
        system.write("/etc/ssh/sshd_config", "")
        system.write("/etc/firstkey/firstkey.conf", "[HostKeys]\nTypes=rsa\nConsole=no\n")
        replace_keygen(system, "exit 1")
        system.run(*UNIT)
        assert system.run("umount", head_start.PROGRAM).returncode == 0
        assert system.firstkey("host-keys").status == 0
        assert system.path("/etc/ssh/ssh_host_rsa_key").exists()

    def test_firstkey_makes_one_itself_where_it_dies(self, system: PrivateSystem) -> None:
        """While it is waited for."""
        system.write("/etc/ssh/sshd_config", "")
        system.write("/etc/firstkey/firstkey.conf", "[HostKeys]\nTypes=rsa\nConsole=no\n")
        fifo = head_start.FIFO
        system.run("sh", "-c", f"mkfifo -m 600 {fifo}; (exec 3<>{fifo}; sleep 2) >/dev/null 2>&1 & sleep 0.2")
        assert system.firstkey("host-keys").status == 0
        assert system.path("/etc/ssh/ssh_host_rsa_key").exists()
        assert not system.path(head_start.DIRECTORY).exists()

    def test_it_is_gone_before_sshd_could_show_it(self, system: PrivateSystem) -> None:
        """A firstkey that is killed after putting it in place must not find it again, for another file."""
        system.run(*UNIT)
        early = system.path(f"{head_start.DIRECTORY}/key.pub").read_text().strip()
        done = system.run(sys.executable, "-c", TAKING)
        assert (done.stdout.strip(), done.stderr) == (f"{early} False", "")

    def test_a_key_goes_before_the_boot_and_the_others_behind_it(self, system: PrivateSystem) -> None:
        """Where there are several processors; in a session that is the unit's own."""
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("this machine has one processor")
        assert looks_of_racers(system, "setsid", "--wait", *UNIT)[:2] == [
            ["-20", "SCHED_OTHER", "-20"], ["-20", "SCHED_IDLE", "-20"],
        ]  # fmt: skip

    @pytest.mark.parametrize("wrapper", [["setsid", "--wait", "taskset", "--cpu-list", "0"], []])
    def test_nobody_has_to_wait_for_it(self, system: PrivateSystem, wrapper: list[str]) -> None:
        """On a single processor the rest of the boot has its share; and nobody else's session is touched."""
        first, *_ = looks_of_racers(system, *wrapper, *UNIT)
        assert first == [str(os.getpriority(os.PRIO_PROCESS, 0)), "SCHED_OTHER", "0"]

    def test_two_files_never_share_it(self, system: PrivateSystem) -> None:
        """Each host key is one of its own."""
        config = "HostKey /etc/ssh/a_rsa_key\nHostKey /etc/ssh/b_rsa_key\n"
        system.set_sshd_config(config)
        system.write("/etc/firstkey/firstkey.conf", "[HostKeys]\nConsole=no\n")
        system.run(*UNIT)
        early = system.path(f"{head_start.DIRECTORY}/key.pub").read_text()
        assert system.firstkey("host-keys").status == 0
        first, second = (system.path(f"/etc/ssh/{name}_rsa_key.pub").read_text() for name in "ab")
        assert first != second
        assert early in (first, second)


def test_it_loads_next_to_nothing() -> None:
    """It would be no head start if it waited for Python's library."""
    program = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "import os, __future__; before |= set(sys.modules)\n"
        "import firstkey.system.head_start; print(*sorted(set(sys.modules) - before))"
    )
    argv = ["/usr/bin/python3", "-BIS", "-c", program, str(AGENT)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) == {"firstkey", "firstkey.system", "firstkey.system.head_start"}


@pytest.mark.parametrize(
    "hostname, expected",
    [
        ("ip-10-0-0-1", "root@ip-10-0-0-1"),
        ("a.example.com", "root@a.example.com"),
        ("a", "root@a"),
        ("", "root"),
        ("-", "root"),
        ("-a", "root"),
        ("a-", "root"),
        ("a b", "root"),
        ("\u00e4", "root"),
        ("a\x1b[2J", "root"),
        ("a" * 64, f"root@{'a' * 64}"),
        ("a" * 65, "root"),
    ],
)
def test_only_a_name_becomes_a_comment(hostname: str, expected: str) -> None:
    """What else stands in /etc/hostname has no business in a key."""
    assert head_start.comment(hostname) == expected
