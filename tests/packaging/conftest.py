"""What the tests of the packaging share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bootlab
import pytest
import rootfs
from debian_image import SUITES, Image, prepare
from installed import TOP, Installed, install
from machine import new_key
from once import once
from packages import build, build_before

from firstkey.metadata.emulator import Emulator
from firstkey.metadata.emulator import Settings as Service

FEDORA = Path(__file__).with_name("macros.fedora")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The checkout, installed and compiled by somebody who keeps all to himself; nobody changes it."""

    def make(directory: Path) -> None:
        before = os.umask(0o077)
        try:
            install(directory / "root", "--compile")
        finally:
            os.umask(before)

    return Installed(once(tmp_path_factory, "installed", make) / "root")


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


@pytest.fixture(scope="session")
def deb_before(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deb of the version before, where debs can be built."""
    return build_before("deb", tmp_path_factory.mktemp("deb-before"))


@pytest.fixture(scope="session")
def rpm_before(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rpm of the version before, where rpms can be built."""
    return build_before("rpm", tmp_path_factory.mktemp("rpm-before"))


@pytest.fixture(scope="session")
def rpm_of_fedora(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rpm, built with stand-ins for Fedora's macros in place of those that the spec has."""
    directory = tmp_path_factory.mktemp("fedora")
    options = [
        "--load",
        str(FEDORA),
        "--define",
        f"_topdir {directory}",
        "--define",
        f"_sourcedir {rpm.parent}",
    ]
    argv = ["rpmbuild", "-bb", "--nodeps", *options, str(TOP / "packaging/rpm/firstkey.spec")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    (package,) = (directory / "RPMS/noarch").iterdir()
    return package


@pytest.fixture(scope="session", params=SUITES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system of each release that the package is for."""
    if reason := rootfs.missing_for_debian_root():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("base")
    rootfs.unpack(bootlab.archive(request.param), root)
    # Without what is only recommended.
    done = rootfs.inside(root, "dpkg", "--remove", "python3-systemd")
    assert done.returncode == 0, done.stderr
    yield root
    shutil.rmtree(root)


@pytest.fixture
def image(base: Path, tmp_path: Path) -> Iterator[Image]:
    """An image of the release, for one test."""
    with rootfs.copy_of(base, tmp_path / "image") as root:
        yield prepare(root)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Emulator]:
    """A metadata service with one launch key."""
    key = new_key(tmp_path, "laptop")
    with Emulator(Service(keys=(("laptop", key),))) as emulator:
        yield emulator
