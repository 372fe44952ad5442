"""What the tests of the packaging share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installed import Installed, install
from packages import build


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The checkout, installed and compiled; nobody changes it."""
    return install(tmp_path_factory.mktemp("installed"), "--compile")


def missing_for(*programs: str) -> str | None:
    """Why packages cannot be built or checked here, or None."""
    missing = [program for program in programs if shutil.which(program) is None]
    return f"needs {' and '.join(missing)}, which is not installed" if missing else None


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deb, beside its sources."""
    if reason := missing_for("dpkg-buildpackage", "dh", "dh_python3"):
        pytest.skip(reason)
    return build("deb", tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rpm, beside its sources."""
    if reason := missing_for("rpmbuild"):
        pytest.skip(reason)
    return build("rpm", tmp_path_factory.mktemp("rpm"))
