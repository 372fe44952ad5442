"""Which lines come and go, run after run, and what the report says of it (promises 3, 5, 6 and 8)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from machine import AGENT, SSHD_CONFIG, Run, World, fingerprint, new_key

from firstkey.boot import launch_keys
from firstkey.model import Account, OfferedKey
from firstkey.ssh import key_options
from firstkey.ssh.public_key import parse_launch_key
from firstkey.ssh.sshd_config import Effective

FIRST, SECOND, THIRD = "i-0000000000000001", "i-0000000000000002", "i-0000000000000003"


@pytest.fixture(autouse=True)
def quick_host_keys(world: World) -> None:
    """This is not about host keys: only the type that is made at once."""
    world.machine.configure(configuration())


def configuration(more: str = "") -> str:
    """The configuration of these tests, and more of [Keys] or other sections."""
    return f"[HostKeys]\nTypes=ed25519\n[Keys]\nUsers=admin\n{more}"


def ledger(world: World) -> dict[str, Any]:
    """The ledger's content."""
    whole = json.loads(world.machine.path("/var/lib/firstkey/ledger.json").read_text())
    found: dict[str, Any] = whole["ledger"]
    return found


def run(world: World, *options: str, status: int = 0) -> Run:
    """A run that ends as expected."""
    done = world.machine.run(world.service, *options)
    assert done.status == status, f"{done.out}{done.err}"
    return done


# --- one key in several lines -----------------------------------------------------------------------


def test_a_persons_own_line_with_the_launch_key_stays(world: World) -> None:
    """Exactly the line that firstkey wrote goes; the warning says that the key still lets in."""
    run(world)
    mine = " ".join(world.key.split()[:2]) + " my laptop"
    world.machine.write_keys(f"{mine}\n{world.key}\n# end\n")
    second = world.another_key("second")
    world.become(SECOND, second)
    done = run(world)
    assert world.machine.keys == [mine, "# end", second]
    assert done.user("admin")["revoked"] == done.user("admin")["left"] == [fingerprint(world.key)]
    assert "key-left-in-place" in {warning["reason"] for warning in done.report["warnings"]}


@pytest.mark.parametrize("offered", [[], ["junk"]], ids=["no-key-pair", "bad-key"])
@pytest.mark.sample(2)
def test_a_user_whose_old_key_goes_stands_in_the_report_once(world: World, offered: list[str]) -> None:
    """A re-bundled image on an instance that brings no key of its own: one entry a user and file."""
    run(world)
    world.become(SECOND, *offered)
    done = run(world, status=1 if offered else 0)
    (user,) = done.report["users"]
    assert (user["file"], user["result"]) == ("/home/admin/.ssh/authorized_keys", "changed")
    assert user["revoked"] == [fingerprint(world.key)]


def test_of_two_equal_lines_one_goes(world: World) -> None:
    """Firstkey wrote one of them; the other one is somebody's, whatever it reads like."""
    run(world)
    world.machine.write_keys(f"{world.key}\n# mine\n{world.key}\n")
    world.become(SECOND)
    run(world)
    assert world.machine.keys == ["# mine", world.key]


def test_the_line_goes_from_a_file_that_was_converted(world: World) -> None:
    """Line endings of DOS do not make it a person's."""
    run(world)
    world.machine.write_keys(f"# mine\r\n{world.key}\r\n".encode())
    world.become(SECOND)
    run(world)
    assert world.machine.keys_file.read_bytes() == b"# mine\r\n"


@pytest.mark.slow
def test_a_name_that_changed_does_not_hide_the_line(world: World) -> None:
    """The same key pair under another name, instance after instance: the line is still known in the end."""
    run(world)
    renamed = " ".join(world.key.split()[:2]) + " renamed"
    world.become(SECOND, renamed)
    run(world)
    assert world.machine.keys == [world.key]
    third = world.another_key("third")
    world.become(THIRD, third)
    run(world)
    assert world.machine.keys == [third]


