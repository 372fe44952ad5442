"""`firstkey doctor` as a command: its options, words and exit status. Without root, on an image's tree."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from machine import AGENT, SSHD_CONFIG, Machine, fingerprint, new_key

from firstkey.metadata.emulator import Emulator, Settings


@pytest.fixture
def image(tmp_path: Path) -> Machine:
    """An image with sshd, a shell and the launch key in place."""
    machine = Machine(tmp_path / "root")
    key = new_key(tmp_path, "launch")
    machine.write("/usr/sbin/sshd", "")
    machine.write("/etc/ssh/sshd_config", "")
    machine.write("/etc/shadow", "".join(f"{name}:*:19000::::::\n" for name in ("root", "admin")))
    machine.write("/bin/sh", "", mode=0o755)
    machine.write("/launch.pub", f"{key}\n")
    machine.write_keys(f"{key}\n")
    return machine


def key_of(image: Machine) -> tuple[str, str]:
    """The options that name the key."""
    return ("--key", str(image.path("/launch.pub")))


@pytest.mark.sshd
def test_the_verdict_comes_first(image: Machine) -> None:
    """One line says it; what was not looked at is said too."""
    done = image.firstkey("doctor", *key_of(image))
    lines = done.out.splitlines()
    assert (done.status, lines[0].partition(":")[0]) == (0, "ssh admin@HERE")
    assert "nothing in this tree is in the way" in lines[0]
    assert fingerprint(image.path("/launch.pub").read_text()) in lines[1]
    assert "security groups" in lines[-1]


@pytest.mark.sshd
def test_an_obstacle_has_path_reason_and_remedy(image: Machine) -> None:
    """All three in the text, and the same in the JSON; the exit status is 1."""
    image.path("/home/admin/.ssh").chmod(0o777)
    done = image.firstkey("doctor", *key_of(image))
    assert done.status == 1
    assert "ssh admin@HERE will NOT work" in done.out
    assert "!! /home/admin/.ssh: " in done.out
    assert "(bad-modes)" in done.out
    command = f"chroot {image.root} sh -c 'chmod go-w /home/admin/.ssh'"
    assert f"What to do: {command}" in done.out
    assert "runs programs of the tree as root" in done.out
    found = json.loads(image.firstkey("doctor", "--json", *key_of(image)).out)
    assert (found["version"], found["verdict"]) == (1, "blocked")
    obstacle = next(finding for finding in found["users"][0]["findings"] if finding["status"] == "obstacle")
    assert obstacle == {
        "check": "strict-modes",
        "status": "obstacle",
        "reason": "bad-modes",
        "path": "/home/admin/.ssh",
        "detail": obstacle["detail"],
        "remedy": command,
        "is_command": True,
        "line": None,
    }


@pytest.mark.sshd
def test_no_command_for_a_tree_is_about_a_running_sshd(image: Machine) -> None:
    """The line in the tree's file is taken out, and nothing of this machine is reloaded."""
    image.write("/etc/ssh/sshd_config", "PubkeyAuthentication no\n")
    found = json.loads(image.firstkey("doctor", "--json", *key_of(image)).out)["users"][0]["findings"]
    (remedy,) = (each["remedy"] for each in found if each["reason"] == "pubkey-disabled")
    assert remedy.startswith(f"chroot {image.root} sh -c 'sed -i ")
    assert "sshd -t" not in remedy
    assert "&&" not in remedy


@pytest.mark.sshd
def test_a_key_from_standard_input_is_in_the_command(image: Machine) -> None:
    """No file has it: what is pasted brings it along. A note's remedy stands there once."""
    line = image.path("/launch.pub").read_text().strip()
    image.write_keys("")
    piped = ("sh", "-c", f'exec "$@" <{image.path("/launch.pub")}', "sh")
    done = image.firstkey("doctor", "--key", "-", prefix=piped)
    assert f"What to do: echo '{line}' | chroot {image.root} sh -c" in done.out
    assert f"What to do: cat {image.root}/launch.pub | chroot" in image.firstkey("doctor", *key_of(image)).out
    assert done.out.count("Run it on the instance") == 1


