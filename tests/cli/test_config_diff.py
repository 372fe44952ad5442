"""`firstkey config --diff`: what the administrator changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An image whose vendor and administrator both have files."""
    machine = Machine(tmp_path / "root")
    machine.write("/usr/lib/firstkey/firstkey.conf", "[Keys]\nUsers=vendor\n[IMDS]\nTokenTTLSec=60\n")
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
    machine.write("/run/firstkey/firstkey.conf.d/60-same.conf", "[IMDS]\nTokenTTLSec=60\n")
    machine.write("/etc/firstkey/firstkey.conf.d/10-a.conf", "")
    out = machine.firstkey("config", "--diff").out
    lines = "/usr/lib/firstkey/firstkey.conf:2, /etc/firstkey/firstkey.conf.d/50-own.conf:2"
    assert f"[Keys]\n-Users=vendor\n+Users=vendor deploy\n  ({lines})\n" in out
    assert "[User deploy]\n-Create=no\n+Create=yes\n" in out
    assert "-BootTimeoutSec=20\n+BootTimeoutSec=30\n" in out
    assert "TokenTTLSec" not in out
    rows = json.loads(machine.firstkey("config", "--diff", "--json").out)
    assert {row["key"] for row in rows} == {"Users", "Create", "BootTimeoutSec"}
    expected = {"section", "key", "shipped", "value", "default", "origin", "origins", "replaced"}
    assert all(set(row) == expected for row in rows)


def test_a_line_of_the_vendor_that_does_not_count_is_named(machine: Machine) -> None:
    """Where the default is back for want of a vendor's file, no line of the administrator's says so."""
    vendors = "/usr/lib/firstkey/firstkey.conf"
    machine.write(vendors, "[Keys]\nRevoke=never\n")
    machine.configure("[Keys]\nUsers=admin\n")
    mask = machine.path("/etc/firstkey/firstkey.conf.d/10-a.conf")
    mask.parent.mkdir()
    mask.symlink_to("/dev/null")
    out = machine.firstkey("config", "--diff").out
    assert f"-Revoke=never\n+Revoke=previous-instance\n  (default; in place of {vendors}:2)\n" in out
    masked = "/usr/lib/firstkey/firstkey.conf.d/10-a.conf:2"
    assert f"+BootTimeoutSec=30\n  (default; in place of {masked})\n" in out
    rows = json.loads(machine.firstkey("config", "--diff", "--json").out)
    revoke = next(row for row in rows if row["key"] == "Revoke")
    assert (revoke["origin"], revoke["origins"], revoke["replaced"]) == (None, [], [f"{vendors}:2"])


def test_a_named_file_has_none_beside_it(machine: Machine, tmp_path: Path) -> None:
    """--config: the vendor's are not read at all."""
    (tmp_path / "own.conf").write_text("[Keys]\nUsers=admin\n")
    out = machine.firstkey("config", "--diff", "--config", str(tmp_path / "own.conf")).out
    assert (
        "+BootTimeoutSec=30\n  (default; in place of /usr/lib/firstkey/firstkey.conf.d/10-a.conf:2)\n" in out
    )


def test_diff_and_check_exclude_each_other(machine: Machine) -> None:
    """One shows, the other judges."""
    assert machine.firstkey("config", "--diff", "--check").status == 2
