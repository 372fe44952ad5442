"""The default endpoints in a network of the test's own: as at boot, where it comes up by and by."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from machine import AGENT, Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare (util-linux)"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs ip (iproute2)"),
]

V4 = "169.254.169.254"
V6 = "fd00:ec2::254"
PRELUDE = """
up() { ip link set lo up; }
v4() { ip address add 169.254.169.254/32 dev lo; }
v6() { ip address add fd00:ec2::254/128 dev lo nodad; }
firstkey() { "$PYTHON" -m firstkey "$@"; }
keys() { firstkey keys --json --root "$ROOT" --wait "$@" || echo "$?" >"$ROOT/status"; }
"""
# The service listens before anybody asks: its first line says so.
SERVE = 'firstkey imds -q --port 80 --instance-id i-{name} --host {address} >"$ROOT/{name}" & '
SERVE += 'until [ -s "$ROOT/{name}" ]; do sleep 0.05; done'


class Network:
    """A network namespace. With the script that is run in it, everything ends that was started by it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(self, script: str) -> dict[str, Any]:
        """The report of `keys` in the script, and its exit status as `status`."""
        done = subprocess.run(
            ["unshare", "--net", "--pid", "--fork", "sh", "-euc", PRELUDE + script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(AGENT),
                "PYTHON": sys.executable,
                "ROOT": str(self._machine.root),
            },
        )
        if "unshare failed" in done.stderr:
            pytest.skip(f"no network of its own can be had here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        status = self._machine.root / "status"
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "status": int(status.read_text()) if status.exists() else 0}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """A network in which nothing is up yet."""
    return Network(Machine(tmp_path / "root"))


@pytest.mark.parametrize("prepare", ["", "up", "up; ip route add 169.254.169.254 via 127.0.0.1 || true"])
@pytest.mark.sample(3)
def test_no_network_at_all(network: Network, prepare: str) -> None:
    """Asked until the end of the wait; then exit status 75 and both endpoints in the sentence."""
    report = network.run(f"{prepare}\nkeys 0.5")
    assert (report["status"], report["outcome"], report["reason"]) == (75, "unreachable", "imds-unreachable")
    assert f"http://{V4}: " in report["detail"]
    assert f"http://[{V6}]: " in report["detail"]


@pytest.mark.parametrize("address, command", [(V4, "v4"), (V6, "v6")])
@pytest.mark.slow
def test_a_network_that_comes_up_while_it_is_asked(network: Network, address: str, command: str) -> None:
    """Whichever family it has, on the endpoints that nobody configured."""
    serve = SERVE.format(name="late", address=address)
    report = network.run(f"(sleep 0.5; up; {command}; {serve}; wait) >/dev/null &\nkeys 30")
    assert (report["status"], report["instance_id"]) == (0, "i-late")
    assert report["imds"]["version"] == 2


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole", "throw"])
@pytest.mark.parametrize("dead, address, command", [(V4, V6, "v6"), (V6, V4, "v4")])
@pytest.mark.slow
def test_a_route_that_refuses_one_family(
    network: Network, kind: str, dead: str, address: str, command: str
) -> None:
    """A firewall or a missing route for one endpoint does not keep the other from answering."""
    serve = SERVE.format(name="other", address=address)
    report = network.run(f"up; {command}; ip route add {kind} {dead}\n{serve}\nkeys 20")
    assert (report["status"], report["instance_id"]) == (0, "i-other")


def test_both_families(network: Network) -> None:
    """The first of the list is asked."""
    serve = "; ".join(SERVE.format(name=name, address=address) for name, address in (("v4", V4), ("v6", V6)))
    report = network.run(f"up; v4; v6; {serve}\nkeys 20")
    assert (report["instance_id"], report["imds"]["endpoint"]) == ("i-v4", f"http://{V4}")
