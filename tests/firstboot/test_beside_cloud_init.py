"""Cloud-init and firstkey, both enabled on one image: they do not fight, and what is said stays true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bootlab
import peers
import pytest
from bootlab import Machine
from cloud_init import CONFIG_FILE, ON_A_PLAYED_INSTANCE
from packages import build
from scenario import Scenario, scenario_on

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(900)]

CLOUD_CONFIG = f"""\
{ON_A_PLAYED_INSTANCE}apt: {{preserve_sources_list: true}}
"""
"""For the instance that the test plays; all else, ssh_deletekeys and disable_root too, is as it comes."""


OF_SUITES = {
    "bookworm": "cloud-init.service",
    "trixie": "cloud-init-network.service",
    "sid": "cloud-init-network.service",
}
"""What its stage for users and SSH is called: four processes in Debian 12, one since cloud-init 24.4."""

MADE_BY_CLOUD_INIT = {"rsa", "ecdsa", "ed25519"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On each of the suites, or on the one that the run is kept to."""
    only = metafunc.config.getoption("suite")
    metafunc.parametrize("scenario", [suite for suite in OF_SUITES if only in (suite, None)], indirect=True)


@pytest.fixture
def scenario(request: pytest.FixtureRequest, shelf: Path, tmp_path: Path) -> Iterator[Scenario]:
    """A scenario on a system with both."""
    suite: str = request.param
    # With the packages of the bench and the comparison, so that all three share a root file system.
    system = bootlab.distribution(shelf / f"{suite}-with-cloud-init", *peers.PACKAGES, suite=suite)
    deb = build("deb", tmp_path)
    image = system.changed(shelf / f"{suite}-both", lambda root: bootlab.install_deb(root, deb))
    for found in scenario_on(image, shelf):
        found.disk.write(CONFIG_FILE, CLOUD_CONFIG)
        yield found


def moment(machine: Machine, unit: str, of: str) -> int:
    """When something happened to a unit, in microseconds of the host's clock."""
    return int(machine.show(unit, f"ExecMain{of}TimestampMonotonic"))


def test_cloud_init_goes_first_and_what_it_made_is_kept(scenario: Scenario) -> None:
    """The host keys on the console are those that sshd has, and each user's key is as cloud-init wants it."""
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        stage = OF_SUITES[scenario.disk.image.suite]
        assert moment(machine, "firstkey", "Start") > moment(machine, stage, "Exit") > 0
        assert scenario.login(user="debian", on=machine).status == 0
        (said,) = machine.events("cloud-init-beside")
        assert said["FIRSTKEY_DETAIL"] == "/run/cloud-init/enabled"
        assert machine.report["outcome"] == "ok"
        # cloud-init makes three types; what sshd asks for besides (OpenSSH 10.6 has a fourth) is firstkey's.
        results = {key["type"]: key["result"] for key in machine.report["host_keys"]}
        assert {kind for kind, result in results.items() if result == "unchanged"} == MADE_BY_CLOUD_INIT
        assert {result for kind, result in results.items() if kind not in MADE_BY_CLOUD_INIT} <= {"changed"}
        assert machine.events("host-key-foreign") == []
        assert [
            entry["MESSAGE"] for entry in machine.journal if "ordering cycle" in str(entry["MESSAGE"])
        ] == []
        machine.wait_until_booted()
        machine.shut_down()
    (line,) = scenario.disk.path("/root/.ssh/authorized_keys").read_text().splitlines()
    assert "Please login as the user" in line
    before = scenario.host_keys()
    with scenario.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        assert scenario.login(user="debian").status == 0
        assert scenario.host_keys() == before
        machine.shut_down()
    assert scenario.disk.path("/root/.ssh/authorized_keys").read_text().splitlines() == [line]
