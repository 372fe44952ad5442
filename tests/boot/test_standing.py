"""When there is nothing to ask: the firmware's shortcut, and what ends it (promises 5, 6 and 8)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from machine import Run, World, fingerprint

from firstkey.metadata.emulator import Fault

FIRST, SECOND = "i-0000000000000001", "i-0000000000000002"
DEAD = Fault("status", 503)


@pytest.fixture(autouse=True)
def firmware(world: World) -> None:
    """A Nitro instance, and host keys of the type that is made at once."""
    world.machine.set_firmware(FIRST)
    world.machine.configure(configuration())


def configuration(more: str = "", users: str = "admin") -> str:
    """The configuration of these tests, and more."""
    return f"[HostKeys]\nTypes=ed25519\n[Keys]\nUsers={users}\n{more}"


def asked(world: World, *options: str) -> tuple[bool, Run]:
    """Whether a run asks the service, and the run."""
    before = len(world.service.requests)
    done = world.machine.run(world.service, *options)
    return len(world.service.requests) > before, done


def served(world: World) -> None:
    """A first run that leaves nothing to do."""
    assert world.machine.run(world.service).status == 0
    assert not asked(world)[0]


def test_the_report_still_tells_of_the_users(world: World) -> None:
    """A run that asks nothing knows who was served, and where."""
    served(world)
    report = asked(world)[1].report
    assert report["outcome"] == "ok"
    assert report["instance_id"] == FIRST
    (user,) = report["users"]
    assert (user["name"], user["file"]) == ("admin", "/home/admin/.ssh/authorized_keys")
    assert (user["result"], user["reason"]) == ("unchanged", None)


def test_a_dead_service_costs_a_later_boot_nothing(world: World) -> None:
    """Where the asset tag and the ledger agree, no network is needed."""
    served(world)
    world.service.inject(DEAD)
    done = world.machine.run(world.service)
    assert (done.status, done.report["outcome"]) == (0, "ok")


@pytest.mark.parametrize(
    "change",
    [
        lambda machine: machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/keys\n"),
        lambda machine: machine.write("/etc/ssh/sshd_config", "Include /etc/ssh/more.conf\n"),
        lambda machine: machine.configure(configuration("[User admin]\nAuthorizedKeysFile=~/.ssh/keys\n")),
        lambda machine: machine.add_user("second"),
        lambda machine: machine.configure(configuration(users="admin second")),
        lambda machine: machine.configure(configuration("RedirectRoot=yes\n")),
        lambda machine: machine.set_firmware(SECOND),
        lambda machine: machine.path("/var/lib/firstkey/ledger.json").unlink(),
    ],
    ids=["file", "include", "section", "nobody", "user", "redirect", "firmware", "ledger"],
)
@pytest.mark.sample(8)
def test_a_change_of_the_conditions_is_asked_about(world: World, change: Any, request: Any) -> None:
    """Whatever decides where keys go and who gets them; an account of nobody's concern does not."""
    served(world)
    change(world.machine)
    assert asked(world)[0] == (request.node.callspec.id != "nobody")


@pytest.mark.parametrize(
    "options", [("--force",), ("--user", "second"), ("--user", "admin", "--user", "second")]
)
@pytest.mark.sample(3)
def test_who_asks_for_more_is_served(world: World, options: tuple[str, ...]) -> None:
    """Force, and users who were not served yet."""
    world.machine.add_user("second")
    served(world)
    assert asked(world, *options)[0]


def test_a_user_is_served_again_in_another_home(world: World) -> None:
    """The account's line in passwd(5) is one of the conditions."""
    served(world)
    world.machine.accounts[0] = world.machine.accounts[0].replace("/home/admin", "/srv/admin")
    world.machine.write("/etc/passwd", "\n".join(world.machine.accounts) + "\n")
    world.machine.path("/srv/admin").mkdir(parents=True)
    world.machine.path("/srv/admin").chmod(0o755)
    was_asked, done = asked(world)
    assert was_asked
    assert done.user("admin")["added"] == [fingerprint(world.key)]


