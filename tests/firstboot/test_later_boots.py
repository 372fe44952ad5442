"""The same disk again: as the same instance, as another one, and after a power cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from netlab import run
from scenario import Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

ONE, OTHER = "i-00000000000000001", "i-00000000000000002"


def boot_once(scenario: Scenario, *, firmware: str = "") -> None:
    """A first boot, a login, and an orderly shutdown."""
    scenario.cloud.offer(scenario.line, instance=ONE)
    with scenario.boot(firmware=firmware) as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        machine.wait_until_booted()
        machine.shut_down()


def state(scenario: Scenario) -> dict[str, tuple[int, int, int]]:
    """Everything that firstkey may write to, so that a file that was written again shows."""
    places = [scenario.disk.path(path) for path in ("/etc", "/root", "/home", "/var/lib/firstkey")]
    files = [file for place in places for file in [place, *place.rglob("*")]]
    looks = {file: file.lstat() for file in files}
    return {str(file): (look.st_ino, look.st_mtime_ns, look.st_ctime_ns) for file, look in looks.items()}


@pytest.mark.parametrize("firmware", ["", ONE])
def test_a_second_boot_changes_nothing(scenario: Scenario, firmware: str) -> None:
    """No file is written again; a launch key that a person took out stays out; what they added lets in."""
    boot_once(scenario, firmware=firmware)
    scenario.disk.write("/root/.ssh/authorized_keys", f"{scenario.new_key('own')}\n", mode=0o600)
    before, keys = state(scenario), scenario.host_keys()
    service = scenario.cloud.offer(scenario.line, instance=ONE)
    with scenario.boot(firmware=firmware) as machine:
        machine.wait_for_ssh()
        assert scenario.login(key="own", on=machine).status == 0
        assert scenario.login().is_refused
        assert machine.wait_until_booted() == "running"
        machine.shut_down()
    assert (scenario.host_keys(), state(scenario)) == (keys, before)
    # Where the firmware tells that this is still the same instance, there is nothing to ask the service for.
    assert bool(service.requests) is not bool(firmware)


@pytest.mark.parametrize("firmware", ["", OTHER])
def test_a_rebundled_image_trusts_only_its_new_owner(scenario: Scenario, firmware: str) -> None:
    """Not the key of the instance that it was made of, which was never sealed, nor its host keys."""
    boot_once(scenario, firmware=firmware and ONE)
    with scenario.disk.path("/root/.ssh/authorized_keys").open("a") as file:
        file.write(f"{scenario.new_key('own')}\n")
    old = scenario.host_keys()
    scenario.cloud.offer(scenario.new_key("buyer"), instance=OTHER)
    with scenario.boot(firmware=firmware) as machine:
        machine.wait_for_ssh()
        # The first login is to the new host keys: the old ones were gone before sshd started.
        assert scenario.login(key="buyer", on=machine).status == 0
        assert scenario.login(key="launch").is_refused
        assert scenario.login(key="own").status == 0
        assert len(machine.events("key-revoked")) == 1
    assert set(scenario.host_keys()) == set(old)
    assert not set(scenario.host_keys().values()) & set(old.values())


def test_an_outage_on_a_later_boot_changes_nothing(scenario: Scenario) -> None:
    """Only a positively different instance is a new one; a service that fails is never that."""
    boot_once(scenario)
    scenario.configure("[IMDS]\nBootTimeoutSec=2\n")
    before, keys = state(scenario), scenario.host_keys()
    scenario.cloud.offer(scenario.line, instance=OTHER, faults=["status=500"])
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().status == 0
        machine.shut_down()
    assert (scenario.host_keys(), state(scenario)) == (keys, before)


def emptied(file: Path) -> None:
    """Created, and never written."""
    file.write_bytes(b"")


def torn(file: Path) -> None:
    """Written in part."""
    file.write_bytes(file.read_bytes()[:100])


def of_zeros(file: Path) -> None:
    """The size was written, the content was not."""
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [emptied, torn, of_zeros])
def test_host_keys_that_a_power_cut_damaged(scenario: Scenario, damage: Callable[[Path], None]) -> None:
    """They are set aside and made again, and the good one stays."""
    scenario.cloud.offer(scenario.line, instance=ONE)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        scenario.known_hosts(machine)  # all three are there
        machine.cut_power()
    old = scenario.host_keys()
    damage(scenario.disk.path("/etc/ssh/ssh_host_rsa_key"))
    damage(scenario.disk.path("/etc/ssh/ssh_host_ed25519_key"))
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert len(machine.events("host-key-set-aside")) == 2
    new = scenario.host_keys()
    assert {name for name in old if new[name] != old[name]} == {
        "ssh_host_rsa_key.pub", "ssh_host_ed25519_key.pub",
    }  # fmt: skip
    for name in new:
        private = scenario.disk.path(f"/etc/ssh/{name.removesuffix('.pub')}")
        assert private.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


@pytest.mark.parametrize("content", ["", "uninitialized\n", "0123456789abcdef0123456789abcdef\n", None])
def test_the_machine_id_decides_nothing(scenario: Scenario, content: str | None) -> None:
    """Host keys are made whatever systemd thinks of a first boot (ConditionFirstBoot=)."""
    scenario.disk.path("/etc/machine-id").unlink(missing_ok=True)
    if content is not None:
        scenario.disk.write("/etc/machine-id", content)
    scenario.cloud.offer(scenario.line, instance=ONE)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"


def host_keys_of_the_image(scenario: Scenario) -> None:
    """Sshd starts without firstkey too."""
    run("ssh-keygen", "-A", "-f", scenario.disk.root)


def test_switched_off_on_the_kernel_command_line(scenario: Scenario) -> None:
    """`firstkey=off`: nothing is installed, nobody is asked."""
    host_keys_of_the_image(scenario)
    service = scenario.cloud.offer(scenario.line)
    with scenario.boot("firstkey=off") as machine:
        machine.wait_for_ssh()
        assert scenario.login().is_refused
        assert machine.show("firstkey.service", "ConditionResult") == "no"
        assert machine.wait_until_booted() == "running"
    assert service.requests == []


def test_switched_off_by_the_file(scenario: Scenario) -> None:
    """`/etc/firstkey/disabled` does the same, for an image; and without it the next boot installs the key."""
    host_keys_of_the_image(scenario)
    scenario.disk.write("/etc/firstkey/disabled", "")
    service = scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().is_refused
        assert machine.show("firstkey.service", "ConditionResult") == "no"
        machine.shut_down()
    assert service.requests == []
    scenario.disk.path("/etc/firstkey/disabled").unlink()
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login().status == 0