@pytest.mark.slow
def test_a_line_that_a_person_restricted_since_stays_and_is_told(world: World) -> None:
    """The same key pair on the second instance: it is still firstkey's to look for when it is another's."""
    run(world)
    mine = f"restrict {world.key}"
    world.machine.write_keys(f"{mine}\n")
    world.become(SECOND, world.key)
    run(world)
    assert world.machine.keys == [mine]
    third = world.another_key("third")
    world.become(THIRD, third)
    done = run(world)
    assert world.machine.keys == [mine, third]
    assert done.user("admin")["left"] == [fingerprint(world.key)]


def test_two_offered_keys_that_are_one_are_added_once(world: World) -> None:
    """The index may list a key twice."""
    world.service.change(keys=(("a", world.key), ("b", world.key)))
    assert run(world).user("admin")["added"] == [fingerprint(world.key)]
    assert world.machine.keys == [world.key]
    assert run(world).user("admin")["result"] == "unchanged"


# --- what a person did since ------------------------------------------------------------------------


def test_a_file_that_was_removed_stays_away(world: World) -> None:
    """Once an instance: taking out the whole file takes the key out, too."""
    run(world)
    shutil.rmtree(world.machine.keys_file.parent)
    run(world)
    assert not world.machine.keys_file.parent.exists()
    run(world, "--force")
    assert world.machine.keys == [world.key]


@pytest.mark.slow
def test_what_a_person_took_out_stays_out_when_sshd_reads_the_file_again(world: World) -> None:
    """Meanwhile sshd was to read another file, in a directory that was never made."""
    host_key = "HostKey /etc/ssh/ssh_host_ed25519_key\n"
    run(world)
    world.machine.write_keys("")
    for files in (".ssh/others/keys", ".ssh/authorized_keys"):
        world.machine.write("/etc/ssh/sshd_config", f"{host_key}AuthorizedKeysFile {files}\n")
        run(world)
        assert world.machine.keys == []
        assert not world.machine.path("/home/admin/.ssh/others").exists()


def test_a_persons_key_that_was_the_launch_key_can_be_taken_out(world: World) -> None:
    """There before firstkey, and taken out since: it stays out on this instance, and comes with another."""
    world.machine.write_keys(f"{world.key}\n")
    run(world)
    world.machine.write_keys("# empty\n")
    run(world)
    assert world.machine.keys == ["# empty"]
    world.become(SECOND, world.key)
    run(world)
    assert world.machine.keys == ["# empty", world.key]


def test_a_second_key_comes_although_the_first_was_taken_out(world: World) -> None:
    """Each key for itself."""
    run(world)
    world.machine.write_keys("")
    second = world.another_key("second")
    world.service.change(keys=(("a", world.key), ("b", second)))
    run(world)
    assert world.machine.keys == [second]


def test_force_adds_no_key_twice(world: World) -> None:
    """It puts back what is missing, and nothing else."""
    world.machine.write_keys(f"restrict {world.key}\n")
    run(world)
    run(world, "--force")
    assert world.machine.keys == [f"restrict {world.key}"]


def test_a_line_that_sshd_ignores_is_told(world: World) -> None:
    """Not doubled, as somebody meant to restrict the key; but nobody should wonder why it does not work."""
    line = f'form="192.0.2.1" {world.key}'
    world.machine.write_keys(f"{line}\n")
    done = run(world, status=1)
    assert world.machine.keys == [line]
    assert done.user("admin")["reason"] == "key-line-ignored"
    assert "form=" in done.err


# --- users and files that come and go ---------------------------------------------------------------


def test_keys_of_users_who_are_no_users_any_more_go_too(world: World) -> None:
    """Users= was changed before the image was made."""
    world.machine.add_user("second")
    run(world, "--user", "admin", "--user", "second")
    world.become(SECOND, world.another_key("new"))
    done = run(world)
    assert done.user("second")["revoked"] == [fingerprint(world.key)]
    assert world.machine.path("/home/second/.ssh/authorized_keys").read_text() == ""


