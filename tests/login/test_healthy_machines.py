"""Machines on which the login works, some by unusual ways: the doctor has no complaint, and says so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from lab import ALICE, PAM, Lab

from firstkey.system.accounts import is_lenient

pytestmark = [pytest.mark.root, pytest.mark.sshd, pytest.mark.slow]

KEYS = "/srv/home/alice/.ssh/authorized_keys"


class Healthy(NamedTuple):
    """How the machine differs from the plainest one, and what is worth a note."""

    name: str
    prepare: Callable[[Lab], object]
    notes: tuple[str, ...] = ()
    user: str = "alice"


def config(text: str) -> Callable[[Lab], object]:
    """Before everything else in sshd_config."""
    return lambda lab: lab.prepend_config(text)


def script(*lines: str) -> Callable[[Lab], object]:
    """What somebody typed."""
    return lambda lab: lab.run("sh", "-ec", "\n".join(lines), check=True)


def both(*steps: Callable[[Lab], object]) -> Callable[[Lab], object]:
    """One after the other."""
    return lambda lab: [step(lab) for step in steps]


def keys_command(lab: Lab) -> None:
    """A command vouches for the key, and no file has it."""
    lab.write("/srv/keys-command", f"#!/bin/sh\n[ \"$1\" = alice ] && echo '{lab.key}'\n", mode=0o755)
    lab.authorize("")
    lab.prepend_config("AuthorizedKeysCommand /srv/keys-command %u\nAuthorizedKeysCommandUser nobody")


def pam(lines: str) -> Callable[[Lab], object]:
    """More rules for sshd."""
    return lambda lab: lab.append("/etc/pam.d/sshd", f"{lines}\n")


def profile(text: str) -> Callable[[Lab], object]:
    """Alice's start-up file."""
    return lambda lab: lab.write(f"{lab.home}/.profile", text, owner=ALICE)


def shell(text: str) -> Callable[[Lab], object]:
    """Alice has a shell of her own."""
    return both(lambda lab: lab.write("/srv/shell", text, mode=0o755), script("usermod -s /srv/shell alice"))


def faillock(lab: Lab) -> None:
    """Alice is locked for passwords, which is no matter to a key."""
    lab.edit(
        "/etc/pam.d/sshd",
        "auth     required pam_unix.so\naccount",
        "auth required pam_faillock.so preauth\nauth required pam_unix.so\n"
        "account required pam_faillock.so\naccount",
    )
    lab.write("/etc/security/faillock.conf", "dir = /run/faillock\ndeny = 1\n")
    lab.run("faillock", "--dir", "/run/faillock", "--user", "alice", "--reset")


def jail(lab: Lab) -> None:
    """A directory with a shell and its libraries, and nothing else."""
    lab.run(
        "sh",
        "-ec",
        "mkdir -p /srv/jail/dev; for file in /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*'); do"
        " mkdir -p /srv/jail$(dirname $file); cp -L $file /srv/jail$file; done",
        check=True,
    )
    lab.prepend_config("ChrootDirectory /srv/jail")


def mounted(*options: str) -> Callable[[Lab], object]:
    """Alice's home is a file system of its own, which becomes what the lines say."""
    return script(
        "cp -a /srv/home/alice /srv/alice",
        "mount -t tmpfs -o size=64k,mode=0755 tmpfs /srv/home/alice",
        "cp -a /srv/alice/. /srv/home/alice",
        "chown alice: /srv/home/alice",
        *options,
    )


