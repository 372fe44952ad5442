"""Whose a host key is: another instance's goes, an image's own stays with a warning, nothing on a guess."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hostkeys import (
    QUICK,
    ask_for,
    be_quick,
    generate,
    host_keys,
    private,
    public,
    result,
    results,
    shown_by_sshd,
)
from machine import Machine, Run, World

from firstkey.metadata.emulator import Fault

FIRST, SECOND = "i-0000000000000001", "i-0000000000000002"
BOOT = "/proc/sys/kernel/random/boot_id"

Boot = Callable[..., Run]


@pytest.fixture(params=["firmware", "service"])
def boot(world: World, request: pytest.FixtureRequest) -> Boot:
    """Boots the machine as an instance: the firmware tells which (Nitro), or only the service does (Xen)."""
    be_quick(world.machine)
    count = iter(range(100))

    def run(instance: str, *options: str, settings: str = "") -> Run:
        world.become(instance, world.key)
        if request.param == "firmware":
            world.machine.set_firmware(instance)
        world.machine.write(BOOT, f"boot-{next(count)}\n")
        world.machine.configure(f"[Keys]\nUsers=admin\n[HostKeys]\n{settings}\n")
        return world.machine.run(world.service, *options)

    return run


def keys(machine: Machine) -> dict[str, bytes]:
    """The private halves."""
    return {kind: private(machine, kind).read_bytes() for kind in QUICK}


def records(machine: Machine) -> list[dict[str, object]]:
    """What the ledger says of host keys."""
    ledger = json.loads(machine.path("/var/lib/firstkey/ledger.json").read_text())
    found: list[dict[str, object]] = ledger["ledger"]["host_keys"]
    return found


def put_own_keys(machine: Machine) -> dict[str, bytes]:
    """Host keys that somebody else made, as an image's builder does."""
    for kind in QUICK:
        private(machine, kind).unlink(missing_ok=True)
        generate(private(machine, kind), kind)
    return keys(machine)


# --- what firstkey made ---------------------------------------------------------------------------


@pytest.mark.sample(2)
def test_another_instance_gets_keys_of_its_own(world: World, boot: Boot) -> None:
    """Promise 6: loudly, once; no half of the old keys is left."""
    boot(FIRST)
    old = keys(world.machine)
    lines = {kind: public(private(world.machine, kind)).read_text() for kind in QUICK}

    done = boot(SECOND)

    assert done.err.count("HOST KEY REPLACED") == len(QUICK)
    assert "was generated" not in done.err, "one event says what became of a key"
    assert {key["reason"] for key in done.report["host_keys"]} == {"host-key-cloned"}
    assert not set(old.values()) & set(keys(world.machine).values())
    left = "".join(path.read_text() for path in world.machine.path("/etc/ssh").iterdir())
    assert not any(line.split()[1] in left for line in lines.values())
    again = boot(SECOND)
    assert results(again) == dict.fromkeys(QUICK, "unchanged")
    assert "REPLACED" not in again.err


@pytest.mark.sshd
@pytest.mark.sample(2)
def test_sshd_shows_what_the_report_says(world: World, boot: Boot) -> None:
    """A client that knows nothing gets exactly the reported keys, on either instance."""
    files = [f"/etc/ssh/ssh_host_{kind}_key" for kind in QUICK]
    shown = []
    for instance in (FIRST, SECOND):
        reported = {key["fingerprint"] for key in boot(instance).report["host_keys"]}
        assert shown_by_sshd(world.machine, files) == reported
        shown.append(reported)
    assert not shown[0] & shown[1]


@pytest.mark.parametrize("setting,replaced", [
    ("clones", True), ("new-instance", True), ("missing", False), ("never", False),
])  # fmt: skip
@pytest.mark.sample(8)
def test_settings_decide_what_becomes_of_a_clone(
    world: World, boot: Boot, setting: str, replaced: bool
) -> None:
    """What is kept by the setting is told in the report, and is not forgotten when the setting changes."""
    boot(FIRST)
    old = keys(world.machine)
    done = boot(SECOND, settings=f"Regenerate={setting}")

    assert (keys(world.machine) != old) is replaced
    assert result(done)["reason"] == ("host-key-cloned" if replaced else "regeneration-off")
    boot(SECOND)
    assert not set(old.values()) & set(keys(world.machine).values())


@pytest.mark.sample(2)
def test_a_type_that_is_no_longer_wanted_is_replaced_too(world: World, boot: Boot) -> None:
    """Types= says what is made, but sshd would show this key all the same. In between it is not mentioned."""
    boot(FIRST)
    old = keys(world.machine)
    assert results(boot(FIRST, settings="Types=ed25519")) == {"ed25519": "unchanged"}

    boot(SECOND, settings="Types=ed25519")

    assert not set(old.values()) & set(keys(world.machine).values())


