"""sshd does not wait for the RSA host key, and shows it once it is there: each way in which sshd is run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from bootlab import Machine
from hostkeys import matches
from netlab import end, run, wait_until
from scenario import BACKGROUND, PROMPT, Scenario

pytestmark = [pytest.mark.root, pytest.mark.boot]

RSA = "/etc/ssh/ssh_host_rsa_key"
KEYGEN = """\
#!/bin/sh
case "$*" in
*"-t rsa"*) while ! [ -e /run/rsa-may-come ] && ! [ -e /etc/rsa-may-come ]; do sleep 0.05; done;;
*"-t "*hostkeys* | *"-A "*hostkeys*) ! [ -e /etc/only-rsa ] || { echo "not in this mode" >&2; exit 1; };;
esac
exec /usr/bin/ssh-keygen "$@"
"""
"""An RSA key is done when the test says so, and with a word in /etc none of another type is made."""
SCHED_IDLE = "5"
KNOCKING = """
import json, signal, socket, sys, time
refused, since, longest, count, asked = 0, None, 0.0, 0, []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print("ready", flush=True)
while not asked:
    count += 1
    try:
        socket.create_connection((sys.argv[1], 22), 5).close()
        longest, since = max(longest, time.monotonic() - since if since else 0.0), None
    except ConnectionRefusedError:
        refused, since = refused + 1, since or time.monotonic()
    time.sleep(0.001)
print(json.dumps({"refused": refused, "longest": longest, "count": count, "open": since is not None}))
"""


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """One whose RSA keys take as long as the test wants, with a launch key to be had."""
    scenario.disk.write("/usr/local/bin/ssh-keygen", KEYGEN, mode=0o755)
    scenario.cloud.offer(scenario.line)
    return scenario


def policy(machine: Machine) -> str:
    """By which the kernel lets the RSA key be made (proc(5), /proc/PID/stat: field 41)."""
    (pid, *_) = machine.inside("pgrep", "-f", "--", "-t rsa").split()
    return machine.inside("cat", f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[38]


def finish(machine: Machine) -> None:
    """Let the RSA key be done, and wait for the end of the daemon's work."""
    machine.inside("touch", "/run/rsa-may-come")
    wait_until(lambda: machine.show("firstkey", "SubState") == "exited", seconds=60, what="the daemon's end")


def again(machine: Machine) -> None:
    """Take the RSA key away and start firstkey anew: it is ready, and the key is being made."""
    machine.inside("rm", "-f", RSA, f"{RSA}.pub", "/run/rsa-may-come")
    machine.inside("systemctl", "restart", "firstkey")


