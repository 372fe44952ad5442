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
def world(tmp_path: Path, machine: Machine) -> Iterator[World]:
    """A fresh image, and its metadata service with one launch key."""
    keys = tmp_path / "keys"
    keys.mkdir()
    key = new_key(keys, "launch")
    with Emulator(Settings(instance_id="i-0000000000000001", keys=(("launch", key),))) as service:
        yield World(machine, service, key, keys)