MACHINES = [
    Healthy("the plainest", lambda lab: None),
    Healthy("root with a key", lambda lab: lab.authorize(f"{lab.key}\n", user="root"), user="root"),
    Healthy("without PAM", config("UsePAM no")),
    Healthy("locked, but PAM judges", lambda lab: lab.edit("/etc/shadow", "alice:*:", "alice:!:")),
    Healthy(
        "keys elsewhere",
        both(
            script(
                "mkdir /srv/keys",
                f"mv {KEYS} /srv/keys/alice",
                "chown root /srv/keys/alice",
                "chmod 0644 /srv/keys/alice",
            ),
            config("AuthorizedKeysFile /srv/keys/%u"),
        ),
    ),
    Healthy("the second file", script(f"mv {KEYS} {KEYS}2")),
    Healthy("a bad file beside a good one", script(f"cp -p {KEYS} {KEYS}2", f"chmod 0666 {KEYS}")),
    Healthy("a command for keys", keys_command),
    Healthy(
        "lists that have the user",
        config("AllowUsers bob alice@127.0.0.0/8\nAllowGroups nosuch staff?\nDenyUsers alice@10.*"),
    ),
    Healthy("methods of which a key is one", config("AuthenticationMethods publickey,password publickey")),
    Healthy("from here", lambda lab: lab.authorize(f'restrict,pty,from="!10.*,127.0.0.0/8" {lab.key}\n')),
    Healthy("a clock that is behind", script("touch -d '2 days' /etc/passwd"), ("clock-behind",)),
    Healthy("without a terminal", lambda lab: lab.authorize(f"no-pty {lab.key}\n"), ("no-terminal",)),
    Healthy("expires later", lambda lab: lab.authorize(f'expiry-time="20990101" {lab.key}\n')),
    Healthy("a bad line before a good one", lambda lab: lab.authorize(f"nonsense {lab.key}\n{lab.key}\n")),
    Healthy(
        "modes that are not looked at",
        both(script("chmod 0777 /srv/home/alice/.ssh"), config("StrictModes no")),
    ),
    Healthy(
        "revoked keys, but not this one",
        both(
            lambda lab: lab.write("/etc/ssh/revoked", f"{lab.new_key('other')}\n"),
            config("RevokedKeys /etc/ssh/revoked"),
        ),
    ),
    Healthy(
        "root may enter while logins are closed",
        both(lambda lab: lab.authorize(f"{lab.key}\n", user="root"), script("echo closed > /etc/nologin")),
        user="root",
    ),
    Healthy(
        "a home reached through a link",
        script("mv /srv/home/alice /srv/alice", "ln -s /srv/alice /srv/home/alice"),
    ),
    Healthy("one host key of three", config("HostKey /etc/ssh/ssh_host_rsa_key"), ("no-host-key",)),
    Healthy("a failed password too often", faillock),
    Healthy("a start-up file that exits in a function", profile("leave() {\n    exit 1\n}\n")),
    Healthy("a start-up file that exits elsewhere", profile('if [ -n "$NEVER" ]; then\n    exit 1\nfi\n')),
    Healthy(
        "bash with the start-up files of new accounts",
        both(
            script(
                "usermod -s /bin/bash alice",
                "cp /etc/skel/.bashrc /etc/skel/.profile /srv/home/alice",
                "chown alice: /srv/home/alice/.bashrc /srv/home/alice/.profile",
            ),
        ),
    ),
    Healthy(
        "commands of one's own at each login, of which one fails",
        lambda lab: lab.write(f"{lab.home}/.ssh/rc", "exit 1\n", owner=ALICE),
    ),
    Healthy(
        "a line with a command that has expired, before a good one",
        lambda lab: lab.authorize(f'command="exit 1",expiry-time="20200101" {lab.key}\n{lab.key}\n'),
    ),
    Healthy("a shell that is a script", shell('#!/bin/sh\nexec /bin/sh "$@"\n')),
    Healthy(
        "a module that may be missing, and is",
        pam("session [success=ok module_unknown=ignore default=bad] pam_winbind.so"),
    ),
    Healthy("a control in capitals", pam("session Required pam_env.so")),
    Healthy("rules that may refuse, but need not", pam("session optional pam_exec.so /bin/false")),
    Healthy(
        "rules that are passed over",
        pam(
            "session [default=1] pam_permit.so\nsession requisite pam_deny.so\nsession required pam_permit.so"
        ),
    ),
    Healthy(
        "limits that are wide enough",
        both(
            pam("session required pam_limits.so"),
            lambda lab: lab.write(
                "/etc/security/limits.conf",
                "* hard core 0\nalice - nofile 1024\nalice - maxlogins 10\nbob - maxlogins 0\n@bin - as 1\n",
            ),
            script("rm -rf /etc/security/limits.d"),
        ),
    ),
    Healthy(
        "a limit that may be refused",
        both(
            pam("session optional pam_limits.so"),
            lambda lab: lab.write("/etc/security/limits.conf", "alice - maxlogins 0\n"),
            script("rm -rf /etc/security/limits.d"),
        ),
    ),
    Healthy("one attempt and one session", config("MaxAuthTries 1\nMaxSessions 1")),
    Healthy("a chroot with all that a shell needs", jail),
    Healthy(
        "a chroot by a link, in a directory that only root may enter",
        both(
            jail,
            script("mkdir -m 0700 /srv/jails", "mv /srv/jail /srv/jails", "ln -s jails/jail /srv/jail"),
        ),
    ),
    Healthy("a file that is immutable", mounted(f"chattr +i {KEYS}")),
    Healthy("a home that is read-only", mounted("mount -o remount,ro /srv/home/alice")),
    Healthy(
        "a file that is mounted",
        script(f"cp -p {KEYS} /srv/keys", f"mount --bind /srv/keys {KEYS}"),
    ),
    Healthy("the rest of the world is denied", script("echo 'ALL: ALL EXCEPT 127.0.0.' > /etc/hosts.deny")),
]


