"""What a first boot enables by itself, told as systemctl's own preset-all does it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from image_builder import Builder

from firstkey.image import render, rules, seal, units
from firstkey.image.audit import verdict_of
from firstkey.image.verdict import PASS

UNITS = "/usr/lib/systemd/system"
TREE = {
    f"{UNITS}/plain.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/on.service": "[Install]\nWantedBy=multi-user.target\n",
    f"{UNITS}/initrd-on.service": "[Install]\nWantedBy=multi-user.target\n",
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
    "/etc/systemd/system/multi-user.target.wants/initrd-on.service": f"{UNITS}/initrd-on.service",
    "/etc/systemd/system/masked.service": "/dev/null",
    f"{UNITS}/initrd-root-fs.target.wants/early.target": "../early.target",
    f"{UNITS}/other-name.service": "plain.service",
}


def grow(builder: Builder) -> None:
    """A tree with units and units."""
    for path, content in TREE.items():
        builder.file(path, content)
    for path, target in LINKS.items():
        builder.link(path, target)


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="needs systemctl")
def test_what_a_first_boot_enables_is_what_systemctl_enables(builder: Builder) -> None:
    """The same units as `systemctl preset-all` links in the tree, where nothing is turned off."""
    grow(builder)
    logged = units.newly_enabled(builder.image())
    argv = ["systemctl", f"--root={builder.root}", "preset-all", "--preset-mode=enable-only"]
    subprocess.run(argv, check=True, capture_output=True)
    wants = builder.path("/etc/systemd/system").glob("*.wants/*")
    assert logged == sorted({os.path.basename(link) for link in wants} - {"on.service", "initrd-on.service"})
    assert logged == [
        "early.target", "helper.socket", "line@tty1.service", "named.service", "own.timer", "plain.service",
    ]  # fmt: skip


def test_the_plan_names_them(builder: Builder) -> None:
    """Who unsets the machine-id is told what the first boot will turn on, one a line."""
    builder.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    assert planned(builder)[1:] == []
    grow(builder)
    builder.file(
        f"{UNITS}/systemd-networkd-wait-online.service", "[Install]\nWantedBy=network-online.target\n"
    )
    heading, *logged = planned(builder)[1:]
    assert heading.startswith("The first boot will turn on by preset")
    assert "  helper.socket" in logged
    assert "  systemd-networkd-wait-online.service, which holds what waits for a network" in logged
    builder.file("/etc/machine-id", "uninitialized\n")
    assert planned(builder) == ["Plan: 0 steps; there is nothing to do."]


def planned(builder: Builder) -> list[str]:
    """What the plan says, without the lines of its one step."""
    lines = list(render.plan(seal.plan(builder.image(), [rules.by_id("machine-id")], []), diffs=False))
    return [line for line in lines if "machine-id" not in line]


def test_an_empty_machine_id_stays(builder: Builder) -> None:
    """The system boots well with it, unless only a first boot makes host keys (tests/image/test_cases.py)."""
    builder.file("/etc/machine-id", "")
    grow(builder)
    assert planned(builder) == ["Plan: 0 steps; there is nothing to do."]
    assert verdict_of(rules.by_id("machine-id"), builder.image()).outcome == PASS


def test_a_unit_that_cannot_be_read_keeps_nobody_from_the_step(builder: Builder) -> None:
    """Then the plan says no names, and the machine-id is unset all the same."""
    builder.file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    builder.file(f"{UNITS}/large.service", "#" * (17 * 1024 * 1024))
    assert planned(builder)[-1].startswith("  units that cannot be listed: ")
    (change,) = builder.settled("machine-id")
    assert change.apply(builder.context()) == "written"
