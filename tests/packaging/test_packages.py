"""The deb and the rpm as files: clean, of one version, the same bytes each time."""

from __future__ import annotations

import email.utils
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from installed import TOP
from packages import build, copy_sources

import firstkey

pytestmark = pytest.mark.slow

CHANGELOG = TOP / "packaging/debian/changelog"
SPEC = TOP / "packaging/rpm/firstkey.spec"
RPMLINTRC = TOP / "packaging/rpm/firstkey.rpmlintrc"


def output(*argv: str) -> str:
    """What a program prints, whatever its status."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


def paths_in_deb(deb: Path) -> set[str]:
    """The files of the deb, by their names before they were compressed."""
    lines = output("dpkg-deb", "--contents", str(deb)).splitlines()
    return {line.split()[5].lstrip(".").removesuffix(".gz") for line in lines if not line.startswith("d")}


def paths_in_rpm(rpm: Path) -> set[str]:
    """The files of the rpm, by their names before they were compressed, without the bytecode."""
    lines = output("rpm", "-qplv", str(rpm)).splitlines()
    paths = {line.split()[-1].removesuffix(".gz") for line in lines if line.startswith("-")}
    return {path for path in paths if not path.endswith(".pyc")}


def test_the_version_has_one_source() -> None:
    """The changelogs of both packages and the spec say what firstkey.__version__ says."""
    first = CHANGELOG.read_text().splitlines()[0]
    assert first.startswith(f"firstkey ({firstkey.__version__}) ")
    spec = SPEC.read_text()
    assert re.findall(r"(?m)^Version: +(\S+)$", spec) == [firstkey.__version__]
    entries = re.findall(r"(?m)^\* .* - (\S+)-\d+$", spec.split("%changelog")[1])
    assert entries[0] == firstkey.__version__


def test_both_changelogs_are_of_the_same_day_and_not_of_the_future() -> None:
    """Their date is that of every file; times in the future would not be brought down to it."""
    said = re.findall(r"(?m)^ -- .*>  (.*)$", CHANGELOG.read_text())[0]
    moment = email.utils.parsedate_to_datetime(said)
    assert moment.timestamp() < time.time()
    assert re.findall(r"(?m)^\* (\w+ \w+ \d+ \d+) ", SPEC.read_text())[0] == moment.strftime("%a %b %d %Y")


def test_both_packages_have_the_same_files(deb: Path, rpm: Path) -> None:
    """But for what each kind of package has in its own way, and the bytecode, which the rpm brings along."""
    in_rpm = paths_in_rpm(rpm)
    only_rpm = {"/usr/share/licenses/firstkey/LICENSE", "/usr/share/zsh/site-functions/_firstkey"}
    assert in_rpm - paths_in_deb(deb) == only_rpm
    assert paths_in_deb(deb) - in_rpm == {
        "/usr/share/doc/firstkey/changelog",
        "/usr/share/doc/firstkey/copyright",
        "/usr/share/lintian/overrides/firstkey",
        "/usr/share/python3/runtime.d/firstkey.rtupdate",
        "/usr/share/zsh/vendor-completions/_firstkey",
    }


def test_the_rpm_is_for_every_machine(rpm: Path) -> None:
    """noarch, with what it needs under the names of Fedora, RHEL and Amazon Linux."""
    assert output("rpm", "-qp", "--queryformat", "%{ARCH}", str(rpm)) == "noarch"
    needs = output("rpm", "-qp", "--requires", str(rpm)).splitlines()
    assert {"python3 >= 3.9", "python3-requests", "openssh", "shadow-utils"} <= set(needs)
    assert not [need for need in needs if "python(abi)" in need or "lib64" in need]
    recommended = output("rpm", "-qp", "--recommends", str(rpm)).splitlines()
    assert recommended == ["openssh-server", "python3-daemon", "python3-systemd"]


def test_the_deb_recommends_what_it_can_do_without(deb: Path) -> None:
    """The journal's and the daemon's packages are no dependencies; requests and ssh-keygen are."""
    fields = output("dpkg-deb", "--field", str(deb), "Depends", "Recommends")
    depends, recommends = fields.split("Recommends:")
    assert {"openssh-client", "python3-requests"} <= set(re.findall(r"[a-z0-9-]+", depends))
    assert not {"python3-systemd", "python3-daemon"} & set(re.findall(r"[a-z0-9-]+", depends))
    assert {"python3-systemd", "python3-daemon"} <= set(re.findall(r"[a-z0-9-]+", recommends))


@pytest.mark.skipif(shutil.which("lintian") is None, reason="needs lintian, which is not installed")
def test_lintian_finds_nothing(deb: Path) -> None:
    """In the deb and its source, pedantic tags included; what is overridden has its reason."""
    argv = ["lintian", "--allow-root", "-EvIL", "+pedantic", *map(str, [deb, *deb.parent.glob("*.dsc")])]
    said = [line for line in output(*argv).splitlines() if not line.startswith(("N:", "running with root"))]
    assert said == []
    for overrides in TOP.glob("packaging/debian/**/*lintian-overrides*"):
        lines = ["", *overrides.read_text().splitlines()]
        assert all(line.startswith("#") or before.startswith("#") for before, line in zip(lines, lines[1:]))


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="needs rpmlint, which is not installed")
def test_rpmlint_finds_nothing(rpm: Path, rpm_of_fedora: Path) -> None:
    """In the rpm, built with either's macros, and the spec; what is filtered has its reason."""
    for package in (rpm, rpm_of_fedora):
        # Each version of rpmlint finds something else, so not every filter is used by every one.
        argv = ["rpmlint", "--ignore-unused-rpmlintrc", "-r", str(RPMLINTRC), str(package), str(SPEC)]
        said = output(*argv)
        assert "0 errors, 0 warnings" in said, said
    groups = RPMLINTRC.read_text().split("\n\n")
    assert all(group.startswith("# ") for group in groups)


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_the_same_bytes_each_time(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Package and sources do not depend on where, when, by whom and in which language they are built.

    Nor on a network.
    """
    first: Path = request.getfixturevalue(kind)
    copy = copy_sources(tmp_path / "elsewhere")
    (copy / "agent/firstkey/__pycache__").mkdir()
    (copy / "agent/firstkey/__pycache__/events.cpython-39.pyc").write_bytes(b"left by a run")
    work = tmp_path / "work"
    work.mkdir()
    # What a build needs is there before it begins: it has no network, where that can be taken away.
    offline = ("unshare", "--net") if os.geteuid() == 0 else ()
    elsewhere = {"TMPDIR": str(work), "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    second = build(kind, tmp_path / "out", top=copy, prefix=offline, **elsewhere)
    for path in sorted(first.parent.iterdir()):
        assert (second.parent / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(work.iterdir()), "a build leaves nothing behind"
    assert not (copy / "debian").exists()
