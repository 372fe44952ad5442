"""`firstkey config`: which settings hold, and who says so, on a system and on any tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import Machine

BAD_CONFIG = 78
ADMIN = "[Keys]\nUsers=admin\n"


def test_each_setting_tells_where_it_comes_from(machine: Machine) -> None:
    """File and line, the command line, or the default; what is printed can be read back as a file."""
    machine.configure("[Keys]\n# a comment\nUsers=admin\n")
    out = machine.firstkey("config", "--imds", "http://127.0.0.1:1338").out

    assert "# /etc/firstkey/firstkey.conf:3\nUsers=admin\n" in out
    assert "# --imds on the command line\nEndpoints=http://127.0.0.1:1338\n" in out
    assert "# default\nVersion=auto\n" in out
    machine.configure(out)
    again = machine.firstkey("config")
    assert (again.status, again.err) == (0, "")
    assert values(again.out) == values(out)


def test_a_list_tells_every_line_that_it_adds_up_from(machine: Machine) -> None:
    """In all files; what an empty assignment took back is none of them."""
    machine.configure("[Keys]\nUsers=gone\nUsers=\nUsers=alice\n[IMDS]\nVersion=2\n")
    machine.write("/etc/firstkey/firstkey.conf.d/50-b.conf", "[Keys]\nUsers=bob\n[IMDS]\nVersion=1\n")
    lines = ["/etc/firstkey/firstkey.conf:4", "/etc/firstkey/firstkey.conf.d/50-b.conf:2"]
    out = machine.firstkey("config").out
    assert f"# {', '.join(lines)}\nUsers=alice bob\n" in out
    assert "# /etc/firstkey/firstkey.conf.d/50-b.conf:4\nVersion=1\n" in out
    rows = json.loads(machine.firstkey("config", "--json").out)["settings"]
    users = next(row for row in rows if row["key"] == "Users")
    assert (users["origin"], users["origins"]) == (lines[-1], lines)


def values(text: str) -> list[str]:
    """The assignments alone."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_programs_get_the_same(machine: Machine) -> None:
    """--json: value, default and origin of each, and the warnings beside them."""
    machine.configure(f"{ADMIN}Nonsense=1\n")
    done = machine.firstkey("config", "--json")
    found = json.loads(done.out)
    users = next(row for row in found["settings"] if row["key"] == "Users")

    assert users == {
        "section": "Keys", "key": "Users", "value": "admin", "default": "root",
        "origin": "/etc/firstkey/firstkey.conf:2", "origins": ["/etc/firstkey/firstkey.conf:2"],
    }  # fmt: skip
    (warning,) = found["warnings"]
    assert warning.startswith(
        "/etc/firstkey/firstkey.conf:3: [Keys] has no setting 'Nonsense' (there are Users"
    )
    assert done.status == 0


@pytest.mark.parametrize(
    "text, status", [(ADMIN, 0), (f"{ADMIN}Nonsense=1\n", BAD_CONFIG), ("[Ke", BAD_CONFIG)]
)
def test_check_turns_warnings_into_an_error(machine: Machine, text: str, status: int) -> None:
    """For CI: nothing on standard output, each mistake with its line, and exit 78."""
    machine.configure(text)
    done = machine.firstkey("config", "--check")
    assert (done.status, done.out) == (status, "")
    assert ("firstkey.conf:" in done.err) is (status != 0)


def test_a_file_that_is_named_stands_alone(machine: Machine, tmp_path: Path) -> None:
    """--config: in place of the system's, drop-ins too; a relative path is the caller's."""
    (tmp_path / "own.conf").write_text("[Keys]\nUsers=own\n")
    done = machine.firstkey("config", "--config", str(tmp_path / "own.conf"))
    assert f"# {tmp_path}/own.conf:2\nUsers=own\n" in done.out


@pytest.mark.parametrize("command", ["config", "status", "host-keys", "run", "keys"])
@pytest.mark.parametrize("name", ["absent.conf", "directory"])
def test_a_named_file_that_cannot_be_read_is_an_error(
    machine: Machine, tmp_path: Path, command: str, name: str
) -> None:
    """Exit 78 with the path and what to do, before anything is done."""
    (tmp_path / "directory").mkdir()
    before = machine.snapshot()
    done = machine.firstkey(command, "--config", str(tmp_path / name))

    assert (done.status, done.out) == (BAD_CONFIG, "")
    assert str(tmp_path / name) in done.err
    assert "What to do: Give --config the path of a file that you can read." in done.err
    assert machine.snapshot() == before


def test_links_in_a_tree_do_not_lead_out_of_it(machine: Machine, tmp_path: Path) -> None:
    """An absolute link is one inside the tree, to a directory, a file or a drop-in."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "own.conf").write_text("[Keys]\nUsers=outsider\n")
    machine.path("/etc/firstkey/firstkey.conf").unlink()
    machine.path("/etc/firstkey/firstkey.conf").symlink_to(outside / "own.conf")
    machine.path("/etc/firstkey/firstkey.conf.d").symlink_to(outside)
    assert "outsider" not in machine.firstkey("config").out

    machine.write(str(outside / "own.conf"), "[Keys]\nUsers=insider\n")
    assert "Users=insider" in machine.firstkey("config").out


@pytest.mark.parametrize("options", [(), ("--diff",), ("--check",), ("--config", "/absent\x1b[2J\n[Keys]")])
def test_no_name_of_a_file_acts_on_the_terminal(machine: Machine, options: tuple[str, ...]) -> None:
    """Nor forges a line: an image's drop-in may be called anything."""
    machine.write("/etc/firstkey/firstkey.conf.d/a\x1b[2J\n[Keys]\nUsers=evil.conf", "[Keys]\nUsers=b\nX=y\n")
    done = machine.firstkey("config", *options)
    assert "\\x1b[2J" in done.out + done.err
    assert all(line.isprintable() for line in (done.out + done.err).split("\n"))
    assert "Users=evil" not in done.out.split("\n")
