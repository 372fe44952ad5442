"""The life of one disk, on one of Debian's releases: all that is worth trying on each, in five boots.

A boot costs seconds, so the boots are shared: what was seen is recorded, and each test judges its part of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bootlab import Machine
from netlab import wait_until
from scenario import BACKGROUND, PROMPT, Scenario
from suites import VERSIONS

from firstkey import settings

ONE, OTHER, THIRD = "i-00000000000000001", "i-00000000000000002", "i-00000000000000003"
MARK = "TYPED-BY-THE-BUILDER"
CONFIGURATION = """\
[Keys]
Users=
Users=root deploy

[User deploy]
Create=yes
Groups=adm
Shell=/bin/bash
Sudo=ALL=(ALL) NOPASSWD: ALL
"""
PLACES = ("/etc", "/root", "/home", "/var/lib/firstkey")
"""Where firstkey may write to."""
DOCTORS = 6
"""From OpenSSH 9.8 on, sshd bans a client after three or four connections that log nobody in."""
GREETED = """
import socket
with socket.create_connection(("127.0.0.1", 22), 20) as channel:
    print(channel.recv(4).decode(), end="")
"""
FAILING = """
import socket
for _ in range(100):
    with socket.create_connection(("127.0.0.1", 22), 20) as channel:
        if channel.recv(4) != b"SSH-":
            print("banned")
            break
        channel.sendall(b"nonsense\\n")
"""
"""A client that is no SSH client, until sshd has enough of it: before OpenSSH 9.8 it never has."""

FAILURE = "failure"
OWN_UNIT = "without firstkey"
ALWAYS = "[Unit]\nConditionFirstBoot=\n"
"""Takes back the condition that Debian 13's unit for host keys has."""

Seen = dict[str, Any]


class Life:
    """What was seen at each of its stages. A stage that could not be lived to its end has the traceback."""

    def __init__(self, file: Path) -> None:
        self._record: dict[str, Seen] = json.loads(file.read_text())

    def at(self, stage: str) -> Seen:
        """What was seen at the stage, which must have come to its end."""
        seen = self._record.get(stage) or next(reversed(self._record.values()))
        assert FAILURE not in seen, seen[FAILURE]
        return seen


def live(scenario: Scenario) -> dict[str, Seen]:
    """Live it, and return what was seen."""
    record: dict[str, Seen] = {}
    for stage, lived in STAGES.items():
        record[stage] = _to_its_end(lived, scenario)
        if FAILURE in record[stage]:
            break
    return record


def live_without(scenario: Scenario) -> dict[str, Seen]:
    """The same without firstkey, as far as that goes: whether anything makes host keys then."""
    return {OWN_UNIT: _to_its_end(_by_own_unit, scenario)}


def _to_its_end(lived: Callable[[Scenario], Seen], scenario: Scenario) -> Seen:
    try:
        return lived(scenario)
    except Exception:  # noqa: BLE001 - whatever it is, the tests tell
        return {FAILURE: f"{traceback.format_exc()}\n{scenario.logged()}"}


def state(scenario: Scenario) -> dict[str, tuple[int, int, int]]:
    """Everything that firstkey may write to, so that a file that was written again shows."""
    places = [scenario.disk.path(path) for path in PLACES]
    files = [file for place in places for file in [place, *place.rglob("*")]]
    looks = {file: file.lstat() for file in files}
    return {str(file): (look.st_ino, look.st_mtime_ns, look.st_ctime_ns) for file, look in looks.items()}


def _first_boot(scenario: Scenario) -> Seen:
    """By ssh.service: root and a user that is created; then whoever looks at the running system."""
    scenario.configure(CONFIGURATION)
    scenario.new_key("stranger")
    scenario.cloud.offer(scenario.line, instance=ONE)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        seen = _boot(scenario, machine)
        _wait_for_the_end(machine)
        seen = {
            **seen,
            "stranger is refused": scenario.login(key="stranger").is_refused,
            "sudo": scenario.login("sudo", "-n", "id", "-un", user="deploy", on=machine).out,
            "groups": scenario.login("id", "-Gn", user="deploy").out.split(),
            "ready": int(machine.show("firstkey.service", "ActiveEnterTimestampMonotonic")),
            "sshd started": int(machine.show("ssh.service", "ExecMainStartTimestampMonotonic")),
            "verified": machine.inside("systemd-analyze", "verify", "--man=no", "firstkey.service"),
            "report": machine.report,
            "asked for": sorted(_host_keys_of_sshd(machine)),
            "made": sorted(name.removesuffix(".pub") for name in scenario.host_keys()),
            "complaints": [entry["MESSAGE"] for entry in machine.journal if _is_complaint(entry)],
            "versions": {
                name: machine.inside("sh", "-c", f"({asked}) 2>&1") for name, asked in VERSIONS.items()
            },
            "status": machine.inside("firstkey", "status"),
            "doctor": _doctor(machine, times=DOCTORS),
            "refused": _refused(machine),
            "banned": _banned(machine),
            "audit": _looked(machine, "audit"),
            "logged": _logged(scenario, machine),
        }
        machine.shut_down()
    return seen


