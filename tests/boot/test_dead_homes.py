"""Homes that hang for ever cost their owners alone (promise 2): the others are served meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dead_homes
import pytest
from machine import AGENT, Run
from private_system import PrivateSystem

from firstkey.metadata.emulator import Emulator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE (/dev/fuse)"),
]

NAMES = ("first", "second", "root")


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[PrivateSystem]:
    """A system with three users."""
    scratch = tmp_path / "system"
    scratch.mkdir()
    with PrivateSystem(scratch) as running:
        for name in NAMES[:2]:
            running.add_user(name)
        running.set_sshd_config("")
        running.configure(f"[Keys]\nUsers={' '.join(NAMES)}\n")
        yield running


@pytest.fixture
def system(healthy: PrivateSystem) -> Iterator[PrivateSystem]:
    """The homes of the first two hang; root's is well."""
    with dead_homes.dead(healthy, *(f"{healthy.homes}/{name}" for name in NAMES[:2])):
        yield healthy


def test_root_is_served_while_two_homes_hang(
    system: PrivateSystem, service: Emulator, launch: str, tmp_path: Path
) -> None:
    """Named first, and still waited for when root has the key; each is told, and the pipe ends."""
    errors = tmp_path / "errors"
    shell = ["sh", "-c", 'exec "$@" 2>"$0"', str(errors), "env", f"PYTHONPATH={AGENT}"]
    argv = [sys.executable, "-m", "firstkey", "run", "--json", "--imds", service.url]
    running = system.start(*shell, *argv)
    answered = served = 0.0
    while running.poll() is None and not served:
        is_answered = "openssh-key" in str(service.requests)
        answered = answered or (time.monotonic() if is_answered else 0.0)
        served = time.monotonic() if system.keys_of("root") == [launch] else 0.0
        time.sleep(0.005)
    print(f"root had the key {served - answered:.2f} s after the answer")
    # Whatever is stuck in the kernel holds no end of the pipe, so this ends.
    out, _ = running.communicate(timeout=60)
    err = errors.read_text()
    assert -1 < err.find("was added to") < err.find("did not answer"), err
    done = Run(running.returncode, out, err)
    assert [user["name"] for user in done.report["users"]] == list(NAMES)
    assert [done.user(name)["reason"] for name in NAMES] == ["timed-out", "timed-out", None]
    assert done.report["outcome"] == "partial"


@pytest.mark.slow
def test_another_instances_keys_in_homes_that_hang_keep_nobody_waiting(
    healthy: PrivateSystem, service: Emulator, launch: str
) -> None:
    """The firmware tells at once that it is another instance; root has the key before that is cleared up."""
    healthy.run("mount", "-t", "tmpfs", "none", "/sys/class")
    healthy.write("/sys/class/dmi/id/board_asset_tag", "i-0000000000000001\n")
    assert healthy.firstkey("run", "--json", service=service).status == 0
    healthy.write("/sys/class/dmi/id/board_asset_tag", "i-0000000000000002\n")
    service.change(instance_id="i-0000000000000002")
    with dead_homes.dead(healthy, *(f"{healthy.homes}/{name}" for name in NAMES[:2])):
        done = healthy.firstkey("run", "--json", service=service)
    assert -1 < done.err.find("of root already") < done.err.find("did not answer"), done.err
    assert done.err.count("did not answer") == 2
    assert [done.user(name)["reason"] for name in NAMES] == ["timed-out", "timed-out", None]