def test_a_key_that_could_not_be_had_is_asked_for_again(world: World) -> None:
    """One of two keys was refused: the instance is not done with."""
    world.service.change(keys=(("good", world.key), ("bad", "<html>")))
    assert world.machine.run(world.service).status == 1
    second = world.another_key("second")
    world.service.change(keys=(("good", world.key), ("bad", second)))
    was_asked, done = asked(world)
    assert (was_asked, done.status) == (True, 0)
    assert world.machine.keys == [world.key, second]


def test_a_user_who_could_not_be_served_is_tried_again(world: World) -> None:
    """As soon as the home is there."""
    home = world.machine.path("/home/admin")
    home.rmdir()
    assert world.machine.run(world.service).status == 1
    home.mkdir()
    home.chmod(0o755)
    assert asked(world)[1].status == 0
    assert world.machine.keys == [world.key]


@pytest.mark.slow
def test_a_user_with_another_file_to_clear_is_tried_again(world: World) -> None:
    """That another instance's key went from an earlier file says nothing of the file for the new one."""
    served(world)
    place = world.machine.path("/home/admin/.ssh/launch")
    place.write_bytes(b"in the way")
    world.machine.write(
        "/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\nAuthorizedKeysFile .ssh/launch/keys\n"
    )
    second = world.another_key("second")
    world.machine.set_firmware(SECOND)
    world.become(SECOND, second)
    assert world.machine.run(world.service).report["outcome"] == "partial"
    assert world.machine.keys == []
    place.unlink()
    assert asked(world)[1].status == 0
    assert (place / "keys").read_text().splitlines() == [second]
    was_asked, done = asked(world)
    assert not was_asked
    assert done.user("admin")["file"] == "/home/admin/.ssh/launch/keys"


def test_an_intention_is_not_forgotten(world: World) -> None:
    """The power went between the ledger and the file: the firmware alone is no reason to be content."""
    served(world)
    file = world.machine.path("/var/lib/firstkey/ledger.json")
    from firstkey.boot import ledger
    from firstkey.boot.ledger import PENDING
    from firstkey.system.tree import Tree

    with Tree(str(world.machine.root)) as tree:
        known, _ = ledger.load(tree)
        ledger.save(tree, known._replace(keys=tuple(key._replace(state=PENDING) for key in known.keys)))
    world.machine.write_keys("")
    assert asked(world)[0]
    assert world.machine.keys == [world.key]
    assert json.loads(file.read_text())["ledger"]["keys"][0]["state"] == "installed"


@pytest.mark.slow
def test_revoking_that_was_switched_on_again_is_done(world: World) -> None:
    """Lines of another instance that are still there are something to do."""
    world.machine.configure(configuration("Revoke=never\n"))
    world.machine.run(world.service)
    world.machine.set_firmware(SECOND)
    world.become(SECOND, world.another_key("second"))
    served(world)
    assert world.key in world.machine.keys
    world.machine.configure(configuration())
    assert asked(world)[0]
    assert world.key not in world.machine.keys


def test_revoking_that_was_switched_on_again_leaves_what_is_this_instances_as_well(world: World) -> None:
    """The line that was let stay is the launch key here, too: without it nobody could log in."""
    world.machine.configure(configuration("Revoke=never\n"))
    world.machine.run(world.service)
    world.machine.set_firmware(SECOND)
    world.become(SECOND, world.key)
    served(world)
    world.machine.configure(configuration())
    assert not asked(world)[0]
    assert world.machine.keys == [world.key]


def test_without_a_key_pair_nothing_is_asked_again(world: World) -> None:
    """That is an answer, too, also with RedirectRoot."""
    world.machine.add_user("root", home="/root")
    world.machine.configure(configuration("RedirectRoot=yes\n"))
    world.service.change(keys=())
    served(world)


def test_modes_are_looked_at_without_asking(world: World) -> None:
    """Port 22 open means that the key works: what firstkey made is repaired, what a person made reported."""
    served(world)
    world.machine.keys_file.parent.chmod(0o777)
    was_asked, done = asked(world)
    assert (was_asked, done.status, done.user("admin")["result"]) == (False, 0, "changed")
    assert world.machine.keys_file.parent.stat().st_mode & 0o777 == 0o700
    world.machine.path("/home/admin").chmod(0o777)
    was_asked, done = asked(world)
    assert (was_asked, done.status, done.user("admin")["reason"]) == (False, 1, "bad-modes")


# --- the firmware and the service disagree ----------------------------------------------------------