@pytest.mark.parametrize(
    "machine", [pytest.param(machine, id=machine.name.replace(" ", "-")) for machine in MACHINES]
)
def test_a_machine_that_lets_the_key_in_has_no_complaint(lab: Lab, machine: Healthy) -> None:
    """The real login works, the doctor finds nothing in the way, and nothing is changed by looking."""
    machine.prepare(lab)
    assert lab.start_sshd()
    login = lab.login if "no-terminal" in machine.notes else lab.works
    assert login(user=machine.user)
    before = lab.snapshot()
    said = lab.doctor("--user", machine.user)
    assert lab.snapshot() == before
    assert (said.obstacles, said.unknowns) == ([], [])
    assert tuple(said.notes) == machine.notes
    assert (said.status, said.user["verdict"]) == (0, "open")


def test_the_running_sshd_confirms_it(lab: Lab) -> None:
    """The last word is the running sshd's own; with --no-probe it is not asked, and logs nothing of it."""
    assert lab.start_sshd()
    checks = [finding["check"] for finding in lab.doctor().user["findings"]]
    assert checks[-1] == "running-sshd"
    before = lab.sshd_log.count("Connection from")
    checks = [finding["check"] for finding in lab.doctor("--no-probe").user["findings"]]
    assert "running-sshd" not in checks
    assert lab.sshd_log.count("Connection from") == before + 1  # the banner


def test_all_of_the_systems_own_pam_rules_have_no_complaint(lab: Lab) -> None:
    """With the very file that the distribution ships for sshd, its session rules included."""
    own = Path("/etc/pam.d/sshd")
    if not own.exists():
        pytest.skip("needs a /etc/pam.d/sshd, which openssh-server brings")
    lab.write("/etc/pam.d/sshd", own.read_bytes())
    assert lab.start_sshd()
    assert lab.works()
    said = lab.doctor()
    assert (said.obstacles, said.unknowns) == ([], [])


@pytest.mark.parametrize(
    "text", ["PermitRotLogin yes", "DenyUsers alice", "RequiredRSASize none", "HostKey /etc/ssh/nosuch"]
)
def test_what_stands_only_in_files_by_now_is_no_obstacle(lab: Lab, text: str) -> None:
    """A running sshd goes by what it read: the login works, and what comes later is a note."""
    assert lab.start_sshd()
    if text.startswith("HostKey"):
        lab.edit("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key", "")
    lab.prepend_config(text)
    said = lab.doctor()
    assert lab.works()
    assert said.obstacles == []
    assert {"sshd-unread"} <= set(said.unknowns) <= {"sshd-unread", "sshd-config-invalid"}
    assert said.user["verdict"] == "unsure"
    assert "sshd-disagrees" in said.notes


