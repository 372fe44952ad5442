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
from scene import PROMPT, Scene

pytestmark = [pytest.mark.root, pytest.mark.boot]

UNIT = Path(__file__).parents[2] / "systemd" / "firstkey.service"
CAPABILITIES = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SETGID": 6,
    "CAP_SETUID": 7, "CAP_AUDIT_WRITE": 29,
}  # fmt: skip
"""The numbers of the ones that the unit leaves (linux/capability.h)."""
ELSEWHERE = f"http://{CLOUD[4]}"


def test_what_is_left_to_the_process(scene: Scene) -> None:
    """The unit's capabilities and no others, a filter of system calls, no core file; and it does its work.

    New privileges are not forbidden, by no other setting either: SELinux would keep useradd from its domain.
    """
    with scene.boot() as machine:
        wait_for_systemd(machine)
        wait_until(lambda: machine.show("firstkey", "MainPID") != "0", seconds=PROMPT, what="firstkey")
        number = machine.show("firstkey", "MainPID")
        # Before it is firstkey, it is systemd that builds the sandbox.
        command = ("cat", f"/proc/{number}/cmdline")
        wait_until(lambda: "firstkey" in machine.inside(*command), seconds=PROMPT, what="its start")
        status = dict(re.findall(r"(?m)^(\w+):\s+(\S+)$", machine.inside("cat", f"/proc/{number}/status")))
        limits = machine.inside("cat", f"/proc/{number}/limits")
        scene.cloud.offer(scene.line)
        machine.wait_for_ssh()
        assert scene.login(on=machine).status == 0
    left = {name for name in CAPABILITIES if int(status["CapBnd"], 16) & 1 << CAPABILITIES[name]}
    words = " ".join(re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", UNIT.read_text())).split()
    assert left == set(words) == set(CAPABILITIES)
    assert int(status["CapBnd"], 16) == sum(1 << number for number in CAPABILITIES.values())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_where_nothing_can_be_held_back_it_works_all_the_same(scene: Scene) -> None:
    """A container without the kernel's means: the warning is a warning, and the key is there."""
    scene.configure(f"[IMDS]\nEndpoints={ELSEWHERE}\n")
    with service_elsewhere(scene), scene.boot() as machine:
        machine.wait_for_ssh()
        assert scene.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"
        assert len(machine.events("endpoint-kept-out")) == 1


def wait_for_systemd(machine: Machine) -> None:
    """Until it can be asked."""
    states = ("initializing", "starting", "running", "degraded")
    asked = ("systemctl", "is-system-running")
    wait_until(lambda: machine.inside(*asked, check=False).strip() in states, seconds=PROMPT, what="systemd")


@contextmanager
def service_elsewhere(scene: Scene) -> Iterator[None]:
    """A metadata service at an address that is not the metadata service's."""
    argv = [sys.executable, "-m", "firstkey", "imds", "--host", CLOUD[4], "--port", "80", "--key", scene.line]
    log = (scene.directory / "elsewhere.log").open("wb")
    process = scene.cloud.start(argv, stdout=log.fileno(), stderr=log, PYTHONPATH=str(AGENT))
    try:
        yield
    finally:
        end(process)
        log.close()
