"""The files of the rpm in place of the deb's, on the oldest release: the same code in the same directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
from packages import build
from scenario import Scenario, scenario_on
from suites import OLDEST

pytestmark = [
    pytest.mark.root,
    pytest.mark.boot,
    pytest.mark.skipif(
        not (shutil.which("rpmbuild") and shutil.which("cpio")), reason="needs rpmbuild and cpio"
    ),
]


@pytest.fixture
def scenario(shelf: Path, tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Scenario]:
    """A scenario on a system with the rpm's files, which has everything that it depends on."""
    system = bootlab.distribution(shelf / "oldest", suite=pytestconfig.getoption("suite") or OLDEST)
    rpm = build("rpm", tmp_path)
    image = system.changed(shelf / "unpacked", lambda root: bootlab.unpack_rpm(root, rpm))
    yield from scenario_on(image, shelf)


def test_first_and_second_boot(scenario: Scenario) -> None:
    """The launch key lets in, the second boot finds nothing to do, and no unit fails."""
    scenario.cloud.offer(scenario.line)
    for outcome in ("changed", "unchanged"):
        with scenario.boot() as machine:
            machine.wait_for_ssh()
            assert scenario.login(on=machine).status == 0
            assert machine.wait_until_booted() == "running"
            assert machine.report["users"][0]["result"] == outcome
            machine.shut_down()
