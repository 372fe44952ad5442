"""The whole job on real files, against a real HTTP service: DESIGN's promises 3, 5, 6 and 8."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from typing import Any, NoReturn

import pytest
from machine import Machine, World, fingerprint, new_key

from firstkey import config, reasons
from firstkey.boot.job import Job
from firstkey.boot.target import Target
from firstkey.metadata.emulator import Fault
from firstkey.model import Report
from firstkey.reasons import FirstkeyError, Unreachable
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree


def test_the_first_run_installs_the_launch_key_and_makes_host_keys(world: World) -> None:
    """A fresh machine has the key, with sshd's modes, and one host key of each type."""
    world.machine.ask_for_all_host_keys()
    done = world.machine.run(world.service)

    assert (done.status, done.report["outcome"]) == (0, "ok")
    assert world.machine.keys == [world.key]
    assert stat.S_IMODE(world.machine.keys_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.machine.keys_file.parent.stat().st_mode) == 0o700
    assert [key["type"] for key in done.report["host_keys"]] == ["rsa", "ecdsa", "ed25519"]
    assert all(key["result"] == "changed" for key in done.report["host_keys"])


def test_the_report_says_what_ssh_keygen_says(world: World) -> None:
    """Fingerprints in the report are those of the files."""
    report = world.machine.run(world.service).report

    assert report["keys"][0]["fingerprint"] == fingerprint(world.key)
    assert report["users"][0]["added"] == [fingerprint(world.key)]
    assert {key["fingerprint"] for key in report["host_keys"]} == {
        fingerprint(line) for line in world.machine.host_keys().values()
    }
    saved = json.loads(world.machine.path("/run/firstkey/report.json").read_text())
    assert saved["instance_id"] == report["instance_id"] == "i-0000000000000001"
    assert stat.S_IMODE(world.machine.path("/run/firstkey/report.json").stat().st_mode) == 0o644


def test_a_second_run_writes_no_file(world: World) -> None:
    """Promise 5: inode, time and mode of every file are as before."""
    world.machine.run(world.service)
    before = world.machine.snapshot()

    done = world.machine.run(world.service)

    assert world.machine.snapshot() == before
    assert done.status == 0
    assert {user["result"] for user in done.report["users"]} == {"unchanged"}


def test_a_second_run_writes_no_file_where_the_first_only_took_keys_away(world: World) -> None:
    """An instance without a key pair, of another one's image: the ledger is complete after the first run."""
    world.machine.run(world.service)
    world.become("i-0000000000000002")
    world.machine.add_user("second")
    world.machine.configure("[Keys]\nUsers=admin second\n")
    world.machine.run(world.service)
    before = world.machine.snapshot()

    world.machine.run(world.service)

    assert world.machine.keys == []
    assert world.machine.snapshot() == before


def test_what_a_person_took_out_stays_out(world: World) -> None:
    """Launch keys are installed once per instance; --force puts them back."""
    world.machine.run(world.service)
    own = world.another_key("own")
    world.machine.write_keys(f"{own}\n")

    assert world.machine.run(world.service).status == 0
    assert world.machine.keys == [own]
    world.machine.run(world.service, "--force")
    assert world.machine.keys == [own, world.key]


def test_another_instance_trusts_only_its_own_keys(world: World) -> None:
    """Promise 6: the earlier launch key goes, a person's key stays, host keys are new."""
    world.machine.run(world.service)
    own, second = world.another_key("own"), world.another_key("second")
    with world.machine.keys_file.open("a") as file:
        file.write(f"# mine\n{own}\n")
    before = world.machine.host_keys()
    world.become("i-0000000000000002", second)

    report = world.machine.run(world.service).report

    assert world.machine.keys == ["# mine", own, second]
    assert report["users"][0]["revoked"] == [fingerprint(world.key)]
    assert not set(before.values()) & set(world.machine.host_keys().values())
    assert {key["reason"] for key in report["host_keys"]} == {"host-key-cloned"}


def test_a_key_that_is_offered_twice_is_one_key(world: World) -> None:
    """Under two names, with two comments: it is known again as it was written, and is revoked."""
    twice = f"{' '.join(world.key.split()[:2])} another name"
    world.become("i-0000000000000001", world.key, twice)
    world.machine.run(world.service)
    assert world.machine.keys == [world.key]

    world.become("i-0000000000000002", second := world.another_key("second"))
    world.machine.run(world.service)

    assert world.machine.keys == [second]


