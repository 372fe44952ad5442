"""A machine, and a metadata service that offers it one key."""

from __future__ import annotations

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


@pytest.fixture
def launch(keys: Path) -> str:
    """The launch key's public line; the private half is `keys / "launch"`."""
    return new_key(keys, "launch")


@pytest.fixture
def service(launch: str) -> Iterator[Emulator]:
    """The metadata service, offering that key."""
    with Emulator(Settings(instance_id="i-0000000000000001", keys=(("launch", launch),))) as running:
        yield running


@pytest.fixture
def world(machine: Machine, service: Emulator, launch: str, keys: Path) -> World:
    """A fresh image, and its metadata service with one launch key."""
    return World(machine, service, launch, keys)
