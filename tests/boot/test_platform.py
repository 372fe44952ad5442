"""Another platform than EC2: told from the firmware's words, and sshd is not held there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
from machine import AGENT, World, fingerprint
from manager import Manager

from firstkey.boot.platform import AZURE, is_another_platform

OTHERS: dict[str, dict[str, str]] = {
    "Google": {"sys_vendor": "Google", "product_name": "Google Compute Engine", "bios_vendor": "Google"},
    "Azure": {
        "sys_vendor": "Microsoft Corporation",
        "product_name": "Virtual Machine",
        "chassis_asset_tag": AZURE,
    },
    "VMware": {
        "sys_vendor": "VMware, Inc.",
        "product_name": "VMware Virtual Platform",
        "product_serial": "VMware-56 4d",
        "chassis_asset_tag": "No Asset Tag",
    },
    "VirtualBox": {"sys_vendor": "innotek GmbH", "product_name": "VirtualBox", "product_serial": "0"},
    "QEMU": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC (Q35 + ICH9, 2009)",
        "bios_vendor": "SeaBIOS",
    },
    "laptop": {"sys_vendor": "LENOVO", "product_name": "20XW004AGE", "chassis_asset_tag": "inventory 4711"},
}
HOLDS: dict[str, dict[str, str]] = {
    "nothing": {},
    "empty": dict.fromkeys(("sys_vendor", "product_name", "chassis_asset_tag"), ""),
    "Nitro": {"sys_vendor": "Amazon EC2", "product_name": "m5.large", "bios_vendor": "Amazon EC2"},
    "metal": {"sys_vendor": "Amazon EC2", "product_name": "c5.metal", "chassis_asset_tag": "Amazon EC2"},
    "Xen": {"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"},
    "Xen's uuid": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC",
        "hypervisor": "ec2e1916-9099-7caf-fd21",
    },
    "a uuid of EC2's": {"sys_vendor": "QEMU", "product_name": "Standard PC", "product_uuid": "ec2e1916-9099"},
    "a uuid of EC2's, the other way round": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC",
        "product_uuid": "45E12AEC-DCD1-B213-94ED-01234ABCDEF",
    },
    "a Mac, which EC2 has": {"sys_vendor": "Apple Inc.", "product_name": "Macmini8,1"},
    "some Xen": {"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11"},
    "QEMU with Amazon's BIOS": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC",
        "bios_vendor": "Amazon EC2",
    },
    "OpenStack": {"sys_vendor": "OpenStack Foundation", "product_name": "OpenStack Nova"},
    "OpenStack of Red Hat": {"sys_vendor": "Red Hat", "product_name": "OpenStack Compute"},
    "OpenStack on QEMU": {"sys_vendor": "QEMU", "product_name": "OpenStack Nova"},
    "OpenStack on VMware": {
        "sys_vendor": "VMware, Inc.",
        "product_name": "VMware Virtual Platform",
        "chassis_asset_tag": "SAP CCloud VM",
    },
    "OpenStack on Hyper-V": {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"},
    "OpenStack on metal": {"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R740"},
    "CloudStack": {"sys_vendor": "Apache Software Foundation", "product_name": "CloudStack KVM Hypervisor"},
    "Exoscale": {"sys_vendor": "Exoscale", "product_name": "Exoscale Compute Platform"},
    "ZStack": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC (i440FX + PIIX, 1996)",
        "chassis_asset_tag": "www.zstack.io",
    },
    "Brightbox": {
        "sys_vendor": "QEMU",
        "product_name": "Standard PC (i440FX + PIIX, 1996)",
        "product_serial": "srv-abcde.gb1.brightbox.com",
    },
    "Eucalyptus": {"sys_vendor": "Eucalyptus", "product_name": "KVM"},
    "not known": {"sys_vendor": "Somebody", "product_name": "Something"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_words_that_are_plainly_another_platform_s(name: str) -> None:
    """In whatever case, and with blanks around."""
    assert is_another_platform(OTHERS[name])
    assert is_another_platform({key: f" {text.upper()}\n" for key, text in OTHERS[name].items()})


@pytest.mark.parametrize("name", HOLDS)
def test_words_that_may_be_ec2_s_or_a_compatible_service_s(name: str) -> None:
    """There a boot waits: nobody is to be locked out for having a platform that we do not know."""
    assert not is_another_platform(HOLDS[name])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("word", ["bios_vendor", "bios_version", "chassis_asset_tag", "board_vendor"])
def test_one_word_of_amazon_is_enough_to_wait(name: str, word: str) -> None:
    """Whatever else the firmware says."""
    assert not is_another_platform({**OTHERS[name], word: "Amazon EC2"})


SCRIPT = """
ip link set lo up
"$PYTHON" -m firstkey daemon -v --root "$ROOT" & daemon=$!
until [ -e "$ROOT/serve" ]; do sleep 0.05; done
ip address add 169.254.169.254/32 dev lo
"$PYTHON" -m firstkey imds -q --port 80 --host 169.254.169.254 --key "$KEY" &
wait "$daemon"
"""


class Boot:
    """A daemon on the machine's tree, in a network that has the metadata service when the test says so."""

    def __init__(self, world: World, manager: Manager) -> None:
        self.root = world.machine.root
        self.process = subprocess.Popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-euc", SCRIPT],
            stderr=subprocess.PIPE, text=True,
            env=processes.environment(
                NOTIFY_SOCKET=manager.address, PYTHON=sys.executable, ROOT=str(self.root), KEY=world.key,
                PYTHONPATH=str(AGENT), PATH=os.environ["PATH"],
            ),
        )  # fmt: skip

    def serve(self) -> str:
        """Let the service come up; returns what the daemon said until its end."""
        (self.root / "serve").touch()
        _, said = self.process.communicate(timeout=processes.PATIENCE)
        assert self.process.returncode == 0, said
        return said


