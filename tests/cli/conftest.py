"""A machine, keys to offer to it, and daemons that are started on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Lab
from machine import Machine, new_key
from manager import Manager

from firstkey.metadata.emulator import Emulator, Settings

KINDS = (("ed25519", "ed25519"), ("ecdsa", "ecdsa"), ("rsa", "rsa", "-b", "1024"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fresh image."""
    return Machine(tmp_path / "root")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Public key lines by type."""
    directory = tmp_path_factory.mktemp("keys")
    return {kind: new_key(directory, kind, *options) for kind, *options in KINDS}


@pytest.fixture
def lab(tmp_path: Path, machine: Machine, keys: dict[str, str]) -> Iterator[Lab]:
    """A fresh image, a metadata service with one launch key, and a service manager."""
    settings = Settings(instance_id="i-0000000000000001", keys=(("launch", keys["ed25519"]),))
    with Manager(tmp_path) as manager, Emulator(settings) as service:
        made = Lab(machine, service, manager, keys["ed25519"])
        yield made
        made.end()