def test_a_user_who_is_gone_is_no_failure(world: World) -> None:
    """Nobody can log in as somebody who is not there; should the account come back, its key goes then."""
    world.machine.add_user("second")
    run(world, "--user", "second")
    kept = world.machine.accounts.pop()
    world.machine.write("/etc/passwd", "\n".join(world.machine.accounts) + "\n")
    world.become(SECOND, world.another_key("new"))
    run(world)
    assert world.key in world.machine.path("/home/second/.ssh/authorized_keys").read_text()
    world.machine.write("/etc/passwd", "\n".join([*world.machine.accounts, kept]) + "\n")
    run(world)
    assert world.machine.path("/home/second/.ssh/authorized_keys").read_text() == ""


def test_a_home_that_moved_gets_the_key(world: World) -> None:
    """The account's home is another directory by now: the key must be where sshd looks."""
    run(world)
    world.machine.accounts[0] = world.machine.accounts[0].replace("/home/admin", "/srv/admin")
    world.machine.write("/etc/passwd", "\n".join(world.machine.accounts) + "\n")
    world.machine.path("/srv/admin").mkdir(parents=True)
    world.machine.path("/srv/admin").chmod(0o755)
    done = run(world)
    assert done.user("admin")["file"] == "/srv/admin/.ssh/authorized_keys"
    assert world.machine.path("/srv/admin/.ssh/authorized_keys").read_text() == f"{world.key}\n"


@pytest.mark.root
def test_the_root_directory_as_a_home(world: World) -> None:
    """Only root can write there, so the file is root's."""
    machine = world.machine
    machine.accounts.append("daemon:x:3000:3000::/:/bin/sh")
    machine.write("/etc/passwd", "\n".join(machine.accounts) + "\n")
    machine.root.chmod(0o755)
    assert run(world, "--user", "daemon").user("daemon")["reason"] is None
    file = machine.path("/.ssh/authorized_keys")
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o644)


@pytest.mark.sshd
def test_a_file_of_the_sections_own_is_used_and_told_if_sshd_does_not_read_it(world: World) -> None:
    """The settings say where; sshd says whether that is any use."""
    world.machine.configure(configuration("[User admin]\nAuthorizedKeysFile=~/.ssh/others\n"))
    for _ in range(2):
        done = run(world)
        assert done.user("admin")["file"] == "/home/admin/.ssh/others"
        assert "not-read-by-sshd" in {warning["reason"] for warning in done.report["warnings"]}
    assert world.machine.path("/home/admin/.ssh/others").read_text() == f"{world.key}\n"
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile %h/.ssh/others\n")
    assert run(world).report["warnings"] == []


@pytest.mark.sshd
@pytest.mark.parametrize("strict", ["yes", "no"])
def test_modes_count_where_they_count_for_sshd(world: World, strict: str) -> None:
    """Without StrictModes, sshd reads a file that others can write: it restricts its keys, and is no flaw."""
    world.machine.write("/etc/ssh/sshd_config", f"{SSHD_CONFIG}StrictModes {strict}\n")
    world.machine.set_firmware("i-0000000000000001")
    world.machine.path("/home/admin/.ssh").mkdir(mode=0o700)
    restricted = f'restrict,command="true" {world.key}\n'
    world.machine.write("/home/admin/.ssh/authorized_keys2", restricted, mode=0o666)
    run(world)
    assert world.machine.keys == ([world.key] if strict == "yes" else [])

    world.machine.path("/home/admin").chmod(0o777)
    assert world.machine.run(world.service).user("admin")["reason"] == (
        "bad-modes" if strict == "yes" else None
    )


