"""A small tree for every test of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sapling import Sapling


@pytest.fixture
def sapling(tmp_path: Path) -> Iterator[Sapling]:
    """An empty tree."""
    root = tmp_path / "root"
    root.mkdir()
    grown = Sapling(root)
    yield grown
    grown.close()
