"""A machine, and keys to offer to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import Machine, new_key


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fresh image."""
    return Machine(tmp_path / "root")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Public key lines by type."""
    directory = tmp_path_factory.mktemp("keys")
    return {kind: new_key(directory, kind, kind) for kind in ("ed25519", "ecdsa", "rsa")}
