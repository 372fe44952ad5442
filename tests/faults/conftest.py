"""The jobs that are interrupted and cut off."""

from __future__ import annotations

from collections.abc import Iterator

import crash_scenes
import pytest
from crash_scenes import Scene


@pytest.fixture(scope="module", params=crash_scenes.SCENES)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Each job in turn."""
    with crash_scenes.scene(request.param, tmp_path_factory.mktemp("scene")) as made:
        yield made
