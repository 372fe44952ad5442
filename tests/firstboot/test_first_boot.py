"""The first boot of a fresh instance, looked at from all sides: one boot for all tests of this module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bootlab import Machine
from machine import fingerprint
from netlab import wait_until
from scenario import Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

INSTANCE = "i-00000000000000001"


@pytest.fixture(scope="module")
def first(scene_of_module: Scenario) -> Scenario:
    """The scenario in which the machine runs."""
    return scene_of_module


@pytest.fixture(scope="module")
def machine(first: Scenario) -> Iterator[Machine]:
    """A machine that has booted for the first time."""
    first.cloud.offer(first.line, instance=INSTANCE)
    with first.boot() as machine:
        machine.wait_for_ssh()
        machine.wait_until_booted()
        # The RSA key comes later than sshd.
        wait_until(lambda: machine.show("firstkey", "SubState") == "exited", seconds=120, what="its end")
        yield machine


def test_the_launch_key_lets_in_on_a_host_known_by_its_console(first: Scenario, machine: Machine) -> None:
    """The reason for all this; and nobody has to trust a host key on first use."""
    assert first.login("id", "-un", on=machine).out == "root\n"


def test_another_key_does_not(first: Scenario, machine: Machine) -> None:
    """Only the launch key was installed."""
    first.new_key("stranger")
    assert first.login(key="stranger").is_refused


def test_the_system_runs_without_a_failed_unit(machine: Machine) -> None:
    """Systemd has nothing to complain about."""
    assert machine.wait_until_booted() == "running"


def test_sshd_started_after_firstkey_was_ready(machine: Machine) -> None:
    """Port 22 open means that the key works."""
    ready = int(machine.show("firstkey.service", "ActiveEnterTimestampMonotonic"))
    assert 0 < ready <= int(machine.show("ssh.service", "ExecMainStartTimestampMonotonic"))


def test_no_ordering_cycle(machine: Machine) -> None:
    """Systemd would break a circle by dropping a unit: this one, or another."""
    assert [entry["MESSAGE"] for entry in machine.journal if "cycle" in str(entry["MESSAGE"])] == []


def test_systemd_analyze_finds_nothing(machine: Machine) -> None:
    """The installed unit, with the programs that it starts and the pages that it names."""
    assert machine.inside("systemd-analyze", "verify", "--man=no", "firstkey.service") == ""


def test_the_console_shows_the_fingerprint_that_the_client_sees(first: Scenario, machine: Machine) -> None:
    """What `aws ec2 get-console-output` brings is what ssh shows at the first connection."""
    for name in first.host_keys():
        listed = machine.inside("ssh-keygen", "-l", "-f", f"/etc/ssh/{name}").strip()
        assert f" firstkey: {listed}\n" in machine.console


def test_the_journal_has_the_fields(first: Scenario, machine: Machine) -> None:
    """Programs find who got which key on which instance, without reading sentences."""
    [added] = machine.events("key-added")
    assert added["FIRSTKEY_USER"] == "root"
    assert added["FIRSTKEY_FILE"] == "/root/.ssh/authorized_keys"
    assert added["FIRSTKEY_FINGERPRINT"] == fingerprint(first.line)
    assert added["FIRSTKEY_INSTANCE_ID"] == INSTANCE
    assert added["MESSAGE_ID"] == "d54c009d3b114cc9abb982ee3528482e"
    assert added["PRIORITY"] == "5"
    assert added["_SYSTEMD_UNIT"] == "firstkey.service"


def test_the_journal_has_no_secrets(first: Scenario, machine: Machine) -> None:
    """Fingerprints, never a key's own text and never a token."""
    said = str([entry for entry in machine.journal if entry.get("_SYSTEMD_UNIT") == "firstkey.service"])
    assert fingerprint(first.line) in said
    assert first.line.split()[1] not in said
    assert "token:" not in said.lower()


def test_the_catalogue_explains(machine: Machine) -> None:
    """`journalctl -x` has the cause and the remedy to each message."""
    said = machine.inside("journalctl", "--no-pager", "-x", "-u", "firstkey.service")
    assert "Subject: A launch key was installed for root" in said
    assert "Subject: A host key was generated: ed25519" in said


def test_systemctl_status_reads_well(first: Scenario, machine: Machine) -> None:
    """Who looks at the unit sees what it did, and that it is done."""
    said = machine.inside("systemctl", "status", "--no-pager", "firstkey.service")
    assert "First SSH access: launch keys and host keys" in said
    assert "Active: active (exited)" in said
    assert 'Status: "Done: ok"' in said
    assert "was added to /root/.ssh/authorized_keys of root." in said
    count = len(first.host_keys())
    assert f"Finished with outcome ok: 1 launch key added, {count} host keys generated or repaired." in said


def test_the_report_is_there_for_programs(first: Scenario, machine: Machine) -> None:
    """And it says what the journal says."""
    report = machine.report
    assert (report["outcome"], report["instance_id"], report["imds"]["version"]) == ("ok", INSTANCE, 2)
    assert {key["file"].rpartition("/")[2] + ".pub" for key in report["host_keys"]} == set(first.host_keys())
    assert report["users"][0]["result"] == "changed"


def test_firstkey_status_tells_how_things_stand(first: Scenario, machine: Machine) -> None:
    """Root sees all of it."""
    said = machine.inside("firstkey", "status")
    assert INSTANCE in said
    assert f"root: {fingerprint(first.line)} in place" in said


def test_firstkey_status_works_for_everybody(first: Scenario, machine: Machine) -> None:
    """As far as it can: the ledger and root's home are root's."""
    said = machine.inside("setpriv", "--reuid=65534", "--clear-groups", "firstkey", "status")
    assert INSTANCE in said
    for line in first.host_keys().values():
        assert fingerprint(line) in said
