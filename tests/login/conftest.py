"""A lab: a machine of its own with a real sshd, for tests that have root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A healthy machine; sshd is not started yet."""
    with Lab(tmp_path / "lab") as made:
        yield made