def test_a_service_that_names_another_instance_is_believed_and_told(world: World) -> None:
    """In a container, the firmware is the host's: host keys are made once, not at each run."""
    world.machine.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
    world.machine.set_firmware("i-0fffffffffffffff1")
    done = world.machine.run(world.service)
    assert (done.status, done.report["instance_id"]) == (0, FIRST)
    assert "firmware-disagrees" in {warning["reason"] for warning in done.report["warnings"]}
    assert [key["reason"] for key in done.report["host_keys"]] == [None]
    assert "REPLACED" not in done.err
    before = world.machine.snapshot()
    was_asked, done = asked(world)
    assert not was_asked
    assert done.report["instance_id"] == FIRST
    asked(world, "--force")
    assert world.machine.snapshot() == before
    world.machine.write("/proc/sys/kernel/random/boot_id", "boot-2\n")
    host_keys = world.machine.host_keys()
    asked(world, "--force")
    assert world.machine.host_keys() == host_keys


def test_another_firmware_is_another_instance_for_such_a_machine_too(world: World) -> None:
    """The image of a container's disk on another host."""
    world.machine.set_firmware("i-0fffffffffffffff1")
    world.machine.run(world.service)
    host_keys = world.machine.host_keys()
    world.machine.set_firmware("i-0fffffffffffffff2")
    world.service.inject(DEAD)
    assert world.machine.run(world.service, "--wait", "0.2").status == 75
    assert world.machine.keys == []
    assert not set(host_keys.values()) & set(world.machine.host_keys().values())


@pytest.mark.parametrize("tag", ["Not Specified", "", "i-", "i-../../etc", "i-" + "0" * 500, "i-0\x1b[2J"])
@pytest.mark.sample(6)
def test_a_tag_that_is_no_instance_id_says_nothing(world: World, tag: str) -> None:
    """Other platforms write other things there."""
    world.machine.write("/sys/class/dmi/id/board_asset_tag", f"{tag}\n")
    done = world.machine.run(world.service)
    assert (done.status, done.report["warnings"]) == (0, [])
    assert asked(world)[0]


def test_redirection_says_nothing_where_nothing_is_known(world: World) -> None:
    """A dead service is no reason to speak of root."""
    world.machine.configure(configuration("RedirectRoot=yes\n"))
    world.service.inject(DEAD)
    done = world.machine.run(world.service, "--wait", "0.2")
    assert done.status == 75
    assert "redirect-without-user" not in done.err


# --- the report -------------------------------------------------------------------------------------

FIELDS = {
    "": {
        "version", "outcome", "instance_id", "imds", "keys", "users", "host_keys", "timeline", "warnings",
        "dry_run",
    },
    "imds": {"endpoint", "version", "fallback_reason"},
    "keys": {"index", "name", "type", "fingerprint", "refused"},
    "users": {"name", "file", "result", "added", "revoked", "reason"},
    "host_keys": {"type", "file", "result", "fingerprint", "reason"},
    "timeline": {"phase", "start_ms", "end_ms"},
}  # fmt: skip
"""As published (DESIGN: Report)."""


def test_the_report_has_the_published_fields(world: World) -> None:
    """Fields may be added, not removed or renamed; the saved report is the same as the printed one."""
    done = world.machine.run(world.service)
    report = done.report
    assert FIELDS[""] <= set(report)
    assert FIELDS["imds"] <= set(report["imds"])
    for part in ("keys", "users", "host_keys", "timeline"):
        assert report[part]
        assert all(FIELDS[part] <= set(each) for each in report[part])
    assert report["version"] == 1
    assert all(0 <= phase["start_ms"] <= phase["end_ms"] for phase in report["timeline"])
    saved = json.loads(world.machine.path("/run/firstkey/report.json").read_text())
    assert saved == report
    assert world.key.split()[1] not in done.out


def test_every_outcome_has_a_sentence(world: World) -> None:
    """What a person reads ends with what it comes to, and names what to do where something is wrong."""
    shown = world.machine.firstkey("run", service=world.service).out
    assert shown.endswith("Outcome: ok (done)\n")
    shown = world.machine.firstkey("run", "--user", "nobodyhere", service=world.service).out
    assert "! nobodyhere" in shown
    assert "What to do: Create the account" in shown
    assert shown.endswith("Outcome: failed (see what is marked with !)\n")
