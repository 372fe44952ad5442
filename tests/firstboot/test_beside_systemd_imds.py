"""systemd's own import of launch keys (systemd-imds, in sid) and firstkey on one image: they do not fight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
from bootlab import Image, Machine
from netlab import run, wait_until
from packages import build
from rootfs import debian_root, unpack
from scenario import BACKGROUND, Scenario, scenario_on

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(1500)]

SUITE = "sid"
SERVICE = "http://169.254.169.254/latest"
WORDS = (
    "systemd.imds=yes",
    "systemd.imds.import=yes",
    "systemd.imds.network=off",
    "systemd.imds.vendor=amazon-ec2",
    f"systemd.imds.token_url={SERVICE}/api/token",
    "systemd.imds.refresh_header_name=X-aws-ec2-metadata-token-ttl-seconds",
    "systemd.imds.token_header_name=X-aws-ec2-metadata-token",
    f"systemd.imds.data_url={SERVICE}",
    "systemd.imds.address_ipv4=169.254.169.254",
    "systemd.imds.key.ssh_key=/meta-data/public-keys/0/openssh-key",
)
"""What its generator finds out on EC2 by the firmware, which a container does not show."""
SOCKET = "/run/systemd/io.systemd.InstanceMetadata"
CREDENTIAL = "ssh.authorized_keys.root"
KEYS = "/root/.ssh/authorized_keys"


@pytest.fixture(scope="module")
def both(shelf: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Image:
    """A system with both."""
    if pytestconfig.getoption("suite") not in (SUITE, None):
        pytest.skip(f"only {SUITE} has systemd-imds")
    deb = build("deb", tmp_path_factory.mktemp("deb"))
    tree = shelf / "with-systemd-imds"
    unpack(debian_root(SUITE, (*bootlab.PACKAGES, "systemd-imds")), tree)  # a package that no other suite has
    return Image((tree,), SUITE).changed(
        shelf / "with-imds-and-firstkey", lambda root: bootlab.install_deb(root, deb)
    )


@pytest.fixture
def scenario(both: Image, shelf: Path) -> Iterator[Scenario]:
    """A scenario on it."""
    yield from scenario_on(both, shelf)


def booted(scenario: Scenario) -> Machine:
    """A boot in which systemd imports a launch key too; its daemon marks what it sends."""
    options = ("--capability=CAP_NET_ADMIN",)
    return Machine(scenario.disk, scenario.cloud, kernel_words=WORDS, options=options)


def test_each_asks_for_itself_and_the_key_is_there_once(scenario: Scenario) -> None:
    """Whichever is first: systemd makes root's file only where there is none, firstkey adds no key twice."""
    service = scenario.cloud.offer(scenario.line, families=[4])
    with booted(scenario) as machine:
        machine.wait_for_ssh(seconds=120)
        assert scenario.login().status == 0
        assert machine.report["outcome"] == "ok"
        machine.wait_until_booted()
        imported = f"/run/credstore/{CREDENTIAL}"
        assert machine.show("systemd-imds-import.service", "Result") == "success"
        assert machine.inside("cat", imported).strip() == scenario.line
        assert [
            entry["MESSAGE"] for entry in machine.journal if "ordering cycle" in str(entry["MESSAGE"])
        ] == []
        machine.shut_down()
    assert scenario.disk.path(KEYS).read_text().split("\n") == [scenario.line, ""]
    asked = [line for line in service.requests if "openssh-key" in line]
    assert len(asked) >= 2
    before = scenario.host_keys()
    with booted(scenario) as machine:
        machine.wait_for_ssh(seconds=120)
        assert scenario.login().status == 0
        machine.shut_down()
    assert scenario.disk.path(KEYS).read_text().split("\n") == [scenario.line, ""]
    assert scenario.host_keys() == before


def test_a_key_that_systemd_brought_is_found_and_stays_systemds(scenario: Scenario) -> None:
    """It is in root's file before firstkey starts: said in the journal, not added twice, never taken out."""
    with given(scenario) as machine:
        scenario.cloud.offer(scenario.line, families=[4])
        machine.wait_for_ssh(seconds=120)
        assert scenario.login().status == 0
        (said,) = machine.events("key-present")
        assert said["FIRSTKEY_FILE"] == KEYS
        machine.shut_down()
    assert scenario.disk.path(KEYS).read_text().split() == scenario.line.split()
    other = scenario.new_key("other")
    scenario.cloud.offer(other, instance="i-00000000000000002", families=[4])
    with scenario.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        assert scenario.login(key="other").status == 0
        machine.shut_down()
    assert scenario.line in scenario.disk.path(KEYS).read_text().splitlines()


def given(scenario: Scenario) -> Machine:
    """A boot with the launch key as a credential, as systemd-imds-import leaves it to later units."""
    option = f"--set-credential={CREDENTIAL}:{scenario.line}"
    return Machine(scenario.disk, scenario.cloud, options=(option,))


def test_an_address_that_systemd_keeps_to_itself_is_told(scenario: Scenario) -> None:
    """Its prohibit route beside its socket: sshd starts at the deadline, and the key comes once it goes."""
    scenario.configure("[IMDS]\nBootTimeoutSec=10\n[HostKeys]\nTypes=ed25519\n")
    route = ("ip", "-n", scenario.cloud.machine_name, "route")
    run(*route, "add", "prohibit", "169.254.169.254")
    scenario.cloud.offer(scenario.line, families=[4])
    with booted(scenario) as machine:
        machine.wait_for_ssh(seconds=120)
        assert "srw" in machine.inside("ls", "-l", SOCKET)
        assert "imds-locked" in {entry.get("FIRSTKEY_REASON") for entry in machine.journal}
        run(*route, "del", "prohibit", "169.254.169.254")
        wait_until(lambda: scenario.login().status == 0, seconds=BACKGROUND, what="the login")
        machine.shut_down()
