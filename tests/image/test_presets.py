"""What a first boot enables by itself, told as systemctl's own preset-all does it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from sapling import Sapling

from firstkey.image import units

UNITS = "/usr/lib/systemd/system"
TREE = {
    f"{UNITS}/plain.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/on.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/static.service": "[Service]\nExecStart=/bin/true\n",
    f"{UNITS}/named.service": "[Install]\nWantedBy=multi-user.target\nAlso=helper.socket\n",
    f"{UNITS}/helper.socket": "[Install]\nWantedBy=sockets.target\n",
    f"{UNITS}/unwanted.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/masked.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/early.target": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/line@.service": "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
    f"{UNITS}/bare@.service": "[Install]\nWantedBy=getty.target\n",
    f"{UNITS}-preset/50-a.preset": "# enable unwanted.service\nenable named.service\ndisable helper.*\n",
    f"{UNITS}-preset/60-b.preset": "enable unwanted.service\n",
    "/etc/systemd/system-preset/60-b.preset": "disable un*\ndisable named.service\n",
    "/etc/systemd/system/own.timer": "[Install]\nWantedBy=timers.target\n",
}
LINKS = {
    "/etc/systemd/system/multi-user.target.wants/on.service": f"{UNITS}/on.service",
    "/etc/systemd/system/masked.service": "/dev/null",
    f"{UNITS}/initrd-root-fs.target.wants/early.target": "../early.target",
    f"{UNITS}/other-name.service": "plain.service",
}


def grow(sapling: Sapling) -> None:
    """A tree with units and units."""
    for path, content in TREE.items():
        sapling.file(path, content)
    for path, target in LINKS.items():
        sapling.link(path, target)


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")
def test_what_a_first_boot_enables_is_what_systemctl_enables(sapling: Sapling) -> None:
    """The same units as `systemctl preset-all` links in the tree, where nothing is turned off."""
    grow(sapling)
    told = units.newly_enabled(sapling.image())
    argv = ["systemctl", f"--root={sapling.root}", "preset-all", "--preset-mode=enable-only"]
    subprocess.run(argv, check=True, capture_output=True)
    wants = sapling.path("/etc/systemd/system").glob("*.wants/*")
    assert told == sorted({os.path.basename(link) for link in wants} - {"on.service"})
    assert told == [
        "early.target", "helper.socket", "line@tty1.service", "named.service", "own.timer", "plain.service",
    ]  # fmt: skip


def test_the_plan_names_them(sapling: Sapling) -> None:
    """Who unsets the machine-id is told what the first boot will start; nothing is said of no unit."""
    sapling.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    (change,) = sapling.settled("machine-id")
    assert change.describe().startswith("unset the machine-id in /etc/machine-id\n")
    grow(sapling)
    (change,) = sapling.settled("machine-id")
    assert "enables by preset: early.target, helper.socket," in change.describe().splitlines()[0]


def test_a_unit_that_cannot_be_read_keeps_nobody_from_the_step(sapling: Sapling) -> None:
    """Then the plan says no names, and the machine-id is unset all the same."""
    sapling.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    sapling.file(f"{UNITS}/large.service", "#" * (17 * 1024 * 1024))
    (change,) = sapling.settled("machine-id")
    assert "enables units by preset" in change.describe()
    assert change.apply(sapling.context()) == "written"
