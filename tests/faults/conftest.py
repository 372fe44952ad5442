"""The jobs that are interrupted and cut off."""

from __future__ import annotations

from collections.abc import Iterator

import crash_scenarios
import pytest
from crash_scenarios import Scenario


@pytest.fixture(scope="module", params=crash_scenarios.SCENARIOS)
def scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """Each job in turn."""
    with crash_scenarios.scenario(request.param, tmp_path_factory.mktemp("scenario")) as made:
        yield made
