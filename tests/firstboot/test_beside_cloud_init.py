"""Cloud-init and firstkey, both enabled on one image: they do not fight, and what is said stays true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
from bootlab import Machine
from cloud_init import CONFIG_FILE, ON_A_PLAYED_INSTANCE
from packages import build
from scene import Scene, scene_on

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(900)]

CLOUD_CONFIG = f"""\
{ON_A_PLAYED_INSTANCE}apt_preserve_sources_list: true
"""
"""For the instance that the test plays; all else, ssh_deletekeys and disable_root too, is as it comes."""


@pytest.fixture
def scene(shelf: Path, tmp_path: Path) -> Iterator[Scene]:
    """A scene on a system with both."""
    deb = build("deb", tmp_path)
    system = bootlab.distribution(shelf / "with-cloud-init", "cloud-init")
    image = system.changed(shelf / "both", lambda root: bootlab.install_deb(root, deb))
    for found in scene_on(image, shelf):
        found.disk.write(CONFIG_FILE, CLOUD_CONFIG)
        yield found


def moment(machine: Machine, unit: str, of: str) -> int:
    """When something happened to a unit, in microseconds of the host's clock."""
    return int(machine.show(unit, f"ExecMain{of}TimestampMonotonic"))


def test_cloud_init_goes_first_and_what_it_made_is_kept(scene: Scene) -> None:
    """The host keys on the console are those that sshd has, and each user's key is as cloud-init wants it."""
    scene.cloud.offer(scene.line)
    with scene.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        assert moment(machine, "firstkey", "Start") > moment(machine, "cloud-init", "Exit") > 0
        assert scene.login(user="debian", on=machine).status == 0
        (said,) = machine.events("cloud-init-beside")
        assert said["FIRSTKEY_DETAIL"] == "/run/cloud-init/enabled"
        assert machine.report["outcome"] == "ok"
        assert {key["result"] for key in machine.report["host_keys"]} == {"unchanged"}
        assert machine.events("host-key-foreign") == []
        assert [entry["MESSAGE"] for entry in machine.journal if "cycle" in str(entry["MESSAGE"])] == []
        machine.wait_until_booted()
        machine.shut_down()
    (line,) = scene.disk.path("/root/.ssh/authorized_keys").read_text().splitlines()
    assert "Please login as the user" in line
    before = scene.host_keys()
    with scene.boot() as machine:
        machine.wait_for_ssh(seconds=120)
        assert scene.login(user="debian").status == 0
        assert scene.host_keys() == before
        machine.shut_down()
    assert scene.disk.path("/root/.ssh/authorized_keys").read_text().splitlines() == [line]
