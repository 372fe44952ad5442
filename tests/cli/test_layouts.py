"""Systems that are laid out unlike Debian and Fedora, as trees: all commands find their way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from layouts import LAYOUTS, Layout
from machine import Machine

from firstkey.metadata.emulator import Emulator, Settings

of_each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


@pytest.fixture
def service(keys: dict[str, str]) -> Iterator[Emulator]:
    """A metadata service with one launch key."""
    settings = Settings(instance_id="i-0000000000000001", keys=(("launch", keys["ed25519"]),))
    with Emulator(settings) as started:
        yield started


@of_each_layout
@pytest.mark.sample(5)
def test_a_run_writes_where_the_systems_own_sshd_reads(
    layout: Layout, tmp_path: Path, service: Emulator, keys: dict[str, str]
) -> None:
    """Launch keys and host keys; the doctor then finds nothing that a tree could show in the way."""
    machine = layout.grow(tmp_path / "root")
    ended = machine.run(service)
    assert (ended.status, ended.report["outcome"]) == (0, "ok"), ended.err
    assert machine.path(layout.launch_keys).read_text() == f"{keys['ed25519']}\n"
    (key,) = ended.report["host_keys"]
    assert key["file"] == f"{layout.host_keys}/ssh_host_ed25519_key"
    assert machine.path(key["file"]).exists()
    found = machine.firstkey("doctor", service=service)
    assert found.status == 0, found.out


@of_each_layout
@pytest.mark.sample(5)
def test_what_a_builder_left_is_found_and_sealed(layout: Layout, tmp_path: Path) -> None:
    """In the usual places and in those of the layout; a clean tree is fit to share before and after."""
    machine = layout.grow(tmp_path / "root")
    assert audited(machine, status=0) == set()
    (tmp_path / "builder").mkdir()
    left = layout.leave(machine, tmp_path / "builder")
    assert left <= audited(machine, status=1)
    sealed = machine.firstkey("seal")
    assert sealed.status == 0, sealed.out
    assert audited(machine, status=0) == set()


def audited(machine: Machine, *, status: int) -> set[tuple[str, str]]:
    """Each rule and path that an audit finds fault with."""
    ended = machine.firstkey("audit", "--json")
    assert ended.status == status, ended.out
    found: dict[str, Any] = json.loads(ended.out)
    return {
        (rule["id"], finding["path"])
        for rule in found["rules"]
        for finding in rule["findings"]
        if finding["severity"] in ("error", "warning")
    }


@of_each_layout
@pytest.mark.sample(3)
def test_an_account_is_made_or_it_is_said_why_not(layout: Layout, tmp_path: Path, service: Emulator) -> None:
    """Whose passwords are in files that firstkey does not write waits for the system's own useradd."""
    machine = layout.grow(tmp_path / "root")
    machine.configure("[Keys]\nUsers=root deploy\n[User deploy]\nCreate=yes\n[HostKeys]\nTypes=ed25519\n")
    ended = machine.run(service)
    assert ended.user("root")["result"] == "changed"
    is_made = "deploy:" in machine.path("/etc/passwd").read_text()
    assert is_made is (layout.name != "ALT")
    if not is_made:
        assert (ended.status, ended.user("deploy")["reason"]) == (1, "user-create-failed")
        assert "below /etc/tcb, and only its own useradd writes there" in ended.err


@pytest.mark.parametrize("command", ["run", "host-keys", "doctor", "audit", "seal", "status"])
def test_a_commit_of_ostree_is_refused_at_the_start(command: str, tmp_path: Path) -> None:
    """Its /etc is in /usr/etc: what is written to /etc, no deployment of it ever has."""
    machine = Machine(tmp_path / "root")
    machine.path("/usr").mkdir()
    machine.path("/etc").rename(machine.path("/usr/etc"))
    before = machine.snapshot()
    ended = machine.firstkey(command)
    assert (ended.status, ended.out) == (2, "")
    assert "is a commit of ostree's, which has no /etc" in ended.err
    assert machine.snapshot() == before


def test_a_home_that_comes_at_boot_is_no_fault_of_the_image(tmp_path: Path, service: Emulator) -> None:
    """/root of an ostree image leads to where systemd-tmpfiles makes it: a reason of its own."""
    (layout,) = (layout for layout in LAYOUTS if layout.name == "ostree")
    machine = layout.grow(tmp_path / "root")
    machine.path("/var/roothome").rmdir()
    assert audited(machine, status=0) == set()
    ended = machine.run(service)
    assert (ended.status, ended.user("root")["reason"]) == (1, "home-missing")
    assert "/root" in ended.user("root")["detail"]


def test_a_commit_of_ostree_is_not_fit(tmp_path: Path) -> None:
    """Its /etc is in /usr/etc, and nothing of what is there counts as accounts: nothing is proved."""
    (layout,) = (layout for layout in LAYOUTS if layout.name == "ostree")
    machine = layout.grow(tmp_path / "root")
    machine.path("/etc/passwd").rename(machine.path("/usr/etc/passwd"))
    machine.path("/etc/shadow").rename(machine.path("/usr/etc/shadow"))
    ended = machine.firstkey("audit", "--rule", "root-password")
    assert ended.status == 1
    assert "this is not the root of a system (ostree: see its deployments)" in ended.out


def test_without_systemd_it_is_said_how_firstkey_is_started(tmp_path: Path) -> None:
    """Not in a unit that nothing reads."""
    (layout,) = (layout for layout in LAYOUTS if layout.name == "Alpine")
    machine = layout.grow(tmp_path / "root")
    machine.path("/etc/runlevels/default/firstkey").unlink()
    machine.write(
        "/usr/lib/systemd/system/firstkey.service", "[Service]\nExecStart=/usr/bin/firstkey daemon\n"
    )
    ended = machine.firstkey("audit", "--rule", "key-installer")
    assert ended.status == 1
    assert "Have OpenRC start firstkey, by the script of docs/platforms.md" in ended.out


@pytest.mark.parametrize("name", ["openSUSE", "ALT", "Alpine"])
@pytest.mark.sample(3)
def test_what_starts_sshd_makes_host_keys_too(name: str, tmp_path: Path) -> None:
    """Of images without firstkey: by ExecStartPre= of sshd's unit, or in the script of OpenRC's."""
    (layout,) = (layout for layout in LAYOUTS if layout.name == name)
    machine = layout.grow(tmp_path / "root")
    machine.path("/usr/bin/firstkey").unlink()
    assert machine.firstkey("audit", "--rule", "host-key-maker").status == 0
    assert machine.firstkey("audit", "--rule", "key-installer").status == 1
    for link in machine.path("/etc").glob("*/*/sshd*"):
        link.unlink()
    for link in machine.path("/etc").glob("systemd/system/*/sshd*"):
        link.unlink()
    assert machine.firstkey("audit", "--rule", "host-key-maker").status == 1
