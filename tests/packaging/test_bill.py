"""The bill of materials: valid for SPDX's own tools, and telling of the same things as the packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from installed import TOP, Installed

import firstkey
from generator import bill

PATH = "/usr/share/firstkey/firstkey.spdx.json"


@pytest.fixture
def document(installed: Installed) -> dict[str, Any]:
    """What the installer put into the tree."""
    found: dict[str, Any] = json.loads(installed.path(PATH).read_text())
    return found


def judged(file: Path) -> subprocess.CompletedProcess[str]:
    """What SPDX's own validator says, in a process of its own: it warns of its own libraries."""
    program = "import sys; from spdx_tools.spdx.clitools.pyspdxtools import main; sys.exit(main())"
    argv = [sys.executable, "-W", "ignore", "-c", program, "--infile", str(file), "--version", "SPDX-2.3"]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_spdx_finds_it_valid(installed: Installed) -> None:
    """By the reference implementation."""
    pytest.importorskip("spdx_tools", reason="needs spdx-tools, which is not installed")
    done = judged(installed.path(PATH))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_mistake_would_be_found(document: dict[str, Any], tmp_path: Path) -> None:
    """The test above sees mistakes: a licence that is none, and a relationship to nothing."""
    pytest.importorskip("spdx_tools", reason="needs spdx-tools, which is not installed")
    document["packages"][1]["licenseDeclared"] = "No-Such-Licence"
    document["relationships"][-1]["relatedSpdxElement"] = "SPDXRef-nothing"
    file = tmp_path / "bad.spdx.json"
    file.write_text(json.dumps(document))
    said = judged(file)
    assert said.returncode != 0
    assert "No-Such-Licence" in said.stdout + said.stderr
    assert "SPDXRef-nothing" in said.stdout + said.stderr


@pytest.mark.slow
def test_it_describes_this_version(document: dict[str, Any]) -> None:
    """By its number, with everything else related to it."""
    [itself] = [package for package in document["packages"] if package["name"] == "firstkey"]
    assert itself["versionInfo"] == firstkey.__version__
    others = {package["SPDXID"] for package in document["packages"]} - {itself["SPDXID"]}
    ends = [(link["spdxElementId"], link["relatedSpdxElement"]) for link in document["relationships"]]
    related = {end for link in ends for end in link if itself["SPDXID"] in link}
    assert others <= related


@cache
def project() -> dict[str, Any]:
    """The [project] table."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11, which reads pyproject.toml")
    found: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return found


def test_the_versions_are_those_of_the_project() -> None:
    """Each requirement is on the bill with its bounds, as needed or as optional."""
    extras = project()["optional-dependencies"]
    listed = {
        f"{component.purl.partition('pypi/')[2]}{component.versions}": component.is_needed
        for component in bill.COMPONENTS
        if "pypi/" in component.purl
    }
    assert [name for name, needed in listed.items() if needed] == project()["dependencies"]
    optional = [name for name, needed in listed.items() if not needed]
    assert optional == [*extras["journal"], *extras["daemon"]]
    [python] = [component for component in bill.COMPONENTS if component.name == "Python"]
    assert python.versions == project()["requires-python"]


def test_every_requirement_is_bounded() -> None:
    """From below by what is known to work, and from above where a later one may differ."""
    extras = project()["optional-dependencies"].values()
    requirements = [*project()["dependencies"], *(requirement for extra in extras for requirement in extra)]
    assert [text for text in requirements if not re.search(r">=[\d.]+,<[\d.]+$", text)] == []


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_the_packages_depend_on_the_same(kind: str) -> None:
    """What is on the bill is what the package asks for, and the other way round."""
    needed, optional = asked_for(kind)
    listed = {getattr(component, kind): component.is_needed for component in bill.COMPONENTS}
    assert {name for name, is_needed in listed.items() if is_needed} == needed
    assert {name for name, is_needed in listed.items() if not is_needed} == optional


def asked_for(kind: str) -> tuple[set[str], set[str]]:
    """The names of the packages that the deb or the rpm depends on, and those that it can do without."""
    if kind == "rpm":
        spec = (TOP / "packaging/rpm/firstkey.spec").read_text()
        needs = re.findall(r"(?m)^Requires: +(\S+)", spec)
        return set(needs), set(re.findall(r"(?m)^(?:Recommends|Suggests): +(\S+)", spec))
    control = (TOP / "packaging/debian/control").read_text().split("\n\n")[1]
    fields = dict(re.findall(r"(?ms)^(\w+):(.*?)(?=^\w|\Z)", control))
    # Of alternatives the first: sid has ssh-keygen in a package of its own.
    firsts = {name: re.sub(r"\|[^,]*", "", value) for name, value in fields.items()}
    words = {name: set(re.findall(r"(?<![\w$({:])[a-z][a-z0-9-]+", value)) for name, value in firsts.items()}
    return words["Depends"], words["Recommends"] | words["Suggests"]


def written(epoch: str) -> str:
    """What the generator writes at this SOURCE_DATE_EPOCH."""
    argv = [sys.executable, "-BIS", str(TOP / "packaging/generate.py"), "firstkey.spdx.json"]
    environ = {"SOURCE_DATE_EPOCH": epoch}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=environ).stdout


@pytest.mark.slow
def test_the_same_sources_have_the_same_bill() -> None:
    """Byte for byte at the same SOURCE_DATE_EPOCH; at another time only time and name differ."""
    texts = [written(epoch) for epoch in ("1700000000", "1700000000", "1800000000")]
    assert texts[0] == texts[1]
    assert "2023-11-14T22:13:20Z" in texts[0]
    changed = [one for one, other in zip(texts[0].splitlines(), texts[2].splitlines()) if one != other]
    assert [line.split('"')[1] for line in changed] == ["created", "documentNamespace"]
