"""Which file the launch keys go to, by what sshd says that it reads."""

from __future__ import annotations

import pytest
from machine import World

pytestmark = pytest.mark.sshd
NEW, OLD = "OpenSSH_10.0p2", "OpenSSH_9.2p1"
PATTERN = ".ssh/authorized_keys.d/*"


def configure(world: World, files: str, version: str = NEW) -> None:
    """An sshd of that version, and where it reads keys."""
    world.machine.write("/usr/sbin/sshd", version, mode=0o755)
    host_key = "HostKey /etc/ssh/ssh_host_ed25519_key\n"
    world.machine.write("/etc/ssh/sshd_config", f"{host_key}AuthorizedKeysFile {files}\n")


def test_a_pattern_is_no_name_to_write_to(world: World) -> None:
    """OpenSSH 10 looks into the files that it stands for; the key goes to the name beside it."""
    configure(world, f"{PATTERN} .ssh/authorized_keys")
    assert world.machine.run(world.service).status == 0
    assert world.machine.keys == [world.key]
    assert not world.machine.path("/home/admin/.ssh/authorized_keys.d").exists()


def test_patterns_alone_are_refused_with_what_to_do(world: World) -> None:
    """No file is made that nobody asked for; a name that the pattern fits can be set."""
    configure(world, PATTERN)
    done = world.machine.run(world.service)
    assert (done.status, done.user("admin")["reason"]) == (1, "authorized-keys-disabled")
    assert not world.machine.path("/home/admin/.ssh").exists()
    own = "[Keys]\nUsers=admin\n[User admin]\nAuthorizedKeysFile=%h/.ssh/authorized_keys.d/launch\n"
    world.machine.configure(own)
    done = world.machine.run(world.service)
    assert (done.status, done.user("admin")["reason"]) == (0, None)
    assert world.machine.path("/home/admin/.ssh/authorized_keys.d/launch").read_text() == f"{world.key}\n"


def test_an_earlier_openssh_takes_a_pattern_as_it_stands(world: World) -> None:
    """That is the file that it reads."""
    configure(world, PATTERN, OLD)
    assert world.machine.run(world.service).status == 0
    assert world.machine.path("/home/admin/.ssh/authorized_keys.d/*").read_text() == f"{world.key}\n"


def test_a_restricted_line_behind_a_pattern_gets_no_bare_twin(world: World) -> None:
    """The bare one would let in by itself, wherever it stands."""
    configure(world, f".ssh/authorized_keys {PATTERN}")
    restricted = f'restrict,command="true" {world.key}\n'
    world.machine.write("/home/admin/.ssh/authorized_keys.d/10-ops", restricted, mode=0o600)
    world.machine.path("/home/admin/.ssh").chmod(0o700)
    world.machine.path("/home/admin/.ssh/authorized_keys.d").chmod(0o700)
    assert world.machine.run(world.service).status == 0
    assert world.machine.keys == []
