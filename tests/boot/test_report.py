"""What a run says of itself: each sentence agrees with the others and with the report."""

from __future__ import annotations

import pytest
from machine import World

from firstkey.metadata.emulator import Fault


def test_modes_that_were_repaired_are_no_nothing(world: World) -> None:
    """The summary tells of what the report calls changed."""
    world.machine.run(world.service)
    world.machine.keys_file.chmod(0o666)
    done = world.machine.run(world.service)

    assert (done.status, done.user("admin")["result"]) == (0, "changed")
    assert "Finished with outcome ok: 1 key file repaired." in done.err


def test_a_user_whom_sshd_keeps_out_is_in_the_summary(world: World) -> None:
    """Nothing says that the key lets in where sshd ignores its file; nor later, with nothing to add."""
    world.machine.path("/home/admin").chmod(0o777)
    done = world.machine.run(world.service)
    assert (done.report["outcome"], done.user("admin")["reason"]) == ("partial", "bad-modes")
    assert (
        "outcome partial: 1 launch key added, 1 host key generated or repaired, 1 user kept out" in done.err
    )
    assert "was added to /home/admin/.ssh/authorized_keys of admin." in done.err
    assert "sshd ignores the keys of admin" in done.err
    assert "now lets" not in done.err

    done = world.machine.run(world.service)
    assert "Finished with outcome partial: 1 user kept out by sshd." in done.err


def test_a_refused_key_is_in_the_summary(world: World) -> None:
    """The other key is installed; what makes the outcome partial is said."""
    world.become("i-0000000000000001", "junk", world.key)
    done = world.machine.run(world.service)
    assert "outcome partial: 1 launch key added" in done.err
    assert "1 launch key refused." in done.err


@pytest.mark.parametrize("status", [500, 404])
@pytest.mark.slow
def test_an_answer_that_is_of_no_use_is_not_called_none(world: World, status: int) -> None:
    """The service answers each time; the remedy promises nothing that a run by hand does not do."""
    world.machine.firstkey("host-keys")
    world.service.inject(Fault("status", status))
    done = world.machine.firstkey("run", "--wait", "10", service=world.service)

    assert done.status == 75
    for said in (done.out, done.err):
        assert f"answered with {status}" in said
        assert "no answer" not in said
        assert "firstkey tries again" not in said
    assert "Finished with outcome unreachable: no usable answer of the metadata service." in done.err


def test_why_there_is_no_launch_key_stands_under_its_heading(world: World) -> None:
    """And not under that of the host keys, which have nothing to do with it."""
    world.service.change(keys=())
    lines = world.machine.firstkey("run", service=world.service).out.splitlines()
    at = lines.index("Launch keys offered:")
    assert lines[at + 1] == "  none"
    assert lines[at + 2].endswith("launched without a key pair (no-key-pair)")
    assert lines[at + 3].startswith("    What to do: ")
    assert lines[-2].startswith("  ed25519 ")

    world.service.inject(Fault("status", 500))
    done = world.machine.firstkey("run", "--wait", "0.5", "--force", service=world.service)
    lines = done.out.splitlines()
    at = lines.index("Launch keys offered:")
    assert lines[at + 1] == "! unknown"
    assert "(imds-" in lines[at + 2]
    assert lines[-2].startswith("  ed25519 ")


def test_a_dry_run_says_what_would_be_done(world: World) -> None:
    """Nothing in it reads as if it had been done."""
    world.machine.ask_for_all_host_keys()
    done = world.machine.firstkey("run", "--dry-run", service=world.service)
    assert "outcome ok: 1 launch key would be added, 3 host keys would be generated or repaired." in done.err
    assert done.out.splitlines()[-1] == "Outcome: ok (a dry run: nothing was changed)"

    world.machine.configure("[Keys]\nUsers=nobody-here\n")
    done = world.machine.firstkey("run", "--dry-run", service=world.service)
    assert "3 host keys would be generated or repaired, 1 user would not be served." in done.err
