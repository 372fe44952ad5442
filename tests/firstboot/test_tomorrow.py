"""An OpenSSH of tomorrow, with a type of host key that nobody has heard of: it is asked, and believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bootlab import Machine
from hostkeys import KIND, LISTED, LOADED, TYPE, of_tomorrow
from machine import fingerprint
from netlab import wait_until
from scenario import BACKGROUND, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

KEY = f"ssh_host_{KIND}_key.pub"
FILE = f"/etc/ssh/ssh_host_{KIND}_key"


def booted(scenario: Scenario, machine: Machine, key: str) -> list[dict[str, Any]]:
    """A login, and all host keys are made and loaded; returns the report's words on those of that type."""
    machine.wait_for_ssh()
    assert scenario.login(key=key, on=machine).status == 0
    wait_until(lambda: machine.show("firstkey", "SubState") == "exited", seconds=BACKGROUND, what="its end")
    line = scenario.host_keys()[KEY]
    assert f" firstkey: {LISTED}\n" in machine.console
    assert line.strip() in machine.console
    assert machine.inside("tail", "-n", "1", LOADED) == line, "it is not the one with which sshd started last"
    return [each for each in machine.report["host_keys"] if each["type"] == KIND]


def test_a_type_that_only_openssh_knows(scenario: Scenario) -> None:
    """Made, shown, loaded and found good; kept at the second boot, and replaced on another instance."""
    of_tomorrow(scenario.disk.root)
    scenario.cloud.offer(scenario.line, instance="i-00000000000000001")
    with scenario.boot() as machine:
        [made] = booted(scenario, machine, "launch")
        shown = fingerprint(scenario.host_keys()[KEY])
        assert (made["result"], made["file"], made["fingerprint"]) == ("changed", FILE, shown)
        status = json.loads(machine.inside("firstkey", "status", "--json"))
        assert {"good"} == {each["state"] for each in status["host_keys"]}, status
        assert shown in machine.inside("setpriv", "--reuid=65534", "--clear-groups", "firstkey", "status")
        assert f" {TYPE} " in machine.inside("firstkey", "known-hosts")
        [user] = json.loads(machine.inside("firstkey", "doctor", "--json", "--user", "root"))["users"]
        assert user["verdict"] == "open"
        assert f"sshd can load {FILE}" in [each["detail"] for each in user["findings"]]
        machine.shut_down()
    before = scenario.host_keys()
    with scenario.boot() as machine:
        assert booted(scenario, machine, "launch")[0]["result"] == "unchanged"
        machine.shut_down()
    assert scenario.host_keys() == before
    scenario.cloud.offer(scenario.new_key("other"), instance="i-00000000000000002")
    with scenario.boot() as machine:
        assert booted(scenario, machine, "other")[0]["result"] == "changed"
        machine.shut_down()
    assert not set(before.values()) & set(scenario.host_keys().values())
