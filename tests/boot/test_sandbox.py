"""What the unit's sandbox keeps firstkey from: asked of systemd, and said where somebody can see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from machine import Machine, World
from manager import Manager

from firstkey import events, reasons
from firstkey.boot import sandbox

BAD_CONFIG = 78
OTHER = "http://192.0.2.1:8080"
SHIPPED = """\
IPAddressAllow=127.0.0.0/8 ::1/128 169.254.169.254/32 fd00:ec2::254/128
IPAddressDeny=0.0.0.0/0 ::/0
"""
"""As `systemctl show` of systemd 252 prints it."""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which prints what is in this file and counts its calls in the next."""
    programs = tmp_path / "programs"
    programs.mkdir()
    said = tmp_path / "said"
    said.write_text(SHIPPED)
    script = f'#!/bin/sh\necho "$@" >>"{tmp_path}/calls"\ncat "{said}"\n'
    (programs / "systemctl").write_text(script)
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return said


@pytest.mark.parametrize(
    "said, kept_out",
    [
        (SHIPPED, ["http://192.0.2.1", "http://[2001:db8::1]:80"]),
        (SHIPPED.replace("=127", "=192.0.2.0/24 2001:db8::/32 127"), []),
        (SHIPPED.replace("=127", "=2001:db8::1/128 127"), ["http://192.0.2.1"]),
        ("IPAddressAllow=\nIPAddressDeny=\n", []),
        ("IPAddressAllow=\nIPAddressDeny=0.0.0.0/0\n", ["http://192.0.2.1"]),
        ("", []),
    ],
)
def test_what_systemd_says_counts(said: str, kept_out: list[str], systemctl: Path) -> None:
    """Kept out is what is denied and not allowed, by the unit and its drop-ins together."""
    systemctl.write_text(said)
    usual = ["http://169.254.169.254", "http://[fd00:ec2::254]", "http://127.0.0.7:1", "http://[::1]"]
    others = ["http://192.0.2.1", "http://[2001:db8::1]:80"]
    assert sandbox.kept_out([*usual, *others]) == kept_out


def test_the_usual_endpoints_cost_nothing(systemctl: Path) -> None:
    """No program is started for what the shipped unit lets through."""
    assert sandbox.kept_out(["http://169.254.169.254", "http://[fd00:ec2::254]", "http://127.0.0.1:80"]) == []
    assert not (systemctl.parent / "calls").exists()
    sandbox.kept_out([OTHER])
    assert (systemctl.parent / "calls").exists()


def test_without_systemd_nothing_is_kept_out(systemctl: Path) -> None:
    """A systemctl that fails (no systemd runs here), or hangs, tells nothing and stops nothing."""
    for body in ("exit 1", "exec sleep 60"):
        (systemctl.parent / "programs/systemctl").write_text(f"#!/bin/sh\n{body}\n")
        assert sandbox.kept_out([OTHER]) == []


def test_the_daemon_says_it(world: World, systemctl: Path, tmp_path: Path) -> None:
    """A warning that names the drop-in, once, and only where systemd's sandbox counts."""
    endpoints = f"[IMDS]\nEndpoints={world.service.url} {OTHER}\n"
    world.machine.configure(f"[Keys]\nUsers={world.machine.user}\n{endpoints}")
    path = os.environ["PATH"]
    with Manager(tmp_path) as manager:
        by_systemd = world.machine.firstkey("daemon", PATH=path, NOTIFY_SOCKET=manager.address)
    warning = events.ENDPOINT_KEPT_OUT(endpoint=OTHER, reason=reasons.ENDPOINT_KEPT_OUT.code)
    assert by_systemd.status == 0
    assert by_systemd.err.count(warning.message) == 1
    assert "systemctl edit firstkey.service, with IPAddressAllow=" in warning.message
    by_hand = world.machine.firstkey("daemon", PATH=path)
    assert warning.sentence not in by_hand.err


def test_the_check_of_the_configuration_finds_it(systemctl: Path, machine: Machine, tmp_path: Path) -> None:
    """Before the boot that would go without keys; of a tree elsewhere, nobody knows the unit."""
    file = machine.write("/config", f"[IMDS]\nEndpoints={OTHER}\n")
    checks = ("config", "--check", "--config", str(file))
    path = os.environ["PATH"]
    here = machine.firstkey(*checks, "--root", "/", PATH=path)
    assert here.status == BAD_CONFIG
    assert f"{file}:2: Endpoints={OTHER} is out of reach" in here.err
    assert "IPAddressAllow=ADDRESS" in here.err
    assert machine.firstkey(*checks, PATH=path).status == 0
    systemctl.write_text(SHIPPED.replace("=127", "=192.0.2.0/24 127"))
    assert machine.firstkey(*checks, "--root", "/", PATH=path).status == 0
