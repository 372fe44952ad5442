"""`-v` by hand: the story of a run, step by step, which is not told without it."""

from __future__ import annotations

import re

import pytest
from hostkeys import be_quick
from machine import Machine

from firstkey import events
from firstkey.metadata.emulator import Emulator, Settings

REQUESTS = [
    "PUT {url}/latest/api/token was answered with 200",
    "GET {url}/latest/meta-data/instance-id, with a token, was answered with 200",
    "GET {url}/latest/meta-data/public-keys/, with a token, was answered with 200",
    "GET {url}/latest/meta-data/public-keys/0/openssh-key, with a token, was answered with 200",
]


@pytest.fixture
def service(keys: dict[str, str]) -> Emulator:
    """One launch key."""
    return Emulator(Settings(instance_id="i-0000000000000001", keys=(("launch", keys["ed25519"]),)))


DETAILS = "|".join(
    re.sub(r"\\{\w+\\}", ".*", re.escape(event.template))
    for event in events.ALL.values()
    if event.priority == events.DEBUG
)


def steps(text: str) -> list[str]:
    """The lines that only -v brings, without how long it took."""
    return [
        re.sub(r" in \d+\.\d+ s\.$", "", match[1])
        for line in text.splitlines()
        for match in [re.fullmatch(f"firstkey: ({DETAILS})", line)]
        if match
    ]


def test_a_run_tells_what_it_asks(machine: Machine, service: Emulator) -> None:
    """Each request with its answer, in order."""
    be_quick(machine)
    with service:
        logged = machine.firstkey("run", "-v", service=service)
    assert logged.status == 0
    found = steps(logged.err)
    assert found[:4] == [request.format(url=service.url) for request in REQUESTS]


@pytest.mark.parametrize("command", ["run", "host-keys"])
def test_each_step_is_shown_with_its_time(machine: Machine, service: Emulator, command: str) -> None:
    """Also where nothing is changed; on standard output is what there is without -v."""
    be_quick(machine)
    with service:
        machine.run(service)
        plain = machine.firstkey(command, service=service)
        logged = machine.firstkey(command, "-v", service=service)
    assert (plain.status, logged.status, logged.out) == (0, 0, plain.out)
    phases = {"run": ["metadata", "launch keys"], "host-keys": []}[command]
    for phase in ["host keys: look", *phases, "in all"]:
        assert re.search(rf"(?m)^  {phase} +\d+ ms", logged.err)
    assert "in all" not in plain.err


def test_a_firmware_without_a_name_is_not_told(machine: Machine, service: Emulator) -> None:
    """A first boot names the platform, if the firmware does."""
    be_quick(machine)
    with service:
        assert "The name of the platform" not in machine.firstkey("run", service=service).err
        machine.write("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
        service.change(instance_id="i-0000000000000002")
        assert "by its firmware: Amazon EC2." in machine.firstkey("run", service=service).err


@pytest.mark.parametrize("tokens", ["both", "absent"])
def test_keys_tell_each_request(machine: Machine, keys: dict[str, str], tokens: str) -> None:
    """Also where the first attempt works; with the status that the token request had."""
    settings = Settings(keys=(("launch", keys["ed25519"]),), tokens=tokens)
    with Emulator(settings) as service:
        plain = machine.firstkey("keys", service=service)
        logged = machine.firstkey("keys", "-v", service=service)
    expected = [request.format(url=service.url) for request in REQUESTS]
    if tokens == "absent":
        expected = [line.replace(", with a token,", "") for line in expected]
        expected[0] = expected[0].replace("200", "404")
    assert (plain.status, logged.status, steps(plain.err)) == (0, 0, [])
    assert steps(logged.err) == expected
