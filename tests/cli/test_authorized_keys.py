"""`firstkey authorized-keys`: what sshd is told at a login, what is kept, and who is told nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import Lab
from machine import AGENT, Machine, World, new_key

from firstkey.metadata.emulator import Emulator, Fault, Settings

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "packaging" / "examples" / "authorized-keys-command"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A machine with the directory for what is kept, and a service with one key."""
    machine = Machine(tmp_path / "root")
    machine.path("/run/firstkey-keys").mkdir(parents=True, mode=0o700)
    key = new_key(tmp_path, "launch")
    with Emulator(Settings(keys=(("launch", key),))) as service:
        yield World(machine, service, key, tmp_path)


def asked(world: World, user: str = "admin", *options: str) -> str:
    """What is printed for the user, and nothing else happens."""
    patient = ("--wait", "30")  # sshd is not, but a busy machine takes its time
    done = world.machine.firstkey("authorized-keys", *patient, user, *options, service=world.service)
    assert (done.status, done.err) == (0, ""), done.err
    return done.out


def questions(world: World) -> int:
    """How often the service was asked for anything."""
    return len(world.service.requests)


def test_the_configured_user_gets_the_keys(world: World) -> None:
    """One line a key, as it would stand in a file."""
    other = world.another_key("second")
    world.service.change(keys=(("a", world.key), ("b", other), ("c", "<html>no key</html>")))
    assert asked(world) == f"{world.key}\n{other}\n"


@pytest.mark.parametrize("user", ["bob", "root", "", "admin\n", "../admin", "admin root", "-", "\N{SNOWMAN}"])
def test_others_get_nothing_and_cost_nothing(world: World, user: str) -> None:
    """Silence, success, and no question to the service."""
    assert asked(world, "--", user) == ""
    assert questions(world) == 0


