"""Host keys that seal took out of an image and that come back: known by their hashes, replaced at boot."""

from __future__ import annotations

import json
import shutil

import pytest
from machine import World, fingerprint, new_key

from firstkey.boot import ledger
from firstkey.image.changes import remember
from firstkey.system.tree import Tree

KEY = "/etc/ssh/ssh_host_ed25519_key"
CONF = "[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n"

pytestmark = pytest.mark.sshd


@pytest.fixture
def old(world: World) -> str:
    """The fingerprint of a host key that was sealed out of the image, and is back (from a backup, say)."""
    world.machine.configure(CONF)
    line = new_key(world.machine.path("/etc/ssh"), "ssh_host_ed25519_key")
    kept = world.directory / "kept"
    shutil.copytree(world.machine.path("/etc/ssh"), kept)
    done = world.machine.firstkey("seal", "--rule", "host-keys")
    assert done.status == 0, done.err
    assert not world.machine.path(KEY).exists()
    shutil.copytree(kept, world.machine.path("/etc/ssh"), dirs_exist_ok=True)
    return fingerprint(line)


def now(world: World) -> str:
    """The fingerprint of the host key that there is."""
    return fingerprint(world.machine.host_keys()["ssh_host_ed25519_key.pub"])


def test_a_key_that_comes_back_is_replaced(world: World, old: str) -> None:
    """With the reason in the report, and once: the new key is the instance's own."""
    done = world.machine.run(world.service)
    (key,) = done.report["host_keys"]
    assert (key["result"], key["reason"]) == ("changed", "host-key-cloned")
    new = now(world)
    assert new != old
    assert "HOST KEY REPLACED: /etc/ssh/ssh_host_ed25519_key" in done.err
    again = world.machine.run(world.service, "--force")
    assert again.report["host_keys"][0]["result"] == "unchanged"
    assert now(world) == new


def test_the_public_half_may_be_lost(world: World, old: str) -> None:
    """The private half alone is known as well."""
    world.machine.path(f"{KEY}.pub").unlink()
    assert world.machine.run(world.service).status == 0
    assert now(world) != old


def test_without_an_instance_id_nothing_is_replaced(world: World, old: str) -> None:
    """Only a positively different instance has its key replaced."""
    assert world.machine.firstkey("host-keys").status == 0
    assert now(world) == old


def test_the_instance_that_was_sealed_may_have_it_back(world: World, old: str) -> None:
    """On the very instance that the image was made on, the key is its own."""
    instance = "i-0000000000000001"
    with Tree(str(world.machine.root)) as tree:
        remember(tree, b"another", instance=instance)
    assert world.machine.run(world.service).status == 0
    assert now(world) == old


def test_regenerate_never_is_obeyed(world: World, old: str) -> None:
    """Who wants no key replaced keeps even such a one."""
    world.machine.configure(CONF + "Regenerate=never\n")
    world.machine.run(world.service)
    assert now(world) == old


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2}',
        json.dumps({"version": 1, "salt": "xx", "hashes": []}).encode(),
        b"\0" * 99,
    ],
)
@pytest.mark.sample(6)
def test_a_damaged_list_replaces_nothing(world: World, old: str, content: bytes) -> None:
    """A list that seal did not write so is not believed, and does not stop the boot."""
    world.machine.path(ledger.SEALED).write_bytes(content)
    assert world.machine.run(world.service).status == 0
    assert now(world) == old
