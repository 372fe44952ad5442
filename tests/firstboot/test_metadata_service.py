"""First boots with a metadata service that is late, partial, switched off or out of reach."""

from __future__ import annotations

import time

import pytest
from bootlab import Machine
from machine import fingerprint
from netlab import wait_until
from scenario import BACKGROUND, BLOCK, PROMPT, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]


def booted(scenario: Scenario, machine: Machine) -> None:
    """The boot is over, sshd answers, and nothing was held until the deadline."""
    machine.wait_for_ssh()
    assert machine.wait_until_booted() == "running"
    assert machine.events("imds-unreachable-at-deadline") == []


def starts(machine: Machine) -> list[str]:
    """When sshd and firstkey were started last."""
    return [machine.show(unit, "ExecMainStartTimestampMonotonic") for unit in ("ssh", "firstkey")]


def test_sshd_is_up_at_the_deadline_and_the_key_arrives_later(scenario: Scenario) -> None:
    """A boot is not held for longer; what comes late is installed without a restart of anything."""
    scenario.configure("[IMDS]\nBootTimeoutSec=3\n")
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().is_refused
        assert machine.wait_until_booted() == "running"
        assert len(machine.events("imds-unreachable-at-deadline")) == 1
        began = starts(machine)
        scenario.cloud.offer(scenario.line)
        wait_until(lambda: scenario.login().status == 0, seconds=2 * PROMPT, what="the login")
        wait_until(lambda: machine.events("imds-late-answer"), what="the end of the daemon's work")
        assert starts(machine) == began
        wait_until(lambda: machine.show("firstkey", "SubState") == "exited", what="the daemon's end")


def test_another_platform_does_not_hold_the_boot(scenario: Scenario) -> None:
    """Its firmware says so: sshd starts at once, and host keys are reported and shown without an answer."""
    # A container's firmware is its host's, and says nothing of it: to firstkey this is none.
    scenario.disk.write(
        "/etc/systemd/system/firstkey.service.d/test.conf",
        "[Service]\nExecStartPre=+rm -f /run/systemd/container\n",
    )
    scenario.configure("[IMDS]\nBootTimeoutSec=300\n")
    firmware = {"sys_vendor": "Google", "product_name": "Google Compute Engine", "bios_vendor": "Google"}
    with scenario.boot(firmware=firmware) as machine:
        machine.wait_for_ssh()
        assert machine.wait_until_booted() == "running"
        assert machine.show("firstkey", "SubState") == "running"
        assert len(machine.events("other-platform")) == 1
        assert machine.report["outcome"] == "unreachable"
        assert "No metadata service is expected here" in machine.show("firstkey", "StatusText")
        # While sshd loads the RSA key, it listens for a moment to nobody.
        wait_until(lambda: scenario.login(on=machine).is_refused, seconds=PROMPT, what="the refusal")
        scenario.cloud.offer(scenario.line)
        wait_until(lambda: scenario.login(on=machine).status == 0, seconds=BACKGROUND, what="the login")
        assert len(BLOCK.findall(machine.console)) == 1
        assert {key["result"] for key in machine.report["host_keys"]} == {"changed"}


def test_a_service_that_accepts_and_says_nothing(scenario: Scenario) -> None:
    """The same with connections that are never answered."""
    scenario.configure("[IMDS]\nBootTimeoutSec=3\n")
    scenario.cloud.offer(scenario.line, faults=["silence"])
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().is_refused
        scenario.cloud.offer(scenario.line)
        wait_until(lambda: scenario.login().status == 0, seconds=2 * PROMPT, what="the login")


def test_a_service_that_is_switched_off(scenario: Scenario) -> None:
    """An answer: the boot goes on at once, and the journal says what to do to have keys."""
    scenario.cloud.offer(scenario.line, off=True)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).is_refused
        machine.wait_until_booted()
        [failed] = machine.events("imds-failed")
        assert failed["FIRSTKEY_REASON"] == "imds-disabled"
        assert "What to do:" in failed["MESSAGE"]
        assert machine.events("imds-unreachable-at-deadline") == []


def test_an_instance_without_a_key_pair(scenario: Scenario) -> None:
    """Nothing to do, and nothing has failed: the unit is fine, and says so."""
    scenario.cloud.offer()
    with scenario.boot() as machine:
        booted(scenario, machine)
        assert scenario.login(on=machine).is_refused
        assert len(machine.events("no-key-pair")) == 1
        assert machine.report["outcome"] == "no-key"


@pytest.mark.parametrize("tokens, version", [("v2", 2), ("v1", 1)])
def test_a_service_that_speaks_one_version(scenario: Scenario, tokens: str, version: int) -> None:
    """With tokens only, and from before there were tokens; the fallback is told."""
    scenario.cloud.offer(scenario.line, tokens=tokens)
    with scenario.boot() as machine:
        booted(scenario, machine)
        assert scenario.login(on=machine).status == 0
        assert machine.report["imds"]["version"] == version
        logged = [event["FIRSTKEY_ENDPOINT"] for event in machine.events("imds-fallback")]
        assert bool(logged) is (version == 1)
        assert len(logged) == len(
            set(logged)
        )  # the other address is asked as well where the first one is slow


def test_an_instance_with_ipv6_alone(scenario: Scenario) -> None:
    """fd00:ec2::254 is asked too, and 169.254.169.254 costs no time."""
    scenario.cloud.unplug()
    scenario.cloud.plug_in(6)
    scenario.cloud.offer(scenario.line, families=[6])
    with scenario.boot() as machine:
        booted(scenario, machine)
        assert scenario.login(on=machine).status == 0
        assert machine.report["imds"]["endpoint"] == "http://[fd00:ec2::254]"


def test_a_network_that_appears_late(scenario: Scenario) -> None:
    """The boot waits for it as it would for an answer, and goes on as soon as there is one."""
    scenario.cloud.unplug()
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_unit("firstkey", "activating")
        time.sleep(4)
        assert machine.show("firstkey", "ActiveState") == "activating"
        assert machine.show("ssh", "ActiveState") == "inactive"
        scenario.cloud.plug_in()
        booted(scenario, machine)
        assert scenario.login(on=machine).status == 0


def test_no_name_is_looked_up_and_no_proxy_is_asked(scenario: Scenario) -> None:
    """Dead DNS and proxy variables in the environment of every unit cost nothing."""
    scenario.disk.path("/etc/resolv.conf").unlink(missing_ok=True)
    scenario.disk.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxies = " ".join(f"{name}=http://proxy.invalid:3128" for name in names)
    scenario.disk.write("/etc/systemd/system.conf.d/proxy.conf", f"[Manager]\nDefaultEnvironment={proxies}\n")
    service = scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        booted(scenario, machine)
        assert "http_proxy=http://proxy.invalid:3128" in machine.inside("systemctl", "show-environment")
        assert scenario.login(on=machine).status == 0
    assert len(service.requests) >= 4


def test_a_bad_key_beside_a_good_one(scenario: Scenario) -> None:
    """The good one lets in, and the other is refused with its reason."""
    scenario.cloud.offer(scenario.line, faults=["bad-neighbour"])
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        machine.wait_until_booted()
        assert len(machine.events("key-refused")) == 1
        assert machine.events("key-added")[0]["FIRSTKEY_FINGERPRINT"] == fingerprint(scenario.line)
