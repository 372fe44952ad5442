"""`firstkey config --diff`, and suggestions for what was mistyped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An image whose vendor and administrator both have files."""
    machine = Machine(tmp_path / "root")
    machine.write("/usr/lib/firstkey/firstkey.conf", "[Keys]\nUsers=vendor\n[Watch]\nIntervalSec=60\n")
    machine.write("/usr/lib/firstkey/firstkey.conf.d/10-a.conf", "[IMDS]\nBootTimeoutSec=20\n")
    machine.path("/etc/firstkey/firstkey.conf").unlink()
    return machine


def test_what_was_shipped_differs_from_nothing(machine: Machine) -> None:
    """The vendor's own settings are no changes, whatever the defaults are."""
    done = machine.firstkey("config", "--diff")
    assert (done.status, done.out) == (0, "Nothing differs from what was shipped.\n")
    assert json.loads(machine.firstkey("config", "--diff", "--json").out) == []


def test_each_change_has_both_values_and_its_line(machine: Machine) -> None:
    """Drop-ins, users' sections and masked vendor files count; what was set to the same does not."""
    machine.write(
        "/etc/firstkey/firstkey.conf.d/50-own.conf", "[Keys]\nUsers=deploy\n[User deploy]\nCreate=yes\n"
    )
    machine.write("/run/firstkey/firstkey.conf.d/60-same.conf", "[Watch]\nIntervalSec=60\n")
    machine.write("/etc/firstkey/firstkey.conf.d/10-a.conf", "")
    out = machine.firstkey("config", "--diff").out
    assert (
        "[Keys]\n-Users=vendor\n+Users=vendor deploy\n  (/etc/firstkey/firstkey.conf.d/50-own.conf:2)\n"
        in out
    )
    assert "[User deploy]\n-Create=no\n+Create=yes\n" in out
    assert "-BootTimeoutSec=20\n+BootTimeoutSec=30\n" in out
    assert "IntervalSec" not in out
    rows = json.loads(machine.firstkey("config", "--diff", "--json").out)
    assert {row["key"] for row in rows} == {"Users", "Create", "BootTimeoutSec"}
    assert all(set(row) == {"section", "key", "shipped", "value", "origin"} for row in rows)


def test_diff_and_check_exclude_each_other(machine: Machine) -> None:
    """One shows, the other judges."""
    assert machine.firstkey("config", "--diff", "--check").status == 2


@pytest.mark.parametrize(
    "argv,meant",
    [
        (("run", "--frce"), "--force"),
        (("run", "--dryrun"), "--dry-run"),
        (("doctor", "--form=1.2.3.4"), "--from"),
        (("config", "--chek", "--dif"), "--check --diff"),
    ],
)
def test_a_mistyped_option_is_suggested(machine: Machine, argv: tuple[str, ...], meant: str) -> None:
    """With exit status 2, and nothing done."""
    done = machine.firstkey(*argv)
    assert done.status == 2
    assert f"(did you mean {meant}?)" in done.err


def test_what_resembles_nothing_is_not_guessed(machine: Machine) -> None:
    """No suggestion is better than a wrong one."""
    done = machine.firstkey("config", "--zzzzzz")
    assert done.status == 2
    assert "did you mean" not in done.err