def _second_boot(scenario: Scenario) -> Seen:
    """As the same instance."""
    before, keys = state(scenario), scenario.host_keys()
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        seen = _boot(scenario, machine)
        machine.shut_down()
    after = state(scenario)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    return {**seen, "changed": changed, "same host keys": scenario.host_keys() == keys}


def _damaged(scenario: Scenario) -> Seen:
    """After a power cut that left two host keys torn; by ssh.socket, whose one process serves all.

    Debian 11's sshd takes no socket: there it is a process a connection, as at the next stage.
    """
    old = scenario.host_keys()
    for kind in ("rsa", "ed25519"):
        file = scenario.disk.path(f"/etc/ssh/ssh_host_{kind}_key")
        file.write_bytes(file.read_bytes()[:100])
    seen = _by_socket(scenario, scenario.line, instance=ONE, accept=False)
    new = scenario.host_keys()
    return {**seen, "stayed": sorted(name for name in old if new.get(name) == old[name]), "made": sorted(new)}


def _rebundled(scenario: Scenario) -> Seen:
    """As somebody else's instance, by a socket with a process a connection; sealed as its last work."""
    with scenario.disk.path("/root/.ssh/authorized_keys").open("a") as file:
        file.write(f"{scenario.new_key('own')}\n")
    old = scenario.host_keys()
    buyer = scenario.new_key("buyer")

    def last_work(machine: Machine) -> Seen:
        machine.inside("sh", "-c", f"echo {MARK} >/root/.bash_history; echo root:{MARK} | chpasswd")
        return {
            "own": scenario.login(key="own").status,
            "launch is refused": scenario.login().is_refused,
            "new host keys": not set(scenario.host_keys().values()) & set(old.values()),
            "sealed": _looked(machine, "seal", "--yes"),
        }

    return _by_socket(scenario, buyer, instance=OTHER, accept=True, key="buyer", then=last_work)


def _sealed(scenario: Scenario) -> Seen:
    """What is left to remove from outside; then a first boot that is nobody's second."""
    root = scenario.disk.path("/")
    before = _firstkey(root, "audit")
    report = _firstkey(root, "seal")
    gone = scenario.host_keys() == {}
    scenario.cloud.offer(scenario.new_key("next"), instance=THIRD)
    with scenario.boot() as machine:
        machine.wait_for_ssh()
        seen = _boot(scenario, machine, key="next")
        _wait_for_the_end(machine)
        seen["others are refused"] = [
            scenario.login(key=key).is_refused for key in ("launch", "own", "buyer")
        ]
        machine.shut_down()
    left = ["grep", "-rlaE", f"{MARK}|{ONE}|{OTHER}", str(root)]
    return {
        **seen,
        "unfit by itself": _unfit(before),
        "not done": [step for step in report["steps"] if step["result"] != "done"],
        "unfit": _unfit(report["audit"]),
        "host keys were gone": gone,
        "left": subprocess.run(left, capture_output=True, check=False, text=True).stdout,
    }


def _by_own_unit(scenario: Scenario) -> Seen:
    """What audit says of who makes host keys, and whether a boot has any: by machine-id and condition."""
    seen: Seen = {}
    cases = {"an empty machine-id": "", "a first boot": "uninitialized"}
    if any(scenario.disk.path(f"{place}/sshd-keygen.service").exists() for place in settings.PLACES):
        cases["no condition"] = ""
    for case, content in cases.items():
        for file in scenario.disk.path("/etc/ssh").glob("ssh_host_*"):
            file.unlink()
        scenario.disk.write("/etc/machine-id", content)
        if case == "no condition":
            scenario.disk.write(f"{settings.ADMINISTRATOR}/sshd-keygen.service.d/always.conf", ALWAYS)
        audit = _firstkey(scenario.disk.path("/"), "audit", "--rule", "host-key-maker")
        with scenario.boot() as machine:
            machine.wait_for_unit("multi-user.target", "active")
            system = machine.wait_until_booted()
            seen[case] = {
                "promised": not _unfit(audit),
                "made": bool(scenario.host_keys()),
                "sshd": machine.show("ssh.service", "ActiveState"),
                "system": system,
            }
            machine.shut_down()
    return seen


STAGES: dict[str, Callable[[Scenario], Seen]] = {
    "first boot": _first_boot,
    "second boot": _second_boot,
    "damaged host keys": _damaged,
    "re-bundled": _rebundled,
    "sealed": _sealed,
}


def _boot(scenario: Scenario, machine: Machine, *, key: str = "launch") -> Seen:
    """A login to the host that the console vouches for, and what systemd has to say of the boot."""
    return {
        "login": scenario.login(key=key, on=machine).status,
        "system": machine.wait_until_booted(),
        "failed units": machine.inside("systemctl", "list-units", "--failed", "--plain", "--no-legend"),
        "cycles": [entry["MESSAGE"] for entry in machine.journal if "cycle" in str(entry["MESSAGE"])],
    }