@pytest.mark.sshd
@pytest.mark.parametrize("setting, is_refused", [
    ("PermitRootLogin no", os.getuid() == 0),  # the user of these tests has the caller's number
    ("PermitRootLogin forced-commands-only", os.getuid() == 0),
    ("ForceCommand true\nPermitRootLogin forced-commands-only", os.getuid() == 0),  # not the key's
    ("AuthenticationMethods password keyboard-interactive", True),
    ("AuthenticationMethods password publickey,keyboard-interactive", False),
    ("Match User admin\nPubkeyAuthentication no", True),
    ("Match User bob\nPubkeyAuthentication no", False),
    ("DenyUsers ad*", True),
    ("AllowUsers bob", True),
    ("AllowUsers bob admin@192.0.2.*", False),  # from some places, that is
    ("AllowGroups wheel", True),
    ("Match Address *,!10.0.0.0/8\nPubkeyAuthentication no", False),
    ("Match LocalPort 22\nDenyUsers admin", False),
])  # fmt: skip
def test_a_user_whom_sshd_refuses_is_reported(world: World, setting: str, *, is_refused: bool) -> None:
    """The keys are in place and let nobody in: that is a warning with the setting, and no silent success."""
    world.machine.write("/etc/ssh/sshd_config", f"{setting}\n")
    done = run(world)
    assert ("(login-refused)" in done.err) == is_refused
    details = [each["detail"] for each in done.report["warnings"] if each["reason"] == "login-refused"]
    assert details == [f"sshd has {setting.splitlines()[-1]}"] * is_refused


@pytest.mark.sshd
def test_a_dry_run_warns_of_no_list_of_groups_that_the_run_would_satisfy(world: World) -> None:
    """The account that it does not make, or does not add to a group, is in none of these as yet."""
    world.machine.write("/etc/ssh/sshd_config", "AllowGroups wheel\n")
    world.machine.write("/etc/group", world.machine.path("/etc/group").read_text() + "wheel:x:10:\n")
    made = "[User deploy]\nCreate=yes\nGroups=wheel\n[User admin]\nGroups=wheel\n"
    world.machine.configure(configuration(f"Users=admin deploy\n{made}"))
    assert run(world, "--dry-run").report["warnings"] == run(world).report["warnings"] == []


def test_whose_groups_are_not_known_is_not_called_refused_for_them() -> None:
    """A directory service may be slow, or start after sshd: it is not asked."""
    account = Account("ann", 5000, 5000, "/home/ann", "/bin/sh")
    lists: dict[str, tuple[str, ...]] = {"allowgroups": ("wheel",), "denyusers": ("ann",)}
    assert launch_keys.barrier(Effective({"allowgroups": lists["allowgroups"]}), account, (), None) is None
    assert launch_keys.barrier(Effective(lists), account, (), None) == "DenyUsers ann"


@pytest.mark.sshd
@pytest.mark.slow
def test_a_file_in_another_order_is_not_lost(world: World) -> None:
    """The old file is read second by now: another instance's key goes there, and comes in the first one."""
    run(world)
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/first .ssh/authorized_keys\n")
    world.become(SECOND, world.key)
    run(world)
    assert world.machine.path("/home/admin/.ssh/first").read_text() == f"{world.key}\n"
    assert world.machine.keys == []


@pytest.mark.sshd
@pytest.mark.parametrize("option", [(), ("--force",)])
def test_a_file_that_is_read_second_since_is_still_cleared_on_another_instance(
    world: World, option: tuple[str, ...]
) -> None:
    """The key is there, and firstkey's own: it is not taken for a person's because it is not added again."""
    run(world)
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/first .ssh/authorized_keys\n")
    assert not run(world, *option).user("admin")["added"]
    another = world.another_key("another")
    world.become(SECOND, another)
    run(world)
    assert world.machine.keys == []
    assert world.machine.path("/home/admin/.ssh/first").read_text() == f"{another}\n"


@pytest.mark.sshd
def test_a_key_that_a_person_restricted_moves_with_its_options(world: World) -> None:
    """Where sshd reads another file alone by now. A line with another comment comes as firstkey writes it."""
    run(world)
    for name, old, new in [
        ("second", f"{world.key}s-own", world.key),
        ("third", f"no-pty {world.key}", f"no-pty {world.key}"),
    ]:
        last = next(world.machine.path("/home/admin/.ssh").iterdir())
        last.write_text(f"{old}\n")
        world.machine.write("/etc/ssh/sshd_config", f"AuthorizedKeysFile .ssh/{name}\n")
        run(world)
        assert world.machine.path(f"/home/admin/.ssh/{name}").read_text() == f"{new}\n"
        last.unlink()


