"""The console block as readers of `get-console-output` get it, out of what the program really writes."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hostkeys import QUICK, be_quick, private, public
from machine import Machine, Run, fingerprint

BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----\n", "\n-----END SSH HOST KEY KEYS-----"
CONSOLE = "/dev/console"


@pytest.fixture
def quick(machine: Machine) -> Machine:
    """A machine with two host keys to make."""
    be_quick(machine)
    return machine


def host_keys(machine: Machine) -> Run:
    """The command; a console that fails is never a failure."""
    done = machine.firstkey("host-keys")
    assert done.status == 0, done.err
    return done


def lines(machine: Machine) -> dict[str, str]:
    """The public halves by their type's name."""
    found = [public(private(machine, kind)).read_text().strip() for kind in QUICK]
    return {line.split()[0]: line for line in found}


def test_readers_find_the_keys_of_this_host(quick: Machine) -> None:
    """By the first algorithm name in the text, by the block, and by the fingerprints; each a real key."""
    console = quick.write(CONSOLE, "[    0.0] Linux\n")
    host_keys(quick)
    text = console.read_text()
    keys = lines(quick)

    assert text.startswith("[    0.0] Linux\n")
    for kind, line in keys.items():
        words = text[text.index(kind) :].split("\n", 1)[0].split(" ")
        assert base64.b64decode(words[1], validate=True) == base64.b64decode(line.split()[1])
        assert f"firstkey: 256 {fingerprint(line)} root (" in text
    assert text.split(BEGIN)[1].split(END)[0].split("\n") == list(keys.values())


def test_it_comes_once_a_boot_and_again_with_a_new_key(quick: Machine) -> None:
    """What changed nothing says nothing; /run is new at each boot; the newest block has the newest keys."""
    console = quick.write(CONSOLE, "")
    for _ in range(2):
        host_keys(quick)
    assert console.read_text().count(BEGIN) == 1

    private(quick).write_bytes(b"broken")
    host_keys(quick)
    assert console.read_text().count(BEGIN) == 2
    assert lines(quick)["ssh-ed25519"] in console.read_text().split(BEGIN)[2]

    quick.path("/run/firstkey/console-shown").unlink()
    host_keys(quick)
    assert console.read_text().count(BEGIN) == 3


def test_it_can_be_switched_off(quick: Machine) -> None:
    """Console=no."""
    console = quick.write(CONSOLE, "")
    quick.configure("[HostKeys]\nConsole=no\n")
    host_keys(quick)
    assert console.read_text() == ""


def test_a_link_leads_to_a_console_inside_the_tree(quick: Machine, tmp_path: Path) -> None:
    """Absolute or not, the host's file of that name is not written."""
    outside = tmp_path / "console"
    outside.write_text("")
    quick.write(str(outside), "")
    quick.path("/dev").mkdir()
    quick.path(CONSOLE).symlink_to(outside)
    host_keys(quick)

    assert outside.read_text() == ""
    assert BEGIN in quick.path(str(outside)).read_text()


BROKEN: dict[str, Callable[[Path], object]] = {
    "directory": lambda path: path.mkdir(),
    "nobody reads": os.mkfifo,
    "dangling": lambda path: path.symlink_to("/nowhere/console"),
    "round": lambda path: path.symlink_to("console"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_console_is_one_warning(quick: Machine, kind: str) -> None:
    """Never a failure, and not told again until there is something new to show."""
    quick.path("/dev").mkdir()
    BROKEN[kind](quick.path(CONSOLE))

    assert host_keys(quick).err.count("could not be written to the console") == 1
    assert "console" not in host_keys(quick).err


def test_a_console_that_stands_still_is_given_up(quick: Machine) -> None:
    """Somebody holds the other end and reads nothing; the keys are in place long before."""
    quick.path("/dev").mkdir()
    os.mkfifo(quick.path(CONSOLE))
    reader = os.open(quick.path(CONSOLE), os.O_RDWR | os.O_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            while True:
                os.write(reader, b"x" * 4096)
        begin = time.monotonic()
        done = host_keys(quick)
    finally:
        os.close(reader)

    assert time.monotonic() - begin < 30
    assert "(console-failed)" in done.err
    assert len(lines(quick)) == len(QUICK)