def test_the_same_key_pair_on_another_instance_stays(world: World) -> None:
    """A key that is revoked and offered at once stays, and is still firstkey's to revoke later."""
    world.machine.run(world.service)
    world.become("i-0000000000000002", world.key)
    assert world.machine.run(world.service).status == 0
    assert world.machine.keys == [world.key]

    third = world.another_key("third")
    world.become("i-0000000000000003", third)
    world.machine.run(world.service)
    assert world.machine.keys == [third]


@pytest.mark.slow
def test_with_firmware_too_it_is_not_taken_out_and_put_back(world: World) -> None:
    """The firmware tells at once that it is another instance, but not whether the key is its own as well."""
    world.machine.set_firmware("i-0000000000000001")
    world.machine.run(world.service)
    world.machine.set_firmware("i-0000000000000002")
    world.become("i-0000000000000002", world.key)
    before = world.machine.keys_file.stat()
    for options in (["--dry-run"], []):
        (user,) = world.machine.run(world.service, *options).report["users"]
        assert (user["result"], user["added"], user["revoked"]) == ("unchanged", [], [])
    assert world.machine.keys_file.stat() == before
    assert world.machine.keys == [world.key]


@pytest.mark.parametrize("options", ["", 'from="192.0.2.0/24" '])
def test_a_key_that_was_there_before_is_never_revoked(world: World, options: str) -> None:
    """What a person put in is not firstkey's, though it is the launch key too, to the letter."""
    world.machine.write_keys(f"{options}{world.key}\n")
    world.machine.run(world.service)
    second = world.another_key("second")
    world.become("i-0000000000000002", second)
    world.machine.run(world.service)

    assert world.machine.keys == [f"{options}{world.key}", second]


def test_a_line_that_a_person_restricted_since_stays_with_a_warning(world: World) -> None:
    """The line is not the one that firstkey wrote any more."""
    world.machine.run(world.service)
    world.machine.write_keys(f"restrict {world.key}\n")
    second = world.another_key("second")
    world.become("i-0000000000000002", second)
    done = world.machine.run(world.service)

    assert world.machine.keys == [f"restrict {world.key}", second]
    assert "stays in" in done.err


@pytest.mark.parametrize(
    "before",
    [b"# no newline at the end", b"garbage \xff\xfe\x00 line\r\n", b"\r\n\r\n", b"\xef\xbb\xbf# bom\n"],
)
@pytest.mark.sample(4)
def test_other_lines_survive_byte_for_byte(world: World, before: bytes) -> None:
    """Promise 3: whatever stood there stands there still, before the new line."""
    world.machine.write_keys(before)
    world.machine.run(world.service)

    content = world.machine.keys_file.read_bytes()
    joint = b"" if before.endswith(b"\n") else b"\n"
    assert content == before + joint + world.key.encode() + b"\n"


def test_an_outage_changes_nothing(world: World) -> None:
    """Only a positively different instance-id is a new instance (exit 75, outcome unreachable)."""
    world.machine.run(world.service)
    before = world.machine.snapshot()
    world.service.inject(Fault("status", 500))

    done = world.machine.run(world.service, "--wait", "0.3")

    assert (done.status, done.report["outcome"]) == (75, "unreachable")
    assert world.machine.snapshot() == before


def test_host_keys_are_made_without_the_service(world: World) -> None:
    """A dead network does not cost the host keys."""
    world.service.inject(Fault("reset"))
    done = world.machine.run(world.service, "--wait", "0.2")

    assert done.status == 75
    assert len(world.machine.host_keys()) == 1


def test_without_a_key_pair_there_is_nothing_to_do(world: World) -> None:
    """It is said, and it is no failure."""
    world.service.change(keys=())
    done = world.machine.run(world.service)

    assert (done.status, done.report["outcome"], done.report["reason"]) == (0, "no-key", "no-key-pair")
    assert not world.machine.keys_file.exists()


def test_a_good_key_beside_a_bad_one_is_installed(world: World) -> None:
    """The bad one is refused with its reason, and the exit status tells."""
    world.service.change(keys=(("bad", "<html>no key</html>"), ("good", world.key)))
    done = world.machine.run(world.service)

    assert (done.status, done.report["outcome"]) == (1, "partial")
    assert [key["refused"] for key in done.report["keys"]] == ["not-a-public-key", None]
    assert world.machine.keys == [world.key]


def test_a_good_user_beside_a_bad_one_is_served(world: World) -> None:
    """A user who does not exist, or whose home is missing, costs the others nothing."""
    world.machine.add_user("homeless", make_home=False)
    done = world.machine.run(world.service, "--user", "nobodyhere", "--user", "homeless", "--user", "admin")

    assert done.status == 1
    assert [done.user(name)["reason"] for name in ("nobodyhere", "homeless", "admin")] == [
        "no-such-user",
        "home-missing",
        None,
    ]
    assert world.machine.keys == [world.key]
    assert not world.machine.path("/home/homeless").exists()