@pytest.mark.sshd
def test_a_key_that_a_person_restricted_gets_no_plain_twin_on_another_instance(world: World) -> None:
    """The same key pair is launched with, and sshd reads the line's file second by now."""
    run(world)
    mine = f"no-pty {world.key}"
    world.machine.write_keys(f"{mine}\n")
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/first .ssh/authorized_keys\n")
    world.become(SECOND, world.key)
    for _ in range(2):
        assert not run(world).user("admin")["added"]
    assert world.machine.keys == [mine]
    assert not world.machine.path("/home/admin/.ssh/first").exists()


@pytest.mark.sshd
def test_a_redirection_moves_as_firstkeys_own(world: World) -> None:
    """It names the user of now, and goes on another instance: its options are no person's."""
    world.machine.add_user("root", home="/root")
    world.machine.add_user("bob")
    world.machine.configure(configuration("RedirectRoot=yes\n"))
    run(world)
    world.machine.configure(configuration("RedirectRoot=yes\n").replace("admin", "bob"))
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile .ssh/second\n")
    run(world)
    file = world.machine.path("/root/.ssh/second")
    assert 'as the user \\"bob\\" rather' in file.read_text()
    world.become(SECOND)
    run(world)
    assert file.read_text() == ""


@pytest.mark.sshd
def test_no_file_at_all_is_refused(world: World) -> None:
    """AuthorizedKeysFile none: the key could not let in, and the reason says so."""
    world.machine.write("/etc/ssh/sshd_config", "AuthorizedKeysFile none\n")
    assert run(world, status=1).user("admin")["reason"] == "authorized-keys-disabled"


# --- without keys -----------------------------------------------------------------------------------


def test_without_a_key_pair_not_even_a_missing_user_is_trouble(world: World) -> None:
    """There is nothing to do for anybody."""
    world.service.change(keys=())
    done = run(world, "--user", "nobodyhere")
    assert (done.report["outcome"], done.user("nobodyhere")["result"]) == ("no-key", "unchanged")


def test_without_a_key_pair_the_other_instances_key_goes(world: World) -> None:
    """The new instance trusts its own keys only: none."""
    run(world)
    world.become(SECOND)
    done = run(world)
    assert (done.report["outcome"], world.machine.keys) == ("no-key", [])


def test_a_bad_key_alone_revokes_all_the_same(world: World) -> None:
    """The other instance's key is not this one's, whatever this one's is."""
    run(world)
    world.become(SECOND, "no key at all")
    done = run(world, status=1)
    assert (done.report["outcome"], world.machine.keys) == ("failed", [])


def test_revoking_can_be_switched_off_and_on(world: World) -> None:
    """Revoke=never keeps them, and nothing is forgotten."""
    world.machine.configure(configuration("Revoke=never\n"))
    run(world)
    second = world.another_key("second")
    world.become(SECOND, second)
    run(world)
    assert world.machine.keys == [world.key, second]
    world.machine.configure(configuration())
    run(world)
    assert world.machine.keys == [second]


# --- the ledger -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_ledger_does_not_grow(world: World) -> None:
    """Instance after instance, it remembers what there is, not all that ever was."""
    world.machine.write_keys(f"{world.another_key('mine')}\n")
    sizes = []
    for number in range(1, 6):
        world.become(f"i-000000000000000{number}", world.key, world.another_key(f"key-{number}"))
        run(world)
        sizes.append(len(ledger(world)["keys"]))
    assert len(set(sizes)) == 1


def test_a_ledger_that_cannot_be_written_costs_no_login(world: World) -> None:
    """A disk that refuses: the key is in, the warning says that it is not remembered."""
    world.machine.write("/var/lib/firstkey", "a file where the directory belongs")
    done = run(world)
    assert world.machine.keys == [world.key]
    assert {warning["reason"] for warning in done.report["warnings"]} & {"not-a-directory", "ledger-damaged"}
    assert "state-not-saved" in done.err or "could not be written" in done.err