def firmware(world: World, words: dict[str, str]) -> None:
    """Give the machine firmware that says this, and an hour in which a boot may wait."""
    world.machine.configure("[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n[IMDS]\nBootTimeoutSec=3600\n")
    for name, text in words.items():
        world.machine.write(f"/sys/class/dmi/id/{name}", f"{text}\n")


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare and ip")
def test_sshd_is_not_held_on_another_platform(world: World, tmp_path: Path) -> None:
    """Host keys, and READY; the journal says why, and a service that is there after all is heard."""
    firmware(world, OTHERS["Google"])
    console = world.machine.write("/dev/console", "")
    with Manager(tmp_path) as manager:
        boot = Boot(world, manager)
        manager.wait("READY=1")
        (line,) = world.machine.host_keys().values()
        assert world.machine.keys == []
        # No answer may ever come: what there is to know is told without one, and once.
        report = json.loads(world.machine.path("/run/firstkey/report.json").read_text())
        assert (report["outcome"], report["reason"]) == ("unreachable", "imds-unreachable")
        assert [key["fingerprint"] for key in report["host_keys"]] == [fingerprint(line)]
        processes.wait_for(lambda: fingerprint(line) in console.read_text())
        said = boot.serve()
    assert console.read_text().count("BEGIN SSH HOST KEY FINGERPRINTS") == 1
    assert said.count("this is Google Google Compute Engine, not EC2") == 1
    assert "(other-platform)" in said
    assert "Endpoints=" in said
    assert "gave no usable answer in" not in said
    assert world.machine.keys == [world.key]


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare and ip")
@pytest.mark.parametrize("why", ["EC2", "no words", "a container", "an endpoint"])
@pytest.mark.sample(4)
def test_sshd_is_held_everywhere_else(world: World, tmp_path: Path, why: str) -> None:
    """On EC2, where the firmware says nothing or is the host's, and where somebody named the service."""
    firmware(world, {"EC2": HOLDS["Nitro"], "no words": {}}.get(why, OTHERS["Google"]))
    if why == "a container":
        world.machine.write("/run/systemd/container", "systemd-nspawn\n")
    if why == "an endpoint":
        world.machine.write(
            "/etc/firstkey/firstkey.conf.d/a.conf", "[IMDS]\nEndpoints=http://169.254.169.254\n"
        )
    with Manager(tmp_path) as manager:
        boot = Boot(world, manager)
        processes.wait_for(lambda: bool(world.machine.host_keys()), "the host key")
        time.sleep(1)  # it would have been ready by now
        manager.catch_up()
        assert manager.count("READY=1") == 0
        said = boot.serve()
        manager.catch_up()
        assert manager.count("READY=1") == 1
    assert "not EC2" not in said
    assert world.machine.keys == [world.key]
