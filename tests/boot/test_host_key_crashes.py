"""A power cut before every single step: there is the old key or the new one, and the next run finishes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostkeys import asides, ask_for, host_keys, matches, private, public, refused_by_sshd, results
from machine import AGENT, Machine

FILE = "/etc/ssh/ssh_host_ed25519_key"
# What gives a name, takes one away, or brings content to the disk: the moments between which a crash counts.
STEPS = ("renameat", "unlinkat", "write", "fsync")
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(AGENT)!r}); from firstkey.cli.main import main; sys.exit(main())"
)


def missing_strace() -> str:
    """Why no crash can be made here, or nothing."""
    if not shutil.which("strace"):
        return "needs strace, which is not installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "needs strace, which may not trace here"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_strace()), reason=missing_strace()),
]


def crash(machine: Machine, call: str, number: int) -> bool:
    """Kill `firstkey host-keys` before that system call, the number-th of its kind; whether it got there."""
    inject = f"inject={call}:error=EINTR:signal=SIGKILL:when={number}"
    argv = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, "host-keys", "--quiet", "--root", str(machine.root)]
    done = subprocess.run([*argv, *command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, -9, 137), done.stderr
    return done.returncode != 0


def crashes(machine: Machine) -> Iterator[str]:
    """Every crash there can be, each from the machine as it is now."""
    saved = machine.root.with_name("saved")
    shutil.copytree(machine.root, saved, symlinks=True)
    count = 0
    for call in STEPS:
        for number in range(1, 100):
            shutil.rmtree(machine.root)
            shutil.copytree(saved, machine.root, symlinks=True)
            if not crash(machine, call, number):
                break
            yield f"{call} {number}"
            count += 1
    assert count > 3


def content(file: Path) -> bytes:
    """What is in the file; nothing where there is none."""
    return file.read_bytes() if file.exists() else b""


def check_what_is_left(machine: Machine, when: str) -> None:
    """Sshd would start with it, or there was no key before; no two halves are of different keys."""
    file = private(machine)
    if content(file) and content(public(file)):
        assert matches(file), f"halves of two keys before {when}"
        assert refused_by_sshd(machine, [FILE]) == "", when


def check_the_next_run(machine: Machine, when: str) -> None:
    """It makes good what is missing, leaves no litter, and then there is nothing more to do."""
    assert host_keys(machine).status == 0, when
    assert matches(private(machine)), when
    assert results(host_keys(machine)) == {"ed25519": "unchanged"}, when
    ledger = json.loads(machine.path("/var/lib/firstkey/ledger.json").read_text())["ledger"]
    assert ledger["host_keys"][-1]["made"], f"forgot whose key it is: {when}"
    assert not list(machine.path("/etc/ssh").glob(".*")), when
    assert [path.name for path in machine.path("/run/firstkey").iterdir() if path.is_dir()] == [], when


@pytest.fixture
def one_key(machine: Machine) -> Machine:
    """A machine with one host key, made on the first of two instances, and now on the second."""
    ask_for(machine, FILE)
    machine.write("/proc/sys/kernel/random/boot_id", "boot\n")
    machine.set_firmware("i-0000000000000001")
    host_keys(machine)
    return machine


def test_while_a_key_is_made(machine: Machine) -> None:
    """A first boot."""
    ask_for(machine, FILE)
    for when in crashes(machine):
        check_what_is_left(machine, when)
        check_the_next_run(machine, when)


def test_while_a_broken_key_is_set_aside(one_key: Machine) -> None:
    """What is set aside stays set aside, and is there once."""
    private(one_key).write_bytes(b"broken")
    for when in crashes(one_key):
        check_the_next_run(one_key, when)
        assert asides(private(one_key)) == [b"broken"], when


def test_while_another_instance_s_key_is_replaced(one_key: Machine) -> None:
    """At each instant one good key is there, the old or the new; the old one never comes to stay."""
    old = private(one_key).read_bytes()
    one_key.set_firmware("i-0000000000000002")
    for when in crashes(one_key):
        assert content(private(one_key)), when
        check_what_is_left(one_key, when)
        check_the_next_run(one_key, when)
        assert private(one_key).read_bytes() != old, when


def test_while_a_public_half_is_derived_and_a_mode_mended(one_key: Machine) -> None:
    """The private half is the same throughout."""
    old = private(one_key).read_bytes()
    private(one_key).chmod(0o644)
    public(private(one_key)).unlink()
    for when in crashes(one_key):
        assert content(private(one_key)) == old, when
        check_what_is_left(one_key, when)
        check_the_next_run(one_key, when)
        assert private(one_key).read_bytes() == old, when
