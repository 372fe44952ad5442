"""What docs/moving.md tells to type moves a machine to firstkey, and what it says is left behind is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bootlab
import netlab
import pytest
from bootlab import Machine
from cloud_init import CONFIG_FILE, ON_A_PLAYED_INSTANCE
from packages import build
from pages import Block
from scenario import Scenario, scenario_on
from typed import of_story

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(900)]

CLOUD_CONFIG = f"""\
{ON_A_PLAYED_INSTANCE}apt_preserve_sources_list: true
ssh_pwauth: true
"""
"""For the instance that the test plays, and with a password login that somebody once wanted."""
ERROR_PAGE = "<h1>404 - Not Found</h1>"
INSTANCES = "i-00000000000000001", "i-00000000000000002"


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """Room in memory for disks."""
    netlab.sweep()
    with bootlab.workshop(tmp_path / "shelf") as directory:
        yield directory


def scene_with(shelf: Path, *packages: str) -> Iterator[Scenario]:
    """A scenario on a system with these packages, and the deb."""
    deb = build("deb", shelf / "deb")
    system = bootlab.distribution(shelf, *packages)
    image = system.changed(shelf / "installed", lambda root: bootlab.install_deb(root, deb))
    yield from scenario_on(image, shelf)


@pytest.fixture
def clouded(shelf: Path) -> Iterator[Scenario]:
    """A system that cloud-init gives its first access."""
    for scenario in scene_with(shelf, "cloud-init"):
        scenario.disk.write(CONFIG_FILE, CLOUD_CONFIG)
        yield scenario


@pytest.fixture
def scripted(shelf: Path) -> Iterator[Scenario]:
    """A system on which a script has fetched the launch key at three boots, and once there was none."""
    for scenario in scene_with(shelf):
        lines = [*[scenario.line] * 2, ERROR_PAGE, scenario.line]
        scenario.disk.path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        scenario.disk.write("/root/.ssh/authorized_keys", "".join(f"{line}\n" for line in lines), mode=0o600)
        scenario.disk.write("/etc/rc.local", "#!/bin/sh\ntouch /run/rc-local-ran\n", mode=0o755)
        yield scenario


def type_on(machine: Machine, blocks: list[Block]) -> str:
    """Type the blocks on the machine, as root; the first command that fails is the last."""
    script = "set -eu\nexec 2>&1\n" + "".join(block.text for block in blocks)
    return machine.inside("env", "HOME=/root", "bash", "-c", script, seconds=120)


def test_from_cloud_init(clouded: Scenario) -> None:
    """The default user goes on logging in, with sudo, on an instance that cloud-init had no part in."""
    clouded.cloud.offer(clouded.line, instance=INSTANCES[0])
    with clouded.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        machine.wait_until_booted()
        assert clouded.login(user="debian", on=machine).status == 0
        see_what_is_left_behind(clouded)
        said = type_on(machine, of_story("moving"))
        assert "Purg cloud-init" in said, said  # what apt-get simulates
        machine.shut_down()
    clouded.cloud.offer(clouded.new_key("buyer"), instance=INSTANCES[1])
    with clouded.boot() as machine:
        machine.wait_for_ssh()
        assert (
            clouded.login("sudo", "-n", "id", "-un", user="debian", key="buyer", on=machine).out == "root\n"
        )
        assert clouded.login(user="debian").is_refused
        assert clouded.login(key="buyer").is_refused  # root
        assert machine.wait_until_booted() == "running"
        assert machine.show("cloud-init.service", "ActiveState") == "inactive"
        # The journal of the boot before went with the seal.
        beside = ("journalctl", "--quiet", "--boot", "FIRSTKEY_EVENT=cloud-init-beside")
        assert machine.inside(*beside, check=False) == ""


def see_what_is_left_behind(scenario: Scenario) -> None:
    """Each row of the page's table."""
    path = scenario.disk.path
    assert "PasswordAuthentication yes" in path("/etc/ssh/sshd_config.d/50-cloud-init.conf").read_text()
    assert "debian ALL=(ALL) NOPASSWD:ALL" in path("/etc/sudoers.d/90-cloud-init-users").read_text()
    (shadow,) = [line for line in path("/etc/shadow").read_text().splitlines() if line.startswith("debian:")]
    assert shadow.split(":")[1].startswith("!")
    key = scenario.line.split()[1]
    assert key in path("/home/debian/.ssh/authorized_keys").read_text()
    (line,) = path("/root/.ssh/authorized_keys").read_text().splitlines()
    assert key in line
    assert 'command="' in line
    assert list(path("/var/lib/cloud/instances").iterdir())
    assert path("/var/log/cloud-init.log").stat().st_size
    assert len(scenario.host_keys()) >= 3


def test_from_a_script(scripted: Scenario) -> None:
    """One line of each key is left, the login goes on working, and nobody appends any more."""
    scripted.cloud.offer(scripted.line)
    with scripted.boot() as machine:
        machine.wait_for_ssh()
        machine.wait_until_booted()
        assert machine.inside("ls", "/run/rc-local-ran")
        said = type_on(machine, of_story("script"))
        assert said.count("ssh root@HERE works") == 2
        assert scripted.disk.path("/root/.ssh/authorized_keys").read_text().splitlines() == [
            scripted.line,
            ERROR_PAGE,
        ]
        assert scripted.login(on=machine).status == 0
        asked = ("firstkey", "authorized-keys", "root")
        keys = machine.inside("setpriv", "--reuid=firstkey-keys", "--clear-groups", *asked)
        assert scripted.line.split()[1] in keys
        machine.shut_down()
    with scripted.boot() as machine:
        machine.wait_for_ssh()
        machine.wait_until_booted()
        assert machine.inside("ls", "/run/rc-local-ran", check=False) == ""
