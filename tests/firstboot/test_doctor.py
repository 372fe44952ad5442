"""The doctor on machines that systemd booted: the distribution's own units, PAM rules and journal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bootlab import Machine
from netlab import run, wait_until
from scenario import Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

ROUNDS = 4


def ask(machine: Machine) -> dict[str, Any]:
    """What the doctor says of root."""
    said = machine.inside("firstkey", "doctor", "--json", "--user", "root", check=False)
    found: dict[str, Any] = json.loads(said)["users"][0]
    return found


def obstacles(said: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that it names."""
    return [finding for finding in said["findings"] if finding["status"] == "obstacle"]


OLD_LINE = (
    "sed -i '1i DenyUsers root' /etc/ssh/sshd_config; systemctl restart ssh; sed -i 1d /etc/ssh/sshd_config"
)
TWO_LINES = (
    "printf 'MaxSessions 0\\nMaxAuthTries 0\\n' > /etc/ssh/sshd_config.d/a.conf; systemctl restart ssh"
)


@pytest.mark.parametrize(
    "harm,reason",
    [
        ("systemctl mask --now ssh", "sshd-not-running"),
        ("systemctl mask --runtime --now ssh", "sshd-not-running"),
        ("systemctl disable --now ssh", "sshd-not-running"),
        (OLD_LINE, "sshd-disagrees"),
        (TWO_LINES, "session-limit"),
    ],
    ids=["masked", "masked until the next boot", "disabled", "an old line in force", "no sessions"],
)
def test_what_is_pasted_lets_the_key_in_again(scenario: Scenario, harm: str, reason: str) -> None:
    """The doctor has no complaint of a system as it is shipped; then it is harmed, and its remedies help."""
    scenario.cloud.offer(scenario.line)
    scenario.configure("[HostKeys]\nBackground=\n")  # else sshd is reloaded when the last one is there
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert machine.wait_until_booted() == "running"
        assert ask(machine)["verdict"] == "open"
        machine.inside("sh", "-c", harm)
        assert scenario.login(on=machine).status != 0
        said = ask(machine)
        assert obstacles(said)[0]["reason"] == reason, said
        for _ in range(ROUNDS):
            first = next(iter(obstacles(said)), None)
            if first is None:
                break
            assert first["is_command"]
            machine.inside("sh", "-ec", first["remedy"])
            machine.wait_for_ssh()
            said = ask(machine)
        wait_until(lambda: scenario.login(on=machine).status == 0, what="a login")
        assert ask(machine)["verdict"] == "open"


def test_what_is_pasted_for_a_tree_works_on_the_tree(scenario: Scenario, tmp_path: Path) -> None:
    """An image that nobody booted: each command works on its files, and on nothing of this machine."""
    root, disk = scenario.disk.root, scenario.disk
    key = tmp_path / "launch.pub"
    key.write_text(f"{scenario.line}\n")
    disk.write("/etc/ssh/sshd_config.d/a.conf", "AllowUsers bob\nMaxSessions 0\n")
    (root / "root").chmod(0o777)
    disk.write("/etc/nologin", "closed\n")
    argv = (
        "doctor",
        "--json",
        "--root",
        str(root),
        "--user",
        "root",
        "--key",
        str(key),
        "--from",
        "192.0.2.1",
    )
    seen = []
    for _ in range(8):
        said = json.loads(run(sys.executable, "-m", "firstkey", *argv, check=False))["users"][0]
        first = next(iter(obstacles(said)), None)
        if first is None:
            break
        seen.append(first["reason"])
        assert first["is_command"], first
        assert str(root) in first["remedy"]
        run("sh", "-ec", first["remedy"])
    assert said["verdict"] == "open"
    assert seen == ["user-not-allowed", "key-not-installed", "bad-modes", "session-limit"]
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