def test_a_remedy_names_nothing_of_a_tree(world: World) -> None:
    """Pasted on the host, it would work on the host's file or user of that name."""
    world.machine.add_user("homeless", make_home=False)
    key = "/etc/ssh/ssh_host_ed25519_key"
    world.machine.path(key).unlink(missing_ok=True)
    new_key(world.directory, "locked", "ed25519")
    locked = world.directory / "locked"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True)
    world.machine.write(key, locked.read_bytes(), mode=0o600)
    done = world.machine.firstkey("run", "--user", "homeless", service=world.service)
    assert "mkhomedir_helper NAME\n" in done.out
    assert "mkhomedir_helper NAME\n" in done.err
    assert "ssh-keygen -p -f FILE, or" in done.out


def test_a_dry_run_shows_a_diff_and_writes_nothing(world: World) -> None:
    """Not a file, not even in /run."""
    before = sorted(str(path) for path in world.machine.root.rglob("*"))
    done = world.machine.firstkey("run", "--dry-run", service=world.service)

    assert done.status == 0
    assert f"+{world.key}" in done.out
    assert "would change" in done.out
    assert sorted(str(path) for path in world.machine.root.rglob("*")) == before


@pytest.mark.parametrize(
    "file, made", [(None, None), (None, "/home/admin/.ssh"), ("/srv/keys/%u", "/srv/keys")]
)
def test_a_dry_run_ends_as_the_run_would(world: World, file: str | None, made: str | None) -> None:
    """With a file that is missing, one in a directory that others can write, and one outside of the home."""
    if file:
        world.machine.configure(f"[Keys]\nUsers=admin\n[User admin]\nAuthorizedKeysFile={file}\n")
    if made:
        world.machine.path(made).mkdir(parents=True)
        world.machine.path(made).chmod(0o777 if not file else 0o755)
    dry, real = world.machine.run(world.service, "--dry-run"), world.machine.run(world.service)

    assert real.status == (1 if made and not file else 0)
    assert dry.status == real.status
    (rehearsed,), (done,) = dry.report["users"], real.report["users"]
    assert {**rehearsed, "diff": None} == {**done, "diff": None}


def test_the_firmware_saves_asking(world: World) -> None:
    """Where the asset tag and the ledger agree, a later boot needs no network at all."""
    world.machine.set_firmware("i-0000000000000001")
    world.machine.run(world.service)
    asked = len(world.service.requests)

    done = world.machine.run(world.service)

    assert done.status == 0
    assert len(world.service.requests) == asked


def test_the_firmware_alone_revokes(world: World) -> None:
    """Another instance by its firmware, with a dead service: the old key goes all the same."""
    world.machine.set_firmware("i-0000000000000001")
    world.machine.run(world.service)
    before = world.machine.host_keys()
    world.machine.set_firmware("i-0000000000000002")
    world.service.inject(Fault("status", 503))

    done = world.machine.run(world.service, "--wait", "0.2")

    assert done.status == 75
    assert world.machine.keys == []
    assert not set(before.values()) & set(world.machine.host_keys().values())


LIST = "/latest/meta-data/public-keys/"
UNANSWERED = {
    "the list, for good": (Fault("html", path=LIST), 1, "is no line INDEX=NAME"),
    "the list, for now": (Fault("status", 500, path=LIST), 75, "answered with 500"),
    "the only key": (Fault("status", 404, path=f"{LIST}0/openssh-key"), 75, "answered with 404"),
}


@pytest.mark.parametrize("what", UNANSWERED)
@pytest.mark.sample(3)
def test_the_service_tells_the_instance_and_not_the_keys(world: World, what: str) -> None:
    """It is a positively different one: what is another one's goes, as soon as that is known (promise 6)."""
    world.machine.run(world.service)
    before = world.machine.host_keys()
    own, second = world.another_key("own"), world.another_key("second")
    world.machine.write_keys(f"{world.key}\n{own}\n")
    world.become("i-0000000000000002", second)
    fault, status, reason = UNANSWERED[what]
    world.service.inject(fault)

    done = world.machine.run(world.service, "--wait", "10")

    assert done.status == status
    assert done.report["instance_id"] == "i-0000000000000002"
    assert done.report["imds"]["endpoint"] == world.service.url
    assert [user["revoked"] for user in done.report["users"]] == [[fingerprint(world.key)]]
    assert reason in done.err
    assert done.err.count("This is a new instance") == 1
    assert world.machine.keys == [own]
    assert not set(before.values()) & set(world.machine.host_keys().values())
    new = world.machine.host_keys()

    world.service.inject()
    assert world.machine.run(world.service).status == 0
    assert world.machine.keys == [own, second]
    assert world.machine.host_keys() == new


