"""A machine, and a metadata service that offers it one key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from machine import Machine, new_key

from firstkey.metadata.emulator import Emulator, Settings


class World(NamedTuple):
    """Everything that a test of the whole job needs."""

    machine: Machine
    service: Emulator
    key: str
    directory: Path

    def another_key(self, name: str) -> str:
        return new_key(self.directory, name)

    def become(self, instance: str, *keys: str) -> None:
        """The disk wakes up as another instance, with other launch keys."""
        self.service.change(instance_id=instance, keys=tuple((f"key-{i}", key) for i, key in enumerate(keys)))


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
