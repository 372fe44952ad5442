"""The unit's sandbox as systemd makes it: what is left to the process, and what gets to the network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bootlab import Machine
from netlab import AGENT, CLOUD, end, wait_until
from scenario import PROMPT, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

UNIT = Path(__file__).parents[2] / "systemd" / "firstkey.service"
CAPABILITIES = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SETGID": 6,
    "CAP_SETUID": 7, "CAP_AUDIT_WRITE": 29,
}  # fmt: skip
"""The numbers of the ones that the unit leaves (linux/capability.h)."""
ELSEWHERE = f"http://{CLOUD[4]}"
MEANS = ("--capability=CAP_BPF,CAP_NET_ADMIN,CAP_SYS_ADMIN", "--system-call-filter=bpf")
"""What a container lacks to attach a filter to a control group."""
PROBE = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
    try:
        channel.sendto(b"x", (sys.argv[1], 9))
        print("let through")
    except PermissionError:
        print("held back")
"""
DROP_IN = f"[Service]\nIPAddressAllow={CLOUD[4]}\n"


def test_what_is_left_to_the_process(scenario: Scenario) -> None:
    """The unit's capabilities and no others, a filter of system calls, no core file; and it does its work.

    New privileges are not forbidden, by no other setting either: SELinux would keep useradd from its domain.
    """
    with scenario.boot() as machine:
        wait_for_systemd(machine)
        wait_until(lambda: machine.show("firstkey", "MainPID") != "0", seconds=PROMPT, what="firstkey")
        number = machine.show("firstkey", "MainPID")
        # Before it is firstkey, it is systemd that builds the sandbox.
        command = ("cat", f"/proc/{number}/cmdline")
        wait_until(lambda: "bin/firstkey\0" in machine.inside(*command), seconds=PROMPT, what="its start")
        status = dict(re.findall(r"(?m)^(\w+):\s+(\S+)$", machine.inside("cat", f"/proc/{number}/status")))
        limits = machine.inside("cat", f"/proc/{number}/limits")
        scenario.cloud.offer(scenario.line)
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
    left = {name for name in CAPABILITIES if int(status["CapBnd"], 16) & 1 << CAPABILITIES[name]}
    words = " ".join(re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", UNIT.read_text())).split()
    assert left == set(words) == set(CAPABILITIES)
    assert int(status["CapBnd"], 16) == sum(1 << number for number in CAPABILITIES.values())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")
    assert re.search(r"Max core file size +0 +0 ", limits)


@pytest.mark.parametrize("family", [4, 6])
def test_the_metadata_service_can_be_spoken_to(scenario: Scenario, family: int) -> None:
    """With all else held back, it is reached at each of its addresses, and the boot is as without."""
    scenario.cloud.unplug()
    scenario.cloud.plug_in(family)
    scenario.cloud.offer(scenario.line, families=[family])
    with guarded(scenario) as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"


def test_a_service_elsewhere_is_out_of_reach(scenario: Scenario) -> None:
    """Nothing gets through to it, and the journal says what to do."""
    scenario.configure(f"[IMDS]\nEndpoints={ELSEWHERE}\nBootTimeoutSec=3\n")
    with service_elsewhere(scenario), guarded(scenario) as machine:
        machine.wait_for_ssh()
        assert scenario.login().is_refused
        assert len(machine.events("imds-unreachable-at-deadline")) == 1


def test_a_drop_in_lets_it_through(scenario: Scenario) -> None:
    """What the remedy advises works."""
    scenario.configure(f"[IMDS]\nEndpoints={ELSEWHERE}\n")
    scenario.disk.write("/etc/systemd/system/firstkey.service.d/elsewhere.conf", DROP_IN)
    with service_elsewhere(scenario), guarded(scenario) as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"


def test_where_nothing_can_be_held_back_it_works_all_the_same(scenario: Scenario) -> None:
    """A container without the kernel's means: the key is there."""
    scenario.configure(f"[IMDS]\nEndpoints={ELSEWHERE}\n")
    with service_elsewhere(scenario), scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"


@contextmanager
def guarded(scenario: Scenario) -> Iterator[Machine]:
    """A boot of a machine whose systemd may hold back IP traffic, as on real ones; skips where it may not."""
    with Machine(scenario.disk, scenario.cloud, options=MEANS) as machine:
        wait_until(lambda: probed(machine), seconds=PROMPT, what="the probe")
        if probed(machine) != "held back":
            pytest.skip("needs a kernel that lets a container's systemd filter the traffic of its units")
        yield machine


def probed(machine: Machine) -> str:
    """What becomes of a packet that IPAddressDeny= is to hold back; nothing until systemd can be asked."""
    unit = ["systemd-run", "--wait", "--pipe", "--quiet", "--property=IPAddressDeny=any"]
    return machine.inside(*unit, "python3", "-c", PROBE, "127.0.0.1", check=False).strip()


def wait_for_systemd(machine: Machine) -> None:
    """Until it can be asked."""
    states = ("initializing", "starting", "running", "degraded")
    asked = ("systemctl", "is-system-running")
    wait_until(lambda: machine.inside(*asked, check=False).strip() in states, seconds=PROMPT, what="systemd")


@contextmanager
def service_elsewhere(scenario: Scenario) -> Iterator[None]:
    """A metadata service at an address that is not the metadata service's."""
    argv = [
        sys.executable,
        "-m",
        "firstkey",
        "imds",
        "--host",
        CLOUD[4],
        "--port",
        "80",
        "--key",
        scenario.line,
    ]
    log = (scenario.directory / "elsewhere.log").open("wb")
    process = scenario.cloud.start(argv, stdout=log.fileno(), stderr=log, PYTHONPATH=str(AGENT))
    try:
        yield
    finally:
        end(process)
        log.close()