@pytest.mark.slow
def test_what_the_service_answered_is_told_although_the_instance_was_news(world: World) -> None:
    """On a first boot nothing is left behind, and what was wrong for all the time is the reason."""
    world.service.inject(Fault("status", 500, path=LIST))
    done = world.machine.run(world.service, "--wait", "10")
    assert (done.status, done.report["instance_id"]) == (75, "i-0000000000000001")
    assert "answered with 500" in done.err


@pytest.mark.slow
def test_a_service_with_two_names_for_the_instance_is_not_followed_for_ever(world: World) -> None:
    """Each name would cost new host keys; the run ends in time."""
    world.machine.run(world.service)
    names = (f"i-{number:017x}" for number in range(2, 1000))
    world.service.inject(Fault("status", 500, path=LIST))
    ended = threading.Event()

    def rename() -> None:
        while not ended.wait(0.05):
            world.service.change(instance_id=next(names))

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        done = world.machine.run(world.service, "--wait", "4")
    finally:
        ended.set()
        thread.join()
    assert done.status == 75
    assert done.err.count("HOST KEY REPLACED") <= 9


def test_a_user_added_later_is_asked_for(world: World) -> None:
    """The firmware's shortcut is only for users who have been served."""
    world.machine.set_firmware("i-0000000000000001")
    world.machine.run(world.service)
    world.machine.add_user("second")

    done = world.machine.run(world.service, "--user", "admin", "--user", "second")

    assert done.status == 0
    assert world.machine.path("/home/second/.ssh/authorized_keys").read_text() == f"{world.key}\n"


def test_a_user_who_only_lost_an_earlier_key_is_asked_for_later(world: World) -> None:
    """Where another instance's key was revoked from the file of a user who is configured no more."""
    world.machine.run(world.service)
    world.machine.add_user("second")
    world.machine.configure("[Keys]\nUsers=second\n")
    another = world.another_key("another")
    world.become("i-2", another)
    world.machine.set_firmware("i-2")
    world.machine.run(world.service)
    assert world.machine.keys == []
    world.machine.configure("[Keys]\nUsers=second admin\n")

    done = world.machine.run(world.service)

    assert done.user("admin")["added"] == [fingerprint(another)]
    assert world.machine.keys == [another]


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 500, b'{"version":1}', b"[" * 100000])
@pytest.mark.sample(5)
def test_a_damaged_ledger_is_set_aside_and_revokes_nothing(world: World, damage: bytes) -> None:
    """Nothing is lost: not the ledger, not a line, not the login."""
    world.machine.run(world.service)
    ledger = world.machine.path("/var/lib/firstkey/ledger.json")
    ledger.write_bytes(damage)
    second = world.another_key("second")
    world.become("i-0000000000000002", second)

    done = world.machine.run(world.service)

    assert world.machine.keys == [world.key, second]
    assert "ledger-damaged" in {warning["reason"] for warning in done.report["warnings"]}
    assert [file.read_bytes() for file in ledger.parent.glob("ledger.json.damaged.*")] == [damage]


def test_a_ledger_that_others_can_write_is_not_believed(world: World) -> None:
    """A hostile user cannot make firstkey take a line away."""
    world.machine.run(world.service)
    world.machine.path("/var/lib/firstkey/ledger.json").chmod(0o666)
    world.become("i-0000000000000002", world.another_key("second"))
    world.machine.run(world.service)

    assert world.key in world.machine.keys


def test_redirect_root_tells_whom_to_log_in_as(world: World) -> None:
    """Root's copy has a command and nothing else; it is revoked like any other line."""
    world.machine.add_user("root", home="/root")
    world.machine.configure("[Keys]\nUsers=admin\nRedirectRoot=yes\n")
    world.machine.run(world.service)
    root = world.machine.path("/root/.ssh/authorized_keys")

    line = root.read_text()
    assert line.startswith("no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=")
    assert 'the user \\"admin\\" rather than the user \\"root\\"' in line
    world.become("i-0000000000000002", world.another_key("second"))
    world.machine.run(world.service)
    assert world.key.split()[1] not in root.read_text()