@pytest.mark.parametrize("control", ["required", "optional"])
def test_looking_starts_no_program_of_pams_rules(lab: Lab, control: str) -> None:
    """What pam_exec starts at each login may change anything: PAM is not asked."""
    pam(f"account {control} pam_exec.so /usr/bin/touch /etc/pam-exec-was-here")(lab)
    assert lab.start_sshd()
    before = lab.snapshot()
    said = lab.doctor()
    assert lab.snapshot() == before
    assert said.unknowns == (["pam-unknown"] if control == "required" else [])


def test_a_lockout_that_a_reload_would_bring_is_no_remedy(lab: Lab) -> None:
    """Only a person reloads an sshd whose files lock the user out."""
    assert lab.start_sshd()
    lab.prepend_config("DenyUsers alice")
    said = lab.doctor()
    assert [each["reason"] for each in said.with_status("unknown") if each["is_command"]] == []


def test_the_systems_own_pam_rules_have_no_complaint(lab: Lab) -> None:
    """With the rules that the distribution ships, PAM is asked and lets the user in."""
    lab.write(
        "/etc/pam.d/sshd",
        PAM.split("session")[0].replace("account  required pam_unix.so\n", "")
        + "account include common-account\n@include common-account\nsession required pam_permit.so\n",
    )
    if not lab.path("/etc/pam.d/common-account").exists():
        pytest.skip("needs Debian's /etc/pam.d/common-account")
    assert lab.start_sshd()
    assert lab.login()
    said = lab.doctor()
    assert said.user["verdict"] == "open"


def test_a_group_of_one_may_write_where_sshd_lets_it(lab: Lab) -> None:
    """Debian's sshd takes a home that the user's own group can write, upstream's does not."""
    lab.path(lab.home).chmod(0o775)
    assert lab.start_sshd()
    works = lab.login()
    assert is_lenient(Path("/etc/os-release").read_bytes()) == works
    assert lab.doctor().user["verdict"] == ("open" if works else "blocked")


def test_the_launch_key_comes_from_the_metadata_service(lab: Lab) -> None:
    """Without --key: the service names it, and `firstkey run` is the remedy where it is not installed."""
    lab.authorize("")
    assert lab.start_sshd()
    with serving(lab):
        said = lab.doctor(*IMDS, key=None)
        assert said.user["key"]["fingerprint"] == lab.fingerprint
        assert said.obstacles == ["key-not-installed"]
        assert said.first["remedy"] == "firstkey run --force --user alice"
        assert lab.firstkey("run", *IMDS, "--force", "--user", "alice").status == 0
        assert lab.login()
        assert lab.doctor(*IMDS, key=None).user["verdict"] == "open"
    # The service is gone; the ledger remembers.
    said = lab.doctor(*IMDS, "--wait", "0.2", key=None)
    assert (said.user["verdict"], said.notes) == ("open", ["imds-unreachable"])
    assert said.user["key"]["type"] == "ssh-ed25519"
    lab.authorize("")
    said = lab.doctor(*IMDS, "--wait", "0.2", key=None)
    assert said.obstacles == ["key-not-installed"]


def test_without_a_key_pair_there_is_no_way_in(lab: Lab) -> None:
    """Nobody can log in with a key that does not exist: that is the first thing to say."""
    assert lab.start_sshd()
    with serving(lab, keys=False):
        said = lab.doctor(*IMDS, key=None)
    assert said.obstacles == ["no-key-pair"]


IMDS = ("--imds", "http://127.0.0.1:8169")


SERVICE = """
import sys, time
from firstkey.metadata.emulator import Emulator, Settings
keys = tuple(("launch", open(path).read().strip()) for path in sys.argv[1:])
with Emulator(Settings(keys=keys), port=8169):
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def serving(lab: Lab, *, keys: bool = True) -> Iterator[None]:
    """The embedded metadata service, in the lab's own network."""
    files = [str(lab.directory / "keys" / "launch.pub")] if keys else []
    with lab.background(sys.executable, "-c", SERVICE, *files):
        yield


def test_the_lab_is_alices(lab: Lab) -> None:
    """What the other tests rely on: a user of its own, and nothing of the host's."""
    assert lab.run("id", "-u", "alice").out.strip() == str(ALICE)
    assert lab.run("sh", "-c", "cat /proc/net/tcp | wc -l").out.strip() == "1"