def shown(scenario: Scenario) -> set[str]:
    """The types of host keys that a client sees."""
    argv = ["ssh-keyscan", "-T", "10", scenario.cloud.machine_address]
    process = scenario.cloud.start(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, _ = process.communicate(timeout=60)
    return {line.split()[1].decode() for line in said.splitlines()}


@contextmanager
def session(scenario: Scenario, machine: Machine) -> Iterator[None]:
    """A login from before, which has to be the same one at the end of the block."""
    script = "echo $PPID >/run/began; while ! [ -e /run/may-end ]; do sleep 0.05; done; echo survived"
    with ThreadPoolExecutor(1) as pool:
        login = pool.submit(scenario.login, script)
        try:
            wait_until(lambda: machine.inside("ls", "/run").count("began"), seconds=PROMPT, what="the login")
            yield
        finally:
            machine.inside("touch", "/run/may-end")
        assert login.result(60).out == "survived\n"


@contextmanager
def knocking(scenario: Scenario) -> Iterator[dict[str, float]]:
    """A client that connects all the time; what it met is there after the block."""
    argv = [sys.executable, "-I", "-S", "-c", KNOCKING, scenario.cloud.machine_address]
    process = scenario.cloud.start(argv, stdout=subprocess.PIPE)
    met: dict[str, float] = {}
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield met
        process.terminate()
        said, _ = process.communicate(timeout=60)
        met.update(json.loads(said))
    finally:
        end(process)


MAKER = """\
[Unit]
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ssh-keygen -A

[Install]
WantedBy=ssh.service
"""
"""As Debian 13 has it for a first boot, and without a condition of its own."""


def test_the_distributions_own_maker_of_host_keys_does_not_hold_sshd(scenario: Scenario) -> None:
    """It is ordered between firstkey and sshd, and would make the key for which sshd does not wait."""
    scenario.disk.write("/etc/systemd/system/sshd-keygen.service", MAKER)
    run("systemctl", f"--root={scenario.disk.root}", "--quiet", "reenable", "sshd-keygen.service")
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert "ssh-rsa" not in shown(scenario)
        assert machine.show("sshd-keygen", "ConditionResult") == "no"
        finish(machine)
        wait_until(lambda: "ssh-rsa" in shown(scenario), seconds=BACKGROUND, what="the key")
        assert machine.inside("systemctl", "start", "sshd-keygen.service") == ""
        assert machine.show("sshd-keygen", "ConditionResult") == "yes"


def test_a_running_sshd_takes_the_key_by_its_own_reload(scenario: Scenario) -> None:
    """A configuration that broke meanwhile leaves it as it is; sessions survive, and the gap is short."""
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert "ssh-rsa" not in shown(scenario)
        assert scenario.login().status == 0
        (key,) = (key for key in machine.report["host_keys"] if key["type"] == "rsa")
        assert (key["result"], key["reason"]) == ("skipped", "host-key-pending")
        assert "being generated in the background" in machine.inside("firstkey", "status")
        assert "BEGIN SSH HOST KEY" not in machine.console
        assert policy(machine) == SCHED_IDLE
        pid = machine.show("ssh", "MainPID")

        machine.inside("sh", "-c", "echo Nonsense yes >/etc/ssh/sshd_config.d/broken.conf")
        finish(machine)
        assert machine.show("ssh", "MainPID") == pid
        [logged] = machine.events("host-key-not-loaded")
        assert (logged["FIRSTKEY_SSHD"], logged["FIRSTKEY_REASON"]) == ("ssh.service", "sshd-config-invalid")
        assert "sshd -t Then: systemctl reload ssh.service" in logged["MESSAGE"]
        assert machine.events("sshd-reloaded") == []
        assert scenario.login(on=machine).status == 0
        machine.inside("rm", "/etc/ssh/sshd_config.d/broken.conf")

        again(machine)
        with session(scenario, machine), knocking(scenario) as met:
            finish(machine)
            wait_until(lambda: machine.events("sshd-reloaded"), seconds=BACKGROUND, what="the reload")
            assert machine.show("ssh", "MainPID") == pid
        assert met["count"] > 0
        assert not met["open"]
        # A busy machine makes it longer; shown where this fails, and with -s.
        print(f"refused around the reload: {met['longest']:.3f} s at the longest")
        assert met["longest"] < PROMPT
        # So many connections at once make sshd turn some away for a while (MaxStartups).
        wait_until(
            lambda: {"ssh-rsa", "ssh-ed25519"} <= shown(scenario), seconds=BACKGROUND, what="all host keys"
        )
        assert {key["result"] for key in machine.report["host_keys"]} == {"changed", "unchanged"}
        assert len(machine.events("host-key-not-loaded")) == 1
        assert machine.wait_until_booted() == "running"


def test_a_running_sshd_takes_the_key_while_the_service_is_silent(scenario: Scenario) -> None:
    """Past the deadline and without an answer, which may never come."""
    scenario.cloud.silence()
    scenario.configure("[IMDS]\nBootTimeoutSec=3\n")
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert "ssh-rsa" not in shown(scenario)
        wait_until(lambda: machine.events("imds-unreachable-at-deadline"), what="the deadline")
        machine.inside("touch", "/run/rsa-may-come")
        wait_until(lambda: machine.events("sshd-reloaded"), seconds=BACKGROUND, what="the reload")
        wait_until(lambda: "ssh-rsa" in shown(scenario), seconds=BACKGROUND, what="the RSA key")
        assert machine.show("firstkey", "SubState") == "running"
        assert machine.report["outcome"] == "unreachable"
        (key,) = (key for key in machine.report["host_keys"] if key["type"] == "rsa")
        assert key["result"] == "changed"


def test_what_is_cut_off_is_completed(scenario: Scenario) -> None:
    """Firstkey is stopped between ready and the key, then the power is cut there: the next boot has it."""
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        machine.inside("systemctl", "stop", "firstkey")
        assert machine.show("firstkey", "Result") == "success"
        assert "hostkeys" not in machine.inside("ls", "-A", "/run/firstkey")
        assert machine.inside("ls", "/etc/ssh").count("ssh_host_rsa") == 0
        again(machine)
        assert machine.show("firstkey", "SubState") == "running"
        machine.cut_power()
    before = scenario.host_keys()
    assert len(before) >= 2
    scenario.disk.write("/etc/rsa-may-come", "")
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        wait_until(lambda: "ssh-rsa" in shown(scenario), seconds=BACKGROUND, what="the RSA key")
        machine.shut_down()
    after = scenario.host_keys()
    assert after.keys() - before.keys() == {"ssh_host_rsa_key.pub"}
    assert before.items() < after.items()
    assert matches(scenario.disk.path(RSA))


@pytest.mark.parametrize("accept", [False, True], ids=["ssh.service", "ssh@.service"])
def test_behind_a_socket(scenario: Scenario, accept: bool) -> None:
    """The key is shown to whoever connects after it is there, and no connection is lost to that."""
    if not (accept or scenario.takes_socket):
        pytest.skip("this sshd takes no socket from systemd")
    scenario.listen_by_socket(accept=accept)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        assert "ssh-rsa" not in shown(scenario)
        with session(scenario, machine):
            finish(machine)
        if not accept:
            machine.inside("systemctl", "restart", "ssh.service")
        wait_until(lambda: "ssh-rsa" in shown(scenario), seconds=BACKGROUND, what="the RSA key")
        assert scenario.login(on=machine).status == 0
        logged = [entry["MESSAGE"] for entry in machine.events("host-key-not-loaded")]
        assert len(logged) == (0 if accept else 1)
        assert all(message.endswith("systemctl restart ssh.service") for message in logged)
        assert machine.events("sshd-reloaded") == []
        assert machine.wait_until_booted() == "running"


def test_an_sshd_that_was_started_by_hand(scenario: Scenario) -> None:
    """Nothing is done to it; what to do is told, and cures it. Where there is none, nothing is told."""
    scenario.disk.write("/etc/systemd/system-preset/10-test.preset", "disable ssh.service\n")
    run("systemctl", f"--root={scenario.disk.root}", "--quiet", "disable", "ssh.service")
    with scenario.boot() as machine:
        machine.wait_for_unit("firstkey", "active")
        finish(machine)
        assert machine.events("host-key-not-loaded") == machine.events("sshd-reloaded") == []

        again(machine)
        machine.inside("/usr/sbin/sshd")
        machine.wait_for_ssh()
        finish(machine)
        [logged] = machine.events("host-key-not-loaded")
        assert logged["FIRSTKEY_FILES"] == RSA
        _, _, command = logged["FIRSTKEY_REMEDY"].partition(": ")
        machine.inside("sh", "-c", command)
        wait_until(lambda: "ssh-rsa" in shown(scenario), seconds=BACKGROUND, what="the RSA key")


@pytest.mark.parametrize("why", ["configured", "refused"])
def test_where_rsa_is_all_there_can_be_sshd_waits(scenario: Scenario, why: str) -> None:
    """Only RSA is configured, or ssh-keygen makes no other type."""
    if why == "configured":
        scenario.disk.write("/etc/ssh/sshd_config.d/50-keys.conf", f"HostKey {RSA}\n")
    else:
        scenario.disk.write("/etc/only-rsa", "")
    with scenario.boot() as machine:
        making = ("pgrep", "-f", "--", "-t rsa")
        wait_until(lambda: machine.inside(*making, check=False), seconds=60, what="the RSA key's making")
        assert machine.show("firstkey", "ActiveState") == "activating"
        assert machine.show("ssh", "ActiveState") == "inactive"
        machine.inside("touch", "/run/rsa-may-come")
        machine.wait_for_ssh()
        assert scenario.login(on=machine).status == 0
        assert shown(scenario) == {"ssh-rsa"}
        assert machine.events("sshd-reloaded") == []