@pytest.mark.slow
def test_two_instances_in_one_ledger_are_told_apart(world: World) -> None:
    """The journal names the instance whose key goes, also where it is not the one before."""
    run(world)
    kept = world.machine.accounts.copy()
    world.machine.add_user("second")
    world.machine.write("/etc/passwd", "\n".join(kept) + "\n")
    world.become(SECOND, world.another_key("new"))
    done = run(world)
    assert f"of the earlier instance {FIRST} was revoked" in done.err


# --- interrupted ------------------------------------------------------------------------------------

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


def traced(world: World, call: str, injection: str) -> subprocess.Popen[bytes]:
    """A run under strace, which makes a system call kill or wait (strace(1): --inject)."""
    argv = ["strace", "-f", "-qq", "-o", "/dev/null"]
    argv += [f"--trace={call}", f"--inject={call}:{injection}"]
    argv += [sys.executable, "-m", "firstkey", "run", "-q", "--root", str(world.machine.root)]
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(AGENT)}
    return subprocess.Popen([*argv, "--imds", world.service.url], env=environ)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("call", ["renameat", "fsync", "fchmod", "unlinkat"])
def test_a_killed_run_is_completed_by_the_next(world: World, call: str) -> None:
    """Each of its processes dies at its first such call, then at its second: the old file or the new one."""
    run(world)
    mine = world.another_key("mine")
    world.machine.write_keys(f"{mine}\n")
    killed = 0
    for number in range(1, 13 if call == "fsync" else 9):
        key = world.another_key(f"key-{number}")
        before = world.machine.keys
        world.become(f"i-00000000000001{number:02}", key)
        killed += traced(world, call, f"signal=KILL:when={number}").wait(timeout=60) != 0
        assert world.machine.keys in (before, [mine, key])
        done = run(world)
        assert world.machine.keys == [mine, key], f"{call} {number}: {done.err}"
        assert [path.name for path in world.machine.keys_file.parent.iterdir()] == ["authorized_keys"]
    assert killed, f"nothing calls {call}"


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_a_line_that_failed_after_it_was_written_is_still_firstkeys(world: World, again: bool) -> None:
    """The directory cannot be synced after the rename: the line is there, and goes with the instance."""
    run(world)
    second = world.another_key("second")
    world.become(SECOND, second)
    assert traced(world, "fsync", "error=EIO:when=2").wait(timeout=60) == 1
    assert world.machine.keys == [second]
    if again:
        assert run(world).user("admin")["result"] == "unchanged"
    third = world.another_key("third")
    world.become(THIRD, third)
    run(world)
    assert world.machine.keys == [third]


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("call", ["linkat", "unlinkat"])
def test_a_killed_run_that_made_the_file_is_completed_by_the_next(world: World, call: str) -> None:
    """A file is new by its second name first: none of the two is left over, and the key is there."""
    killed = 0
    for number in range(1, 4):
        shutil.rmtree(world.machine.keys_file.parent, ignore_errors=True)
        key = world.another_key(f"key-{number}")
        world.become(f"i-00000000000001{number:02}", key)
        killed += traced(world, call, f"signal=KILL:when={number}").wait(timeout=60) != 0
        done = run(world)
        assert world.machine.keys == [key], f"{call} {number}: {done.err}"
        assert [path.name for path in world.machine.keys_file.parent.iterdir()] == ["authorized_keys"]
    assert killed, f"nothing calls {call}"


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("is_new, call", [(False, "fsync"), (True, "fsync"), (True, "linkat,renameat")])
def test_a_line_that_somebody_appends_meanwhile_is_kept(world: World, is_new: bool, call: str) -> None:
    """Before a file has its new name another program writes: that is noticed, and the merge is done again.

    A new file never replaces; where an old one is replaced, the last look is a moment before.
    """
    mine, other = world.another_key("mine"), world.another_key("other")
    world.machine.keys_file.parent.mkdir(mode=0o700)
    if not is_new:
        world.machine.write_keys(f"{mine}\n")
    with traced(world, call, "delay_enter=400000") as running:
        directory = world.machine.keys_file.parent
        while running.poll() is None and not any(
            path.stat().st_size for path in directory.glob(".firstkey-authorized_keys.*")
        ):
            time.sleep(0.005)
        assert running.poll() is None, "the run ended before it wrote"
        with world.machine.keys_file.open("a") as file:
            file.write(f"{other}\n")
    assert world.machine.keys == [*([] if is_new else [mine]), other, world.key]


