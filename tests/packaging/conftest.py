"""What the tests of the packaging share."""

from __future__ import annotations

import pytest
from installed import Installed, install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The checkout, installed and compiled; nobody changes it."""
    return install(tmp_path_factory.mktemp("installed"), "--compile")