def _by_socket(
    scenario: Scenario,
    line: str,
    *,
    instance: str,
    accept: bool,
    key: str = "launch",
    then: Callable[[Machine], Seen] = lambda machine: {},
) -> Seen:
    """A boot with ssh.socket; the metadata service answers when somebody waits at port 22 already."""
    scenario.listen_by_socket(accept=accept)
    scenario.cloud.silence()
    with scenario.boot() as machine:
        wait_until(lambda: scenario.cloud.is_open(22), seconds=BACKGROUND, what="the socket")
        early = scenario.cloud.probe(seconds=BACKGROUND)
        wait_until(
            lambda: machine.show("firstkey", "ActiveState", check=False) == "activating",
            seconds=PROMPT,
            what="firstkey",
        )
        held = not scenario.cloud.has_ssh()
        scenario.cloud.offer(line, instance=instance)
        served, _ = early.communicate(timeout=2 * BACKGROUND)
        seen = _boot(scenario, machine, key=key)
        _wait_for_the_end(machine)
        seen = {
            **seen,
            "held": held,
            "served": bool(served),
            "set aside": len(machine.events("host-key-set-aside")),
            "revoked": len(machine.events("key-revoked")),
            "doctor": _doctor(machine),
            **then(machine),
        }
        machine.shut_down()
    return seen


def _doctor(machine: Machine, *options: str, times: int = 1) -> Seen:
    """The doctor, again and again; and whether its neighbours on the machine are served after that."""
    reports = [_looked(machine, "doctor", *options) for _ in range(times)]
    users = [user for report in reports for user in report["users"]]
    return {
        "verdicts": [user["verdict"] for user in users],
        "reasons": [found for user in users for found in user["findings"] if found["reason"]],
        "neighbour is served": _is_served(machine),
    }


def _is_served(machine: Machine) -> bool:
    """Whether sshd speaks to a client at 127.0.0.1."""
    return machine.inside("python3", "-c", GREETED) == "SSH-"


def _refused(machine: Machine) -> Seen | None:
    """What the doctor says of a user whose connections sshd ends; None before OpenSSH 9.9."""
    if "refuseconnection" not in machine.inside("/usr/sbin/sshd", "-T").lower():
        return None
    file = "/etc/ssh/sshd_config.d/refuse.conf"
    machine.inside("sh", "-c", f"printf 'Match User deploy\nRefuseConnection yes\n' >{file}")
    machine.inside("systemctl", "reload", "ssh.service")
    seen = _doctor(machine, "--user", "deploy")
    machine.inside("rm", file)
    machine.inside("systemctl", "reload", "ssh.service")
    return seen


def _banned(machine: Machine) -> Seen:
    """What the doctor says while sshd punishes a neighbour that failed too often (PerSourcePenalties)."""
    banned = machine.inside("python3", "-c", FAILING) == "banned\n"
    return {"banned": banned, **_doctor(machine)}


def _logged(scenario: Scenario, machine: Machine) -> Seen:
    """What the doctor says after a refusal whose cause is gone: only older lines of the log tell of it."""
    machine.inside("chmod", "0777", "/home/deploy")
    refused = scenario.login(user="deploy").is_refused
    machine.inside("chmod", "0700", "/home/deploy")
    return {"refused": refused, **_doctor(machine, "--user", "deploy")}


def _host_keys_of_sshd(machine: Machine) -> list[str]:
    """The names of the host keys that sshd would load if they were there."""
    lines = machine.inside("/usr/sbin/sshd", "-T").lower().splitlines()
    return [line.rpartition("/")[2] for line in lines if line.startswith("hostkey ")]


def _looked(machine: Machine, command: str, *options: str) -> Seen:
    """What a command of firstkey's prints for programs, on the machine itself; it may have findings."""
    script = 'firstkey "$@" --json; echo "status $?"'
    said = machine.inside("sh", "-c", script, "sh", command, *options, seconds=300)
    text, _, status = said.rpartition("status ")
    assert int(status) in (0, 1), said
    found: Seen = json.loads(text)
    return found


def _firstkey(root: Path, command: str, *options: str) -> Seen:
    """What the host's firstkey says of the disk."""
    argv = [sys.executable, "-m", "firstkey", command, "--root", str(root), "--json", *options]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    found: Seen = json.loads(done.stdout)
    return found


def _unfit(audit: Seen) -> list[str]:
    """The rules that find something worse than a note."""
    return sorted(rule["id"] for rule in audit["rules"] if not rule["fit"])


def _wait_for_the_end(machine: Machine) -> None:
    """The RSA key comes later than sshd."""
    wait_until(
        lambda: machine.show("firstkey", "SubState") == "exited", seconds=BACKGROUND, what="firstkey's end"
    )


def _is_complaint(entry: Seen) -> bool:
    return entry.get("_SYSTEMD_UNIT") == "firstkey.service" and int(entry["PRIORITY"]) <= 4
