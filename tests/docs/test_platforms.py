"""The tables of platforms in docs/platforms.md and README.md: nothing stands in them that no test holds."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from installed import TOP
from suites import HELD, MOVING, SUITES

PAGE = TOP / "docs/platforms.md"
README = TOP / "README.md"
KINDS = ("boot", "unit tests", "tree", "the rpm", "nothing")
"""What can have been run, as the page explains it."""
VERSIONS = ("openssh", "systemd", "python")


class Row(NamedTuple):
    """A line of the page's table."""

    system: str
    openssh: str
    systemd: str
    python: str
    run: str
    tests: tuple[Path, ...]
    seen: str


def cells(page: Path, heading: str) -> list[list[str]]:
    """The lines of the table that is headed so, without its head."""
    table = re.search(
        rf"^\| {re.escape(heading)} \|.*\n\| -.*\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE
    )
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def row(values: list[str]) -> Row:
    """The line, with its tests as files of the checkout."""
    system, openssh, systemd, python, what, tests, seen = values
    named = tuple(TOP / name for name in re.findall(r"`([^`]+)`", tests))
    return Row(system, openssh, systemd, python, what, named, seen)


ROWS = [row(values) for values in cells(PAGE, "system | OpenSSH")]


def numbers(version: str) -> list[int]:
    """The version, to be compared."""
    return [int(number) for number in version.split(".")]


@pytest.mark.parametrize("found", ROWS, ids=lambda found: found.system)
def test_what_was_run_is_what_a_test_runs(found: Row) -> None:
    """Each test is there, each kind is one that is explained, and the day is one that has been."""
    assert found.run.startswith(KINDS)
    for test in found.tests:
        assert re.search(r"^def test_", test.read_text(), re.MULTILINE), test
    if found.run == "nothing":
        assert (found.tests, found.seen) == ((), "")
        return
    assert found.tests
    assert dt.date.fromisoformat(found.seen) <= dt.datetime.now(dt.timezone.utc).date()
    if "boot" in found.run or "OpenRC" in found.run:
        assert any("pytest.mark.boot" in test.read_text() for test in found.tests)


def test_the_suites_are_those_of_the_matrix() -> None:
    """By their titles and versions; of sid, whose versions only grow, what was seen last."""
    of_suites = {found.system: found for found in ROWS if "unit tests" in found.run}
    assert list(of_suites) == [suite.title for suite in SUITES.values()]
    matrix = {TOP / name.partition("::")[0] for name in HELD.values()}
    for name, suite in SUITES.items():
        found = of_suites[suite.title]
        assert matrix <= set(found.tests)
        for version in VERSIONS:
            said, held = numbers(getattr(found, version)), numbers(getattr(suite, version))
            assert said >= held if name == MOVING else said == held, (name, version)


def test_the_readme_says_the_same_in_short() -> None:
    """The same systems, and what was run on each."""
    said = cells(README, "system | what was run")
    assert [values[:2] for values in said] == [[found.system, found.run] for found in ROWS]