@pytest.mark.sample(2)
def test_an_old_key_that_comes_back_is_known(world: World, boot: Boot, tmp_path: Path) -> None:
    """Out of a backup or an older image, or under another name: the ledger knows more than the last key."""
    boot(FIRST)
    shutil.copytree(world.machine.path("/etc/ssh"), tmp_path / "old")
    boot(SECOND)
    for suffix in ("", ".pub"):
        name = f"ssh_host_ed25519_key{suffix}"
        shutil.copy2(tmp_path / "old" / name, world.machine.path("/etc/ssh") / name)
    old = private(world.machine).read_bytes()

    done = boot(SECOND)

    assert result(done)["reason"] == "host-key-cloned"
    assert results(done)["ecdsa"] == "unchanged"
    assert private(world.machine).read_bytes() != old


@pytest.mark.slow
def test_a_failing_disk_does_not_make_the_ledger_grow_without_end(machine: Machine) -> None:
    """It keeps the newest records only."""
    files = [f"/etc/ssh/{number}_ed25519" for number in range(33)]
    ask_for(machine, *files)
    for _ in range(2):
        for file in files:
            machine.write(file, b"broken")
        assert host_keys(machine).status == 0

    assert len(records(machine)) == 64
    assert {key["result"] for key in host_keys(machine).report["host_keys"]} == {"unchanged"}


# --- what nobody knows ----------------------------------------------------------------------------


def test_an_outage_replaces_nothing(world: World) -> None:
    """Only a positively different instance-id is a new one; keys made in an outage are the next one's."""
    be_quick(world.machine)
    world.machine.write(BOOT, "boot-1\n")
    world.service.inject(Fault("status", 500))
    world.machine.run(world.service, "--wait", "0.2")
    old = keys(world.machine)

    world.machine.write(BOOT, "boot-2\n")
    world.service.inject()
    assert results(world.machine.run(world.service)) == dict.fromkeys(QUICK, "unchanged")
    assert keys(world.machine) == old
    assert {record["instance"] for record in records(world.machine)} == {FIRST}

    world.service.inject(Fault("status", 500))
    world.machine.run(world.service, "--wait", "0.2")
    assert keys(world.machine) == old
    world.service.inject()
    world.become(SECOND, world.key)
    world.machine.run(world.service)
    assert not set(old.values()) & set(keys(world.machine).values())


def test_keys_made_before_the_answer_are_this_boots(world: World) -> None:
    """Made first, tied to the instance when the service answers: the next instance replaces them."""
    be_quick(world.machine)
    world.machine.write(BOOT, "boot-1\n")
    host_keys(world.machine)
    assert {record["instance"] for record in records(world.machine)} == {None}
    world.machine.run(world.service)
    assert {record["instance"] for record in records(world.machine)} == {FIRST}


def test_keys_made_in_an_image_do_not_outlive_its_first_boot(world: World) -> None:
    """`host-keys --root IMAGE` made them where nothing was running: every instance would have the same."""
    be_quick(world.machine)
    host_keys(world.machine)
    old = keys(world.machine)
    world.machine.write(BOOT, "boot-1\n")

    done = world.machine.run(world.service)

    assert {key["reason"] for key in done.report["host_keys"]} == {"host-key-cloned"}
    assert not set(old.values()) & set(keys(world.machine).values())


def test_keys_made_where_nothing_named_an_instance_are_not_every_instance_s(world: World, boot: Boot) -> None:
    """An image that was built in a virtual machine elsewhere, booted there, and imported.

    Where the firmware names the instance, it would have named it then, too: the keys are not this one's.
    Where only the service does, that boot may have been this instance's, without an answer: a warning.
    """
    world.service.inject(Fault("status", 500))
    world.machine.write(BOOT, "boot-elsewhere\n")
    be_quick(world.machine)
    world.machine.run(world.service, "--wait", "0.1")
    old = keys(world.machine)
    world.service.inject()

    done = boot(FIRST)

    is_named = world.machine.path("/sys/class/dmi/id/board_asset_tag").exists()
    reason = "host-key-cloned" if is_named else "host-key-foreign"
    assert {key["reason"] for key in done.report["host_keys"]} == {reason}
    assert (keys(world.machine) == old) is not is_named
    new = keys(world.machine)
    again = boot(FIRST)
    assert {key["reason"] for key in again.report["host_keys"]} == {None}
    assert keys(world.machine) == new


# --- what others made -----------------------------------------------------------------------------


