"""Cloud-init beside firstkey: noticed where it really works, and said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from machine import Machine, World

from firstkey import config, events
from firstkey.boot.target import Target
from firstkey.cli import common
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree

LINK = "/etc/systemd/system/cloud-init.target.wants/cloud-init.service"
NEW_LINK = "/etc/systemd/system/cloud-init.target.wants/cloud-init-network.service"
RUN = "/run/cloud-init/enabled"


def shown(machine: Machine) -> str | None:
    """The path by which cloud-init is noticed there."""
    said: list[events.Entry] = []
    with Tree(str(machine.root)) as tree:
        common.report_cloud_init(Target(tree, Accounts(tree), config.read(()), said.append))
    return next((entry.fields["detail"] for entry in said), None)


@pytest.mark.parametrize(
    "there, found",
    [
        ([], None),
        ([RUN], RUN),
        ([LINK], LINK),
        ([NEW_LINK], NEW_LINK),
        ([RUN, LINK], RUN),
        ([LINK, "/etc/cloud/cloud-init.disabled"], None),
        ([RUN, "/etc/cloud/cloud-init.disabled"], None),
        ([LINK, "/run/cloud-init/disabled"], None),
        (["/etc/cloud/cloud.cfg", "/usr/bin/cloud-init"], None),
    ],
)
def test_cloud_init_is_noticed_where_it_works(there: list[str], found: str | None, tmp_path: Path) -> None:
    """By what its generator says at boot, or in an image by its units; installed is not enabled."""
    machine = Machine(tmp_path)
    for path in there:
        machine.write(path, "")
    assert shown(machine) == found


def test_a_link_that_leads_nowhere_yet_counts(tmp_path: Path) -> None:
    """Units are enabled by links to places that only the running image has."""
    machine = Machine(tmp_path)
    machine.path(LINK).parent.mkdir(parents=True)
    machine.path(LINK).symlink_to("/lib/systemd/system/cloud-init.service")
    assert shown(machine) == LINK


@pytest.mark.parametrize("command", ["run", "daemon"])
@pytest.mark.sample(2)
def test_it_is_said(world: World, command: str) -> None:
    """Who looks into the journal finds out that there are two; nothing is said where there is one."""
    event = events.CLOUD_INIT_BESIDE(detail=RUN)
    alone = world.machine.firstkey(command, "-v", service=world.service)
    world.machine.write(RUN, "")
    beside = world.machine.firstkey(command, "-v", service=world.service)
    assert (alone.status, beside.status) == (0, 0)
    assert event.message not in alone.err
    assert beside.err.count(event.message) == 1


def give_a_host_key(machine: Machine) -> Path:
    """A host key that firstkey did not make."""
    file = machine.path("/etc/ssh/ssh_host_ed25519_key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file


@pytest.mark.parametrize("regenerate", ["clones", "new-instance"])
def test_the_host_keys_that_cloud_init_just_made_are_good(world: World, regenerate: str) -> None:
    """They are this instance's alone: no warning, and never replaced, whatever is replaced otherwise."""
    world.machine.configure(f"[Keys]\nUsers=admin\n[HostKeys]\nRegenerate={regenerate}\n")
    world.machine.write(RUN, "")
    file = give_a_host_key(world.machine)
    before = file.read_bytes()
    done = world.machine.run(world.service)
    (host_key,) = (key for key in done.report["host_keys"] if key["type"] == "ed25519")
    assert (host_key["result"], host_key["reason"]) == ("unchanged", None)
    assert file.read_bytes() == before
    assert len(world.machine.host_keys()) == 1


def test_a_host_key_of_the_image_is_suspect_beside_cloud_init_too(world: World) -> None:
    """Where cloud-init was told to keep the image's keys (ssh_deletekeys: false), others may have them."""
    file = give_a_host_key(world.machine)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    world.machine.write(RUN, "")
    done = world.machine.run(world.service)
    (host_key,) = (key for key in done.report["host_keys"] if key["type"] == "ed25519")
    assert host_key["reason"] == "host-key-foreign"