@pytest.mark.sshd
def test_a_trees_launch_key_is_not_this_machines(image: Machine) -> None:
    """Without the service of the tree's instance, no command fetches a key: it would be the builder's."""
    image.write("/etc/ssh/sshd_config", SSHD_CONFIG)
    with Emulator(Settings(keys=(("launch", image.path("/launch.pub").read_text().strip()),))) as service:
        assert image.firstkey("run", "--user", "admin", service=service).status == 0
        image.write_keys("")
        command = f"firstkey run --root {image.root} --imds {service.url} --force --user admin"
        named = image.firstkey("doctor", service=service).out
        assert f"What to do: {command}" in named
        assert "chroot" not in named
    alone = image.firstkey("doctor").out
    assert "A person decides: Install it on the instance: firstkey run --force --user admin" in alone


HOMES = [
    "/srv/x && ;touch PWNED;# && sshd -t",
    "/srv/x' && sshd -t;touch PWNED;#",
    "/srv/x | touch PWNED && $(touch PWNED)",
    "/srv/`touch PWNED` && firstkey run --force --user admin",
]


@pytest.mark.sshd
@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("part", ["/", "/.ssh"])
@pytest.mark.sample(4)
def test_what_a_trees_author_wrote_stays_a_word_of_the_command(
    image: Machine, tmp_path: Path, home: str, part: str
) -> None:
    """A home may be called anything; what is pasted runs chroot and firstkey, and nothing of its name."""
    passwd = image.path("/etc/passwd")
    passwd.write_text(passwd.read_text().replace("/home/admin", home))
    (Path(str(image.root) + home) / ".ssh").mkdir(parents=True)
    place = Path(str(image.root) + home + part)
    place.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(place, 4242, 4242)
    found = json.loads(image.firstkey("doctor", "--json", *key_of(image)).out)["users"][0]["findings"]
    commands = [finding["remedy"] for finding in found if finding["is_command"]]
    assert any("chmod go-w" in command for command in commands)
    programs, work = tmp_path / "programs", tmp_path / "work"
    for directory in (programs, work):
        directory.mkdir()
    for program in ("chroot", "firstkey"):
        (programs / program).write_text('#!/bin/sh\necho "$0 $#" >>called\n')
        (programs / program).chmod(0o755)
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=work, env={"PATH": f"{programs}:/usr/bin:/bin"}, check=False,
            capture_output=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b""), command
    assert [path.name for path in work.iterdir()] == ["called"]


@pytest.mark.sshd
def test_a_terminal_gets_lines_of_its_width(image: Machine) -> None:
    """No line is wider, but for commands, which are there to be copied; a pipe gets each finding whole."""
    image.path("/home/admin/.ssh").chmod(0o777)
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    argv = [sys.executable, "-m", "firstkey", "doctor", "--root", str(image.root), *key_of(image)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "HOME": "/nonexistent"}
    with subprocess.Popen(argv, stdout=secondary, stderr=secondary, env=environment) as process:
        os.close(secondary)
        said = b""
        with suppress(OSError):  # EIO: everybody who had the other end is gone
            while part := os.read(primary, 4096):
                said += part
    os.close(primary)
    assert process.returncode == 1
    lines = said.decode().replace("\r", "").splitlines()
    whole = image.firstkey("doctor", *key_of(image)).out
    assert " ".join(said.decode().split()) == " ".join(whole.split())
    assert max(len(line) for line in lines if "/" not in line) <= 60
    assert max(map(len, whole.splitlines())) > 100


@pytest.mark.sshd
def test_switched_off_is_worth_a_note(image: Machine) -> None:
    """It keeps nobody out today, and explains why nothing comes in by itself."""
    image.write("/etc/firstkey/disabled", "")
    done = image.firstkey("doctor", *key_of(image))
    assert done.status == 0
    assert "(disabled)" in done.out


@pytest.mark.sshd
def test_behind_a_note_there_is_nothing_to_decide(image: Machine) -> None:
    """What only a boot shows is a note: its remedy is what to do, and nobody has to judge it."""
    done = image.firstkey("doctor", *key_of(image))
    assert "(not-running-system)\n     What to do: Run it on the instance" in done.out
    assert "A person decides" not in done.out


