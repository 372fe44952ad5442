"""Cloud-init beside firstkey: noticed where it really works, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import Machine, World

from firstkey import events
from firstkey.boot import neighbours
from firstkey.system.tree import Tree

LINK = "/etc/systemd/system/cloud-init.target.wants/cloud-init.service"
NEW_LINK = "/etc/systemd/system/cloud-init.target.wants/cloud-init-network.service"
RUN = "/run/cloud-init/enabled"


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
    with Tree(str(machine.root)) as tree:
        assert neighbours.cloud_init(tree) == found


def test_a_link_that_leads_nowhere_yet_counts(tmp_path: Path) -> None:
    """Units are enabled by links to places that only the running image has."""
    machine = Machine(tmp_path)
    machine.path(LINK).parent.mkdir(parents=True)
    machine.path(LINK).symlink_to("/lib/systemd/system/cloud-init.service")
    with Tree(str(machine.root)) as tree:
        assert neighbours.cloud_init(tree) == LINK


@pytest.mark.parametrize("command", ["run", "daemon"])
def test_it_is_said(world: World, command: str) -> None:
    """Who looks into the journal finds out that there are two; nothing is said where there is one."""
    event = events.CLOUD_INIT_BESIDE(detail=RUN)
    alone = world.machine.firstkey(command, "-v", service=world.service)
    world.machine.write(RUN, "")
    beside = world.machine.firstkey(command, "-v", service=world.service)
    assert (alone.status, beside.status) == (0, 0)
    assert event.message not in alone.err
    assert beside.err.count(event.message) == 1
