"""A machine, and a metadata service that offers it one key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine, World, new_key

from firstkey.metadata.emulator import Emulator, Settings


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fresh image."""
    return Machine(tmp_path / "root")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Where key pairs are."""
    directory = tmp_path / "keys"
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def launch_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private half of one key for all tests; the public one lies beside it."""
    directory = tmp_path_factory.mktemp("launch")
    new_key(directory, "launch")
    return directory / "launch"


@pytest.fixture
def launch(keys: Path, launch_key: Path) -> str:
    """The launch key's public line; the private half is `keys / "launch"`."""
    shutil.copytree(launch_key.parent, keys, dirs_exist_ok=True)
    return (keys / "launch.pub").read_text().strip()


@pytest.fixture
def service(launch: str) -> Iterator[Emulator]:
    """The metadata service, offering that key."""
    with Emulator(Settings(instance_id="i-0000000000000001", keys=(("launch", launch),))) as running:
        yield running


@pytest.fixture
def world(machine: Machine, service: Emulator, launch: str, keys: Path) -> World:
    """A fresh image, and its metadata service with one launch key."""
    return World(machine, service, launch, keys)