def test_the_second_login_asks_nobody(world: World) -> None:
    """The answer is kept, for the user's own eyes only."""
    first = asked(world)
    before = questions(world)
    assert asked(world) == first
    assert questions(world) == before
    kept = world.machine.path("/run/firstkey-keys/keys.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["keys"] == [world.key]


def test_what_is_kept_is_asked_for_again_in_time(world: World) -> None:
    """After its time to live, a new key counts and an old one does not."""
    assert asked(world) == f"{world.key}\n"
    second = world.another_key("second")
    world.service.change(keys=(("b", second),))
    assert asked(world, "admin", "--ttl", "1000") == f"{world.key}\n"
    assert asked(world, "admin", "--ttl", "0") == f"{second}\n"


def test_no_key_pair_is_an_answer_that_is_kept(world: World) -> None:
    """Nobody asks again at each login whether there is one by now."""
    world.service.change(keys=())
    assert asked(world) == ""
    before = questions(world)
    assert asked(world) == ""
    assert questions(world) == before


def test_an_outage_takes_nobodys_key_away(world: World) -> None:
    """What was kept serves on, however old; without it there is no answer, and that is said."""
    asked(world)
    world.service.inject(Fault("status", 500))
    options = ("authorized-keys", "admin", "--ttl", "0", "--wait", "0.2")
    served = world.machine.firstkey(*options, service=world.service)
    assert (served.status, served.out) == (0, f"{world.key}\n")
    world.machine.path("/run/firstkey-keys/keys.json").unlink()
    done = world.machine.firstkey("authorized-keys", "admin", "--wait", "0.2", service=world.service)
    assert (done.status, done.out) == (75, "")


def test_a_service_that_never_answers_is_given_up(world: World) -> None:
    """Sshd waits for it, so it does not wait long."""
    world.service.inject(Fault("delay", 30))
    done = world.machine.firstkey("authorized-keys", "admin", service=world.service, timeout=60)
    assert done.status == 75


@pytest.mark.parametrize(
    "content",
    [
        "rubbish",
        "[]",
        "null",
        '{"version": 2, "at": 0, "keys": []}',
        '{"version": 1, "at": 0}',
        '{"version": 1, "at": 1e300, "keys": []}',
        '{"version": 1, "at": 0, "keys": ["restrict ssh-ed25519 AAAA"]}',
        '{"version": 1, "at": "x", "keys": []}',
        '{"version": 1, "at": 0, "keys": [7]}',
    ],
)
def test_what_cannot_be_read_is_not_believed(world: World, content: str) -> None:
    """Damage, another version or a time that is still to come: asked anew."""
    world.machine.write("/run/firstkey-keys/keys.json", content, mode=0o600)
    assert asked(world, "admin", "--ttl", "100000") == f"{world.key}\n"
    assert questions(world) > 0


@pytest.mark.parametrize("name", ["/run/firstkey-keys", "/run/firstkey-keys/keys.json"])
def test_what_others_can_write_is_neither_read_nor_written(world: World, name: str) -> None:
    """Somebody else's key must not get in by way of what is kept."""
    asked(world)
    file = world.machine.path("/run/firstkey-keys/keys.json")
    file.write_text(file.read_text().replace(world.key, world.another_key("evil")))
    evil = file.read_text()
    world.machine.path(name).chmod(0o722 if name.endswith("keys") else 0o622)
    assert asked(world, "admin", "--ttl", "100000") == f"{world.key}\n"
    if name.endswith("firstkey-keys"):
        assert file.read_text() == evil


def test_a_link_in_its_place_is_not_followed(world: World) -> None:
    """Neither to read nor to write."""
    target = world.machine.write("/elsewhere", "untouched")
    world.machine.path("/run/firstkey-keys/keys.json").symlink_to(target)
    assert asked(world) == f"{world.key}\n"
    assert target.read_text() == "untouched"


def test_without_the_directory_it_asks_each_time(world: World) -> None:
    """It is an aid, not a need; and it is not made by whoever comes by."""
    world.machine.path("/run/firstkey-keys").rmdir()
    assert asked(world) == f"{world.key}\n"
    before = questions(world)
    assert asked(world) == f"{world.key}\n"
    assert questions(world) > before
    assert not world.machine.path("/run/firstkey-keys").exists()


def test_redirected_root_is_told_whom_to_log_in_as(world: World) -> None:
    """As in root's file: a command in place of the shell. Without anybody else root's copy is as it is."""
    world.machine.configure("[Keys]\nUsers=admin\nRedirectRoot=yes\n")
    line = asked(world, "root")
    assert line.endswith(f" {world.key}\n")
    assert 'the user \\"admin\\" rather than' in line
    assert asked(world) == f"{world.key}\n"
    world.machine.configure("[Keys]\nUsers=root\nRedirectRoot=yes\n")
    assert asked(world, "root") == f"{world.key}\n"
    world.machine.configure("[Keys]\nUsers=nobodyhere\nRedirectRoot=yes\n")
    assert asked(world, "root") == ""


def test_switched_off_is_silent(world: World) -> None:
    """/etc/firstkey/disabled counts here too."""
    world.machine.write("/etc/firstkey/disabled", "")
    assert asked(world) == ""
    assert questions(world) == 0


def test_a_mistake_in_the_configuration_is_no_noise(world: World) -> None:
    """It is said at each boot, not at each login."""
    world.machine.configure("[Keys]\nUsers=admin\nNonsense=1\n")
    assert asked(world) == f"{world.key}\n"


# --- with a real sshd -----------------------------------------------------------------------------

KEYS_USER = 4250
SERVICE = """
import sys, time
from firstkey.metadata.emulator import Emulator, Settings
with Emulator(Settings(keys=(("launch", open(sys.argv[1]).read().strip()),)), port=8169):
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """The embedded metadata service, in the lab's own network."""
    with lab.background(sys.executable, "-c", SERVICE, str(lab.directory / "keys" / "launch.pub")):
        yield


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A machine without any file of keys, whose sshd asks firstkey by the example's own drop-in."""
    python = os.path.realpath(sys.executable)
    if not python.startswith("/usr/"):
        pytest.skip(f"needs a Python that every user may run, not {python}")
    with Lab(tmp_path / "lab") as made:
        shutil.copytree(AGENT, made.path("/srv/agent"))
        made.run("chmod", "-R", "a+rX,go-w", "/srv/agent", check=True)
        program = f'#!/bin/sh\nPYTHONPATH=/srv/agent exec {python} -m firstkey "$@"\n'
        made.write("/srv/bin/firstkey", program, mode=0o755)
        made.run("sh", "-c", "chmod 755 /srv/bin && chmod 755 /etc/firstkey", check=True)
        made.append("/etc/passwd", f"firstkey-keys:x:{KEYS_USER}:{KEYS_USER}::/:/usr/sbin/nologin\n")
        made.append("/etc/group", f"firstkey-keys:x:{KEYS_USER}:\n")
        made.write(
            "/etc/firstkey/firstkey.conf", "[Keys]\nUsers=alice\n[IMDS]\nEndpoints=http://127.0.0.1:8169\n"
        )
        drop_in = (EXAMPLES / "sshd.conf").read_text()
        made.prepend_config(drop_in.replace("/usr/bin/firstkey", "/srv/bin/firstkey"))
        made.path("/run/firstkey-keys").mkdir(mode=0o700)
        os.chown(made.path("/run/firstkey-keys"), KEYS_USER, KEYS_USER)
        made.authorize("")
        yield made


@pytest.mark.root
@pytest.mark.sshd
@pytest.mark.slow
def test_a_real_sshd_lets_the_launch_key_in(lab: Lab) -> None:
    """No file has the key, and the login works; it goes on working while the service is down."""
    assert lab.start_sshd()
    assert not lab.login()
    with serving(lab):
        assert lab.login()
        assert lab.doctor().user["verdict"] == "open"
        lab.new_key("other")
        assert not lab.login(key="other")
        lab.authorize("", user="root")
        assert not lab.login(user="root")
    assert lab.login()
    kept = lab.path("/run/firstkey-keys/keys.json")
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (KEYS_USER, 0o600)
    kept.unlink()
    assert not lab.login()
    said = lab.doctor()
    assert said.obstacles == ["key-not-installed", "keys-command-failed"]
    # sshd has asked the command by now: nothing is left that only sshd would know.
    assert "no file has the key, and this command gives sshd none that fits" in str(said)


@pytest.mark.root
@pytest.mark.sshd
@pytest.mark.slow
def test_the_examples_fit_together(lab: Lab) -> None:
    """Sshd takes the drop-in; the user and the directory are those that it and the command expect."""
    asked = lab.run("sh", "-c", "$(command -v sshd) -T -C user=alice,host=h,addr=127.0.0.1").out
    assert "authorizedkeyscommand /srv/bin/firstkey authorized-keys %u\n" in asked
    assert "authorizedkeyscommanduser firstkey-keys\n" in asked
    rule = (EXAMPLES / "tmpfiles.conf").read_text().splitlines()[-1].split()
    assert rule[:5] == ["d", "/run/firstkey-keys", "0700", "firstkey-keys", "firstkey-keys"]
    assert (EXAMPLES / "sysusers.conf").read_text().splitlines()[-1].split()[:2] == ["u", "firstkey-keys"]