@pytest.mark.sshd
@pytest.mark.parametrize(
    "passwd", [None, "admin:x:1000:1000::/home/admin:/bin/sh\n"], ids=["none", "no root"]
)
def test_no_account_of_root_is_made_anew(image: Machine, passwd: str | None) -> None:
    """A tree without accounts is no system, and `useradd root` would make a user without root's number."""
    image.path("/etc/passwd").unlink()
    if passwd:
        image.write("/etc/passwd", passwd)
    done = image.firstkey("doctor", "--user", "root", *key_of(image))
    assert done.status == 1
    assert "useradd" not in done.out
    words = (
        "put the line of root back into /etc/passwd" if passwd else "/etc/passwd is missing (no-such-user)"
    )
    assert words in done.out


@pytest.mark.sshd
def test_a_line_that_expires_is_judged_in_the_box(image: Machine) -> None:
    """In a process of its own: what another test has imported is no help."""
    image.write_keys(f'expiry-time="20200101" {image.path("/launch.pub").read_text()}')
    argv = [sys.executable, "-m", "firstkey", "doctor", "--root", str(image.root), *key_of(image)]
    done = subprocess.run([*argv, "--user", "admin"], capture_output=True, text=True, check=False)
    assert (done.returncode, "(key-expired)" in done.stdout, done.stderr) == (1, True, "")


@pytest.mark.sshd
def test_verbose_shows_what_is_well(image: Machine) -> None:
    """With -v each step is told."""
    quiet = image.firstkey("doctor", *key_of(image)).out
    logged = image.firstkey("doctor", "-v", *key_of(image)).out
    assert "sshd takes public keys" not in quiet
    assert "ok sshd takes public keys" in logged


@pytest.mark.sshd
def test_several_users_each_get_a_verdict(image: Machine) -> None:
    """One who cannot log in is enough for the exit status."""
    done = image.firstkey("doctor", "--user", "admin", "--user", "nobodyhere", *key_of(image))
    assert done.status == 1
    assert "ssh admin@HERE: nothing in this tree" in done.out
    assert "ssh nobodyhere@HERE will NOT work" in done.out
    assert "(no-such-user)" in done.out
    assert f"then: firstkey run --root {image.root} --force --user nobodyhere" in done.out


@pytest.mark.sshd
def test_nothing_is_changed(image: Machine) -> None:
    """Not a byte, mode or time of the tree, whatever is wrong with it."""
    image.path("/home/admin/.ssh").chmod(0o777)
    image.write("/var/lib/firstkey/ledger.json", "rubbish", mode=0o600)
    before = image.snapshot()
    image.firstkey("doctor", "--wait", "0.1", "--imds", "http://127.0.0.1:9")
    assert image.snapshot() == before


@pytest.mark.sshd
def test_without_any_word_of_the_key_it_is_unknown(image: Machine) -> None:
    """No service, no ledger, no --key: that is said, and the rest is looked at all the same."""
    image.path("/bin/sh").unlink()
    done = image.firstkey("doctor", "--json", "--wait", "0.1", "--imds", "http://127.0.0.1:9")
    findings = json.loads(done.out)["users"][0]["findings"]
    assert "imds-unreachable" in [finding["reason"] for finding in findings if finding["status"] == "unknown"]
    assert "shell-missing" in [finding["reason"] for finding in findings if finding["status"] == "obstacle"]


@pytest.mark.parametrize(
    "options,words",
    [
        (("--key", "/nowhere.pub"), "No such file"),
        (("--from", "here"), "--from: it takes an IP address"),
        (("--user", "a b"), "--user 'a b'"),
    ],
)
def test_usage(image: Machine, options: tuple[str, ...], words: str) -> None:
    """A mistake on the command line is told with exit status 2."""
    done = image.firstkey("doctor", *options)
    assert done.status == 2
    assert words in done.err


def test_a_private_key_is_refused(image: Machine) -> None:
    """What is no public key is not looked for, and not shown."""
    image.write("/launch.pub", "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    done = image.firstkey("doctor", *key_of(image))
    assert done.status == 1
    assert "is no public key" in done.err
    assert "secret" not in done.err