def test_a_broken_configuration_locks_nobody_out(world: World) -> None:
    """Each mistake is a warning with its line; the rest counts."""
    world.machine.configure(
        "Users=x\n[Keys\n[Keys]\nUsers=admin\nNonsense=1\n[IMDS]\nRequestTimeoutSec=banana\n"
    )
    done = world.machine.run(world.service)

    assert done.status == 0
    assert world.machine.keys == [world.key]
    assert "firstkey.conf:5" in done.err
    assert "firstkey.conf:7" in done.err


@pytest.mark.parametrize("text", ["[Keys]\nUsres=x\nUsers=admin\n", "[Keys]\nUsers=no:name admin\n"])
@pytest.mark.sample(2)
def test_mistakes_in_the_configuration_are_in_the_report(world: World, text: str) -> None:
    """Whoever reads only the report sees what the journal says, under the same word; in each boot."""
    world.machine.set_firmware("i-0000000000000001")
    world.machine.configure(text)
    for done in (world.machine.run(world.service), world.machine.run(world.service)):
        (warning,) = done.report["warnings"]
        assert warning["reason"] == "config-invalid"
        assert warning["detail"].startswith("/etc/firstkey/firstkey.conf:2: ")
        assert "(config-invalid)" in done.err


def test_a_redirection_to_nobody_is_in_the_report(world: World) -> None:
    """Root gets the launch key as it is, and the report says so as the journal does."""
    world.machine.add_user("root", home="/root")
    world.machine.configure("[Keys]\nUsers=root\nRedirectRoot=yes\n")
    done = world.machine.run(world.service)

    assert (done.status, done.report["outcome"]) == (0, "ok")
    assert [warning["reason"] for warning in done.report["warnings"]] == ["redirect-without-user"]
    assert "redirect-without-user" in done.err


@pytest.mark.sshd
@pytest.mark.parametrize("users, is_refused", [("root", True), ("admin root", False)])
def test_a_redirection_that_sshd_refuses_is_in_the_report(
    world: World, users: str, *, is_refused: bool
) -> None:
    """Without another user to name, root's line has no command, which `forced-commands-only` asks for."""
    world.machine.write("/etc/ssh/sshd_config", "PermitRootLogin forced-commands-only\n")
    world.machine.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nadmin:x:1:1::/home/admin:/bin/sh\n")
    world.machine.path("/root").mkdir()
    world.machine.configure(f"[HostKeys]\nTypes=ed25519\n[Keys]\nUsers={users}\nRedirectRoot=yes\n")
    # As root, or else in a tree whose directories are this user's: what sshd refuses is told either way.
    reasons = {each["reason"] for each in world.machine.run(world.service, "--dry-run").report["warnings"]}

    assert ("login-refused" in reasons) == is_refused


def test_switched_off_by_a_file(world: World) -> None:
    """/etc/firstkey/disabled: nothing is done, and it is said."""
    world.machine.write("/etc/firstkey/disabled", "")
    done = world.machine.run(world.service)

    assert done.status == 0
    assert "switched off" in done.err
    assert not world.machine.keys_file.exists()
    # Where the journal takes that sentence, whoever runs it by hand would see nothing.
    for command in ("run", "host-keys"):
        said = world.machine.firstkey(command, service=world.service)
        assert (said.status, said.out) == (
            0,
            "Switched off: /etc/firstkey/disabled is there. Nothing was done.\n",
        )
        # Nor would a program that reads the report.
        logged = world.machine.firstkey(command, "--json", service=world.service).report
        assert (logged["version"], logged["outcome"], logged["reason"]) == (1, "disabled", "disabled")
        assert logged["detail"] == "/etc/firstkey/disabled is there"


class Silent:
    """A client of a service that is not there, as on a laptop; at last it is switched off."""

    identity = None

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, *, deadline: float) -> NoReturn:
        self.asked += 1
        if self.asked > 100:
            raise FirstkeyError("switched off", reason=reasons.IMDS_DISABLED)
        raise Unreachable("nobody there", reason=reasons.IMDS_UNREACHABLE)


def test_a_daemon_that_asks_for_ever_has_a_report_that_does_not_grow(machine: Machine) -> None:
    """It asks every five minutes for as long as the machine runs, and reports each time."""
    client: Any = Silent()
    sizes = []

    def ready(done: Report) -> bool:
        sizes.append(len(done.timeline))
        return True

    with Tree(str(machine.root)) as tree:
        target = Target(tree, Accounts(tree), config.load(tree), lambda _entry: None)
        Job(target, lambda: client, ready=ready).run()
    assert (client.asked, len(sizes)) == (101, 101)
    assert sizes[-1] <= sizes[1]
