"""What is tried on each of Debian's releases: each test is run once a suite, or on the one of --suite."""

from __future__ import annotations

import json
from pathlib import Path

import bootlab
import netlab
import pytest
from lifetime import Life, live, live_without
from once import once
from packages import build
from rootfs import inside, missing_for_debian_root
from scenario import scenario_on
from suites import SUITES, without


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that asks for a suite gets all of them, or the one that the run is kept to."""
    if "suite" in metafunc.fixturenames:
        only = metafunc.config.getoption("suite")
        metafunc.parametrize("suite", [only] if only else list(SUITES), scope="session")


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one deb, which is built here and installed everywhere."""
    (package,) = once(tmp_path_factory, "deb", lambda directory: build("deb", directory)).glob("*.deb")
    return package


@pytest.fixture(scope="session")
def archive(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release as a tar. A mirror that does not serve it is no fault of firstkey's, and is told loudly."""
    if reason := missing_for_debian_root():
        pytest.skip(reason)

    def made(directory: Path) -> None:
        (directory / "archive").symlink_to(bootlab.archive(suite))

    try:
        return once(tmp_path_factory, f"root-{suite}", made) / "archive"
    except AssertionError as error:
        without(suite, error)


@pytest.fixture(scope="session")
def life(suite: str, archive: Path, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """What was seen in the life of a disk with that release; lived once, however many workers ask."""

    def install(root: Path) -> None:
        # As far as the release goes without: a server that nobody logs in from has no client.
        inside(root, "dpkg", "--remove", "openssh-client")
        bootlab.install_deb(root, deb)

    def lived(directory: Path) -> None:
        netlab.sweep()
        with bootlab.workshop(directory / "disks") as shelf:
            system = bootlab.distribution(shelf, suite=suite)
            image = system.changed(shelf / "installed", install)
            record = {}
            for scenario in scenario_on(system, shelf):
                record.update(live_without(scenario))
            for scenario in scenario_on(image, shelf):
                record.update(live(scenario))
        (directory / "life.json").write_text(json.dumps(record))

    return Life(once(tmp_path_factory, f"life-{suite}", lived) / "life.json")
