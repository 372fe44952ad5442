"""The tests that ask real programs (sshd -T, ssh-keygen, useradd), on each of Debian's releases.

Of each room a sample: what asks no program is the same everywhere, and what asks one is a table of many
cases. `--suite NAME` runs all of them.
"""

from __future__ import annotations

from pathlib import Path

import bootlab
import pytest
import rooms
import rootfs
from once import once

pytestmark = [pytest.mark.root, pytest.mark.boot, pytest.mark.timeout(1500)]

ASKING = "(sshd or root) and not boot"
ROOMS = {
    "tests/ssh": ("-m", f"{ASKING} and not slow"),
    "tests/system": ("-m", f"{ASKING} and not slow"),
    "tests/login": ("-m", ASKING, "--each=4"),
    "tests/image": ("-m", f"{ASKING} and not slow", "--each=3"),
}
"""What is chosen of each; the doctor's tests, which log in to a real sshd, are all slow."""


@pytest.fixture(scope="session")
def reports(
    suite: str, archive: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Path:
    """Where the reports of all rooms are; they are run once, however many workers ask."""

    def made(directory: Path) -> None:
        packages = rooms.packages()
        with bootlab.workshop(directory / "root") as root:
            rootfs.unpack(archive, root)
            rootfs.unpack(packages, root / rooms.PLACE)
            for room, sample in ROOMS.items():
                chosen = ("-m", "not boot") if pytestconfig.getoption("suite") else sample
                rooms.run_tests(root, directory / _name(room), "-q", *chosen, room)

    return once(tmp_path_factory, f"rooms-{suite}", made)


def _name(room: str) -> str:
    return room.replace("/", "-")


@pytest.mark.parametrize("room", list(ROOMS), ids=_name)
def test_a_room_on_its_own_system(reports: Path, room: str) -> None:
    """Everything that ran passes, and something ran."""
    found = rooms.read(reports / _name(room))
    assert found.failures == "", found.failures
    assert found.counts["passed"] > 10, found.counts
