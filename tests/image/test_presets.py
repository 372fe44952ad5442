"""What a first boot enables by itself, told as systemctl's own preset-all does it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from sapling import Sapling

from firstkey.image import render_seal, rules, seal, units
from firstkey.image.audit import verdict_of
from firstkey.image.verdict import PASS

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
    """Who unsets the machine-id is told what the first boot will turn on, one a line."""
    sapling.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    assert planned(sapling)[1:] == []
    grow(sapling)
    sapling.file(
        f"{UNITS}/systemd-networkd-wait-online.service", "[Install]\nWantedBy=network-online.target\n"
    )
    heading, *told = planned(sapling)[1:]
    assert heading.startswith("The first boot will turn on by preset")
    assert "  helper.socket" in told
    assert "  systemd-networkd-wait-online.service, which holds what waits for a network" in told
    sapling.file("/etc/machine-id", "uninitialized\n")
    assert planned(sapling) == ["Plan: 0 steps; there is nothing to do."]


def planned(sapling: Sapling) -> list[str]:
    """What the plan says, without the lines of its one step."""
    lines = list(render_seal.plan(seal.plan(sapling.image(), [rules.by_id("machine-id")], []), diffs=False))
    return [line for line in lines if "machine-id" not in line]


def test_an_empty_machine_id_stays(sapling: Sapling) -> None:
    """The system boots well with it, unless only a first boot makes host keys (tests/image/test_cases.py)."""
    sapling.file("/etc/machine-id", "")
    grow(sapling)
    assert planned(sapling) == ["Plan: 0 steps; there is nothing to do."]
    assert verdict_of(rules.by_id("machine-id"), sapling.image()).outcome == PASS


def test_a_unit_that_cannot_be_read_keeps_nobody_from_the_step(sapling: Sapling) -> None:
    """Then the plan says no names, and the machine-id is unset all the same."""
    sapling.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    sapling.file(f"{UNITS}/large.service", "#" * (17 * 1024 * 1024))
    assert planned(sapling)[-1].startswith("  units that cannot be told: ")
    (change,) = sapling.settled("machine-id")
    assert change.apply(sapling.context()) == "written"
