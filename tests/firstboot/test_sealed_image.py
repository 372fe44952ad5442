"""An image that was used, sealed, and started as somebody else's instance: a first login, and nothing old."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scenario import Scenario

from firstkey.boot import ledger

pytestmark = [pytest.mark.root, pytest.mark.boot]

BUILDER, BUYER = "i-00000000000000001", "i-00000000000000002"
MARK = "TYPED-BY-THE-BUILDER"


def firstkey(root: Path, command: str, *options: str) -> dict[str, Any]:
    """What the host's firstkey says of the disk."""
    argv = [sys.executable, "-m", "firstkey", command, "--root", str(root), "--json", *options]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def unfit(audit: dict[str, Any]) -> set[str]:
    """The rules that find something worse than a note."""
    return {rule["id"] for rule in audit["rules"] if not rule["fit"]}


def use(scenario: Scenario, *, live: bool) -> dict[str, str]:
    """Build on an instance: log in, type, leave things behind. Returns its host keys and machine-id."""
    scenario.cloud.offer(scenario.line, instance=BUILDER)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        machine.wait_until_booted()
        machine.inside("sh", "-c", f"echo {MARK} > /root/.bash_history; echo root:{MARK} | chpasswd")
        machine.inside("sh", "-c", f"mkdir -p /home/old; echo {MARK} > /home/old/.zsh_history")
        machine.inside("sh", "-c", f"echo {MARK} > /var/tmp/build")
        old = {**scenario.host_keys(), "machine-id": machine_id(scenario)}
        if live:
            machine.inside("firstkey", "seal", "--yes")
        machine.shut_down()
    return old


def machine_id(scenario: Scenario) -> str:
    """The disk's machine-id."""
    return scenario.disk.path("/etc/machine-id").read_text().strip()


def start_as_the_buyers(scenario: Scenario, old: dict[str, str]) -> None:
    """The buyer's first login works and is to new host keys; the builder is nobody here."""
    scenario.cloud.offer(scenario.new_key("buyer"), instance=BUYER)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(key="buyer", on=machine).status == 0
        assert scenario.login(key="launch").is_refused
        assert machine.wait_until_booted() == "running"
        new = {**scenario.host_keys(), "machine-id": machine_id(scenario)}
        machine.shut_down()
    assert set(new) == set(old)
    assert not set(new.values()) & set(old.values())
    grep = ["grep", "-rlaE", f"{MARK}|{BUILDER}", str(scenario.disk.path("/"))]
    assert subprocess.run(grep, capture_output=True, check=False, text=True).stdout == ""


def test_an_image_that_is_sealed_from_outside(scenario: Scenario) -> None:
    """Audit finds what the builder left, seal takes it out, and the image is fit to share."""
    old = use(scenario, live=False)
    root = scenario.disk.path("/")
    assert unfit(firstkey(root, "audit")) >= {
        "root-password", "host-keys", "authorized-keys", "histories",
        "machine-id", "firstkey-state", "temporary-files",
    }  # fmt: skip
    report = firstkey(root, "seal")
    assert [step for step in report["steps"] if step["result"] != "done"] == []
    assert unfit(report["audit"]) == set()
    assert scenario.host_keys() == {}
    assert machine_id(scenario) == "uninitialized"
    assert not scenario.disk.path("/var/lib/firstkey/ledger.json").exists()
    assert scenario.disk.path(ledger.SEALED).exists()
    start_as_the_buyers(scenario, old)


def test_an_image_that_seals_itself(scenario: Scenario) -> None:
    """Seal is the last thing that is run on the instance; only what stopping it writes is new."""
    old = use(scenario, live=True)
    assert unfit(firstkey(scenario.disk.path("/"), "audit")) <= {"logs", "login-records"}
    start_as_the_buyers(scenario, old)


def test_nobody_is_asked_at_the_console(scenario: Scenario) -> None:
    """An image that does not tell its time zone boots to a login, though its console could be asked."""
    root = scenario.disk.path("/")
    if not scenario.disk.path("/usr/lib/systemd/system/systemd-firstboot.service").exists():
        pytest.skip("this system has no systemd-firstboot, which would ask")
    scenario.disk.path("/etc/localtime").unlink(missing_ok=True)
    scenario.disk.write("/usr/share/zoneinfo/tzdata.zi", "L Etc/UTC UTC\n")
    scenario.disk.write("/etc/machine-id", "uninitialized\n")
    assert "first-boot-questions" in unfit(firstkey(root, "audit"))
    assert unfit(firstkey(root, "seal")["audit"]) == set()
    assert machine_id(scenario) == "uninitialized"
    scenario.cloud.offer(scenario.line, instance=BUYER)
    with scenario.boot(may_ask=True) as machine:
        machine.wait_for_ssh()
        assert scenario.login().status == 0
        assert machine.wait_until_booted() == "running"
        machine.shut_down()