# --- pure functions ---------------------------------------------------------------------------------


def test_a_good_key_beside_bad_ones_is_taken(tmp_path: Path) -> None:
    """Each offered key has its result."""
    line = new_key(tmp_path, "launch")
    keys, judged = launch_keys.judge(
        [OfferedKey("0", "bad", b"<html>"), OfferedKey("1", "good", line.encode()), OfferedKey("2", "", b"")]
    )
    assert [key.line for key in keys] == [line]
    assert [bool(result.refusal) for result in judged] == [True, False, True]


def test_a_point_beside_its_curve_is_refused(tmp_path: Path) -> None:
    """As OpenSSH has it; one on the curve is taken."""
    good = new_key(tmp_path, "launch", kind="ecdsa")
    fields = (b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"p" * 64)
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    bad = b"ecdsa-sha2-nistp256 " + base64.b64encode(blob)
    keys, judged = launch_keys.judge([OfferedKey("0", "bad", bad), OfferedKey("1", "good", good.encode())])
    assert [key.line for key in keys] == [good]
    assert [key.refusal and key.refusal.reason.code for key in judged] == ["not-a-public-key", None]


def test_without_ssh_keygen_a_key_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sshd would not take after all costs nothing: it passes over the line."""
    line = new_key(tmp_path, "launch", kind="ecdsa")
    (tmp_path / "ssh-keygen").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    keys, judged = launch_keys.judge([OfferedKey("0", "launch", line.encode())])
    assert ([key.line for key in keys], judged[0].refusal) == ([line], None)


@pytest.mark.parametrize("user", ["admin", "ec2-user", "a.b_c$", "x" * 31])
def test_the_redirection_is_one_that_sshd_understands(tmp_path: Path, user: str) -> None:
    """Its options are known, and its shell command says what it should."""
    key = parse_launch_key(new_key(tmp_path, "launch").encode())
    (line,) = launch_keys.lines([key], redirect_to=user)
    text = line.options
    assert key_options.parse_options(text).flaw is None
    options = text.encode()
    command = options.split(b'command="', 1)[1].removesuffix(b'"').replace(b'\\"', b'"').decode()
    shell = command.replace("sleep 10", "sleep 0")
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout == f'Please login as the user "{user}" rather than the user "root".\n\n'
    assert done.returncode == 142
    assert line.text.decode() == f"{options.decode()} {key.line}\n"


@pytest.mark.slow
def test_modes_of_what_a_person_made_are_reported_and_stay(world: World) -> None:
    """Only what firstkey made is firstkey's to repair."""
    world.machine.write_keys("# mine\n")
    paths = (world.machine.keys_file, world.machine.keys_file.parent)
    for path in paths:
        path.chmod(0o777)
    assert run(world, status=1).user("admin")["reason"] == "bad-modes"
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o777, 0o777]


def test_modes_of_new_files_do_not_depend_on_the_caller(world: World) -> None:
    """Whatever its umask, the result is the same."""
    environ = {"PATH": "/usr/bin:/bin:/usr/sbin", "PYTHONPATH": str(AGENT)}
    for umask in ("000", "077"):
        shutil.rmtree(world.machine.keys_file.parent, ignore_errors=True)
        shell = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, "-m", "firstkey", "run"]
        options = ["-q", "--force", "--root", str(world.machine.root), "--imds", world.service.url]
        subprocess.run([*shell, *options], check=True, env=environ)
        paths = (world.machine.keys_file, world.machine.keys_file.parent)
        assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o700]
