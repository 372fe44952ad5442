"""The whole job against every fault of the metadata service: what it promises whatever the service does."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_table import EXPECTED, patience, quick
from hostkeys import fake_keygen
from machine import Machine, World
from raw_server import silent_server

from firstkey.metadata.emulator import Emulator, Fault

GENEROUS = 100.0  # seconds: only a hang takes as long
CONFIGURATION = "[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n"


@pytest.mark.parametrize("fault", EXPECTED)
@pytest.mark.sample(7)
def test_the_job_ends_as_promised(world: World, fault: str) -> None:
    """Exit status, outcome and reason; host keys in any case, the launch key if any answer has it."""
    status, outcome, code = EXPECTED[fault]
    world.machine.configure(quick(fault) + CONFIGURATION)
    own = world.another_key("own")
    world.machine.write_keys(f"{own}\n")
    started = time.monotonic()
    with Emulator(world.service.settings, faults=[Fault.parse(fault)]) as service:
        done = world.machine.run(service, "--wait", patience(fault))
    seconds = time.monotonic() - started

    found = done.report
    assert (done.status, found["outcome"], found["reason"]) == (status, outcome, code)
    assert "Traceback" not in done.err
    assert [key["result"] for key in found["host_keys"]] == ["changed"]
    installed = outcome in ("ok", "partial")
    assert world.machine.keys == [own, *([world.key] if installed else [])]
    assert seconds < GENEROUS
    if status == 75:
        assert seconds > 0.8


@pytest.mark.parametrize("fault", {outcome: fault for fault, outcome in EXPECTED.items()}.values())
@pytest.mark.sample(6)
def test_nothing_is_lost_on_a_later_run(world: World, fault: str) -> None:
    """What was installed while the service was well stays, byte for byte, and no host key is made anew.

    With one fault of each outcome: what the service did to earn it makes no difference any more.
    """
    world.machine.configure(quick(fault) + CONFIGURATION)
    world.machine.run(world.service)
    before = world.machine.keys_file.read_bytes(), world.machine.host_keys()
    with Emulator(world.service.settings, faults=[Fault.parse(fault)]) as service:
        world.machine.run(service, "--wait", "0.2")

    assert (world.machine.keys_file.read_bytes(), world.machine.host_keys()) == before


def test_a_run_that_waits_for_host_keys_asks_all_the_same(world: World, tmp_path: Path) -> None:
    """--wait is for the answer: a slow processor, which takes longer for the keys, costs nobody the login."""
    path = fake_keygen(tmp_path / "bin", 'case "$*" in *"-t ed25519"*) sleep 3;; esac\nexec "$real" "$@"')
    world.machine.configure(f"[Keys]\nUsers={world.machine.user}\n[HostKeys]\nTypes=ed25519\n")
    done = world.machine.firstkey("run", "--wait", "3", service=world.service, PATH=path)
    assert done.status == 0, done.err
    assert world.machine.keys == [world.key]


def test_a_patient_run_does_not_keep_host_keys_waiting(machine: Machine) -> None:
    """The first question ends well before the boot deadline, however long one request or the run may take."""
    machine.configure("[IMDS]\nRequestTimeoutSec=60\nBootTimeoutSec=1\n[HostKeys]\nTypes=ed25519\n")
    key = machine.path("/etc/ssh/ssh_host_ed25519_key")
    with silent_server() as url:
        argv = [sys.executable, "-m", "firstkey", "run", "--root", str(machine.root), "--imds", url]
        with subprocess.Popen([*argv, "--wait", "60"], stdout=subprocess.DEVNULL) as process:
            try:
                end = time.monotonic() + GENEROUS
                while not key.exists() and time.monotonic() < end:
                    time.sleep(0.05)
                assert key.exists()
                assert process.poll() is None, "it was to go on asking"
            finally:
                process.terminate()
