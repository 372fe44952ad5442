"""The ways in which sshd is started, and who logs in."""

from __future__ import annotations

import pytest
from netlab import wait_until
from scenario import PROMPT, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]


@pytest.mark.parametrize("accept", [False, True], ids=["ssh.service", "ssh@.service"])
def test_a_connection_to_the_socket_waits_for_the_keys(scenario: Scenario, accept: bool) -> None:
    """Port 22 is open from the start, and the first answer comes when the key works."""
    if not (accept or scenario.takes_socket):
        pytest.skip("this sshd takes no socket from systemd")
    scenario.listen_by_socket(accept=accept)
    with scenario.boot() as machine:
        wait_until(lambda: scenario.cloud.is_open(22), seconds=PROMPT, what="the socket")
        early = scenario.cloud.probe(seconds=60)
        wait_until(lambda: machine.show("firstkey", "ActiveState") == "activating", what="firstkey")
        assert not scenario.cloud.has_ssh()
        scenario.cloud.offer(scenario.line)
        said, _ = early.communicate(timeout=60)
        assert said, "the connection that waited was not served"
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"
        assert [entry["MESSAGE"] for entry in machine.journal if "cycle" in str(entry["MESSAGE"])] == []


def test_a_created_user_with_sudo(scenario: Scenario) -> None:
    """Users= names somebody who is not there: made, let in, and allowed what the section says."""
    scenario.configure(
        "[Keys]\nUsers=\nUsers=deploy\n"
        "[User deploy]\nCreate=yes\nGroups=adm\nShell=/bin/bash\nSudo=ALL=(ALL) NOPASSWD: ALL\n"
    )
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login("sudo", "-n", "id", "-un", user="deploy", on=machine).out == "root\n"
        assert "adm" in scenario.login("id", "-Gn", user="deploy").out.split()
        # From within the unit's sandbox, sudo could be asked.
        assert [entry for entry in machine.journal if "now lets deploy use sudo" in str(entry["MESSAGE"])]
        assert scenario.login(user="root").is_refused
        assert machine.wait_until_booted() == "running"


def test_where_sshd_looks_for_keys_is_where_they_go(scenario: Scenario) -> None:
    """Sshd's own configuration decides, Include and all."""
    scenario.disk.write(
        "/etc/ssh/sshd_config.d/50-keys.conf",
        "AuthorizedKeysFile /etc/ssh/keys/%u\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
    )
    scenario.cloud.offer(scenario.line)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert machine.wait_until_booted() == "running"
    assert scenario.disk.path("/etc/ssh/keys/root").read_text().startswith(scenario.line)
    assert list(scenario.host_keys()) == ["ssh_host_ed25519_key.pub"]
