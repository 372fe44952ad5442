"""A small tree for every test of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from image_builder import Builder


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    """An empty tree."""
    root = tmp_path / "root"
    root.mkdir()
    grown = Builder(root)
    yield grown
    grown.close()