@pytest.mark.sample(2)
def test_an_image_s_own_keys_stay_with_one_warning_an_instance(world: World, boot: Boot) -> None:
    """Promise 3: not replaced by default; a warning on the first boot, none on the second, one on a clone."""
    old = put_own_keys(world.machine)
    first, again = boot(FIRST), boot(FIRST)
    clone, clone_again = boot(SECOND), boot(SECOND)

    assert keys(world.machine) == old
    for done in (first, clone):
        assert done.err.count("have come with the image") == len(QUICK)
        assert {key["reason"] for key in done.report["host_keys"]} == {"host-key-foreign"}
        assert results(done) == dict.fromkeys(QUICK, "unchanged")
    for done in (again, clone_again):
        assert "have come with the image" not in done.err
        assert {key["reason"] for key in done.report["host_keys"]} == {None}


def test_the_remedy_for_an_image_s_own_keys_replaces_them(world: World) -> None:
    """On this instance, which no setting brings to: it is not a new one any more."""
    be_quick(world.machine)
    old = put_own_keys(world.machine)
    done = world.machine.run(world.service)
    assert "On this instance: remove the file, run firstkey host-keys" in done.err
    for kind in old:
        private(world.machine, kind).unlink()
    host_keys(world.machine)
    assert not set(old.values()) & set(keys(world.machine).values())


def test_the_warning_comes_once_though_only_the_firmware_answers(world: World) -> None:
    """Each boot of the clone has a dead service; the ledger still knows that it was said."""
    be_quick(world.machine)
    put_own_keys(world.machine)
    world.machine.set_firmware(FIRST)
    world.machine.run(world.service)
    world.machine.set_firmware(SECOND)
    world.service.inject(Fault("status", 500))
    said = [world.machine.run(world.service, "--wait", "0.1").err for _ in range(2)]

    assert ["have come with the image" in text for text in said] == [True, False]


@pytest.mark.sample(2)
def test_new_instance_replaces_an_image_s_own_keys(world: World, boot: Boot) -> None:
    """Regenerate=new-instance: all of them, whoever made them; once, and again on the next instance."""
    old = put_own_keys(world.machine)
    boot(FIRST, settings="Regenerate=new-instance")
    first = keys(world.machine)
    assert not set(old.values()) & set(first.values())

    assert results(boot(FIRST, settings="Regenerate=new-instance")) == dict.fromkeys(QUICK, "unchanged")
    boot(SECOND, settings="Regenerate=new-instance")
    assert not set(first.values()) & set(keys(world.machine).values())


@pytest.mark.parametrize("setting", ["clones", "new-instance", "missing", "never"])
@pytest.mark.sample(8)
def test_a_key_that_a_person_puts_in_stays_on_this_instance(world: World, boot: Boot, setting: str) -> None:
    """It did not come with the image, and this is no new instance: no replacement, no warning."""
    boot(FIRST)
    own = put_own_keys(world.machine)
    for _ in range(2):
        done = boot(FIRST, settings=f"Regenerate={setting}")
        assert keys(world.machine) == own
        assert "have come with the image" not in done.err
    done = boot(SECOND, settings=f"Regenerate={setting}")
    assert (keys(world.machine) == own) is (setting != "new-instance")
    assert ("have come with the image" in done.err) is (setting != "new-instance")


@pytest.mark.sample(2)
def test_a_key_that_a_person_puts_into_an_image_is_news_on_its_instance(world: World, boot: Boot) -> None:
    """Never seen where it was put in: the warning comes as soon as this is known to be another instance."""
    boot(FIRST)
    put_own_keys(world.machine)

    assert boot(SECOND).err.count("have come with the image") == len(QUICK)
    assert "have come with the image" not in boot(SECOND).err


def test_a_damaged_ledger_replaces_no_key(world: World, boot: Boot) -> None:
    """What is not known to be another's stays."""
    boot(FIRST)
    old = keys(world.machine)
    world.machine.path("/var/lib/firstkey/ledger.json").write_bytes(b"\0" * 100)
    boot(SECOND)

    assert keys(world.machine) == old


def test_a_key_made_by_hand_stays_when_the_firmware_begins_to_tell_the_same_instance(world: World) -> None:
    """From Xen to Nitro by a change of the type: the ledger has been on this instance before."""
    be_quick(world.machine)
    world.machine.configure("[Keys]\nUsers=admin\n")
    world.become(FIRST, world.key)
    world.machine.write(BOOT, "boot-xen\n")
    assert world.machine.run(world.service).status == 0
    private(world.machine, "ed25519").unlink()
    assert world.machine.firstkey("host-keys").status == 0
    before = private(world.machine, "ed25519").read_bytes()
    world.machine.write(BOOT, "boot-nitro\n")
    world.machine.set_firmware(FIRST)
    assert world.machine.run(world.service).status == 0
    assert private(world.machine, "ed25519").read_bytes() == before
