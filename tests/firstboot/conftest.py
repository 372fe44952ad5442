"""One image with firstkey for all these tests, and for each test a disk of it, a cloud and a launch key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bootlab
import netlab
import pytest
from bootlab import Image
from packages import build
from scenario import Scenario, scenario_on
from suites import USUAL


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Room in memory for disks."""
    netlab.sweep()
    with bootlab.workshop(tmp_path_factory.mktemp("boots")) as directory:
        yield directory


@pytest.fixture(scope="session")
def distribution(shelf: Path, pytestconfig: pytest.Config) -> Image:
    """The distribution's system without firstkey: the usual one, or that of --suite."""
    return bootlab.distribution(shelf, suite=pytestconfig.getoption("suite") or USUAL)


@pytest.fixture(scope="session")
def image(distribution: Image, shelf: Path) -> Image:
    """The distribution's system with the deb installed."""
    deb = build("deb", shelf / "deb")
    return distribution.changed(shelf / "installed", lambda root: bootlab.install_deb(root, deb))


@pytest.fixture(scope="module")
def scene_of_module(image: Image, shelf: Path) -> Iterator[Scenario]:
    """A scenario that a module's tests share."""
    yield from scenario_on(image, shelf)


@pytest.fixture
def scenario(image: Image, shelf: Path) -> Iterator[Scenario]:
    """A scenario of a test's own, with the machine's network plugged in and nobody answering in the cloud."""
    yield from scenario_on(image, shelf)
