"""What others wrote, on every way out: nothing that a terminal or a reader of lines would act on."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from machine import AGENT, Machine, new_key

from firstkey.metadata.emulator import Emulator, Settings

MARK = "evil"
ACTS = "\x1b[7m\x1b]0;t\x07\r\u202e\u2028\x85\x9b2J\x7f\x00"[:-1]
"""Colours, a title, the begin of the line, the direction of writing, line ends of Unicode, C1 and DEL."""
WORD = f"{MARK}{ACTS}\udcff"
"""A name of an account, or a value in a line: anything but a line feed."""
NAME = f"{MARK}{ACTS}\n  ok    forged\udcff"
"""A file's name."""
OWN_COLOURS = re.compile(r"\x1b\[(31|32|33|34|1|0)m")

FAILED_REPORT = {
    "version": 1,
    "outcome": f"failed{NAME}",
    "instance_id": NAME,
    "reason": NAME,
    "detail": NAME,
    "timeline": [{"phase": NAME, "start_ms": 0, "end_ms": 9}],
    "users": [{"name": "admin", "result": NAME, "file": NAME, "reason": NAME, "detail": NAME}],
}


def raw(text: str) -> bytes:
    """As it stands in a file or on the disk."""
    return text.encode("utf-8", "surrogateescape")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which somebody else chose every name and every text."""
    made = Machine(tmp_path / f"root{NAME}")
    key = new_key(tmp_path, "key").rpartition(" ")[0]
    accounts = f"root:x:0:0::/home/{WORD}:/bin/sh\nadmin:x:{made.uid}:{made.gid}::/home/admin:/bin/sh\n"
    accounts += f"{WORD}:hash:{made.uid}:{made.gid}:{WORD}:/home/{WORD}:/bin/{WORD}\n"
    made.write("/etc/passwd", raw(accounts))
    made.write(
        "/etc/shadow", raw(f"root:$6$x$y:1:0:9:7:::\nadmin:!:1::::::\n{WORD}:$6$x$y:1::::::\n"), mode=0o600
    )
    made.write("/etc/hostname", raw(f"{WORD}\n"))
    made.write(f"/home/{WORD}/.bash_history", "secret\n")
    made.write(f"/root/{NAME}/.bash_history", "secret\n")
    made.write(f"/root/{NAME}/.aws/credentials", raw(f"[{WORD}]\naws_secret_access_key = {WORD}\n"))
    made.write(f"/var/log/{NAME}", "x\n")
    made.write(f"/tmp/{NAME}", "x\n")
    for home in ("/root", "/home/admin", f"/home/{WORD}"):
        made.write(
            f"{home}/.ssh/authorized_keys", raw(f'command="{WORD}" {key} {WORD}\n{WORD}\n'), mode=0o600
        )
    made.write(
        "/etc/ssh/sshd_config", raw(f'HostKey "/etc/ssh/{WORD}"\nHostKey /etc/ssh/ssh_host_ed25519_key\n')
    )
    made.write(
        "/etc/ssh/sshd_config.d/" + NAME.replace("\n", "") + ".conf", raw(f"{WORD} x\nBanner {WORD}\n")
    )
    made.write(f"/etc/sudoers.d/{WORD}", raw(f"{WORD} ALL=(ALL) NOPASSWD: ALL\n"))
    made.configure("")
    made.write(
        "/etc/firstkey/firstkey.conf", raw(f"[Image]\nPublisher={MARK}\nContact={WORD}\n[{WORD}]\n{WORD}=1\n")
    )
    settings = f"[Keys]\nUsers=admin {WORD}\n[User admin]\nSudo={WORD}\nGroups={WORD}\n"
    made.write(f"/etc/firstkey/firstkey.conf.d/{NAME}.conf", raw(settings))
    made.write("/run/firstkey/report.json", json.dumps(FAILED_REPORT))
    made.write("/dev/console", "")
    return made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A metadata service whose keys have such names and comments, too."""
    good = new_key(tmp_path_factory.mktemp("keys"), "launch")
    bidi = f"{good.rpartition(' ')[0]} {MARK}\u202e\u2028"
    keys = ((f"{MARK}\u202e", good), ("second", bidi), ("third", f"{good}{ACTS}"), ("fourth", WORD[:-1]))
    with Emulator(Settings(instance_id="i-0000000000000001", keys=keys)) as made:
        yield made


def firstkey(machine: Machine, service: Emulator, *argv: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command on the machine."""
    command, *options = argv
    where = ["--root", str(machine.root), "--imds", service.url]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    done = fork_server.firstkey(command, *where, *options, environ=environ, timeout=100)
    return subprocess.CompletedProcess(command, done.status, done.out, done.err)


def harmless(output: bytes) -> str:
    """The output as text, which is UTF-8, line feeds and tabs."""
    text = output.decode()
    acting = {char for char in text if not (char.isprintable() or char in "\n\t")}
    assert not acting, f"{sorted(acting)} in {text!a}"
    assert not [line for line in text.split("\n") if line.startswith("  ok    forged")]
    return text


def strings(value: Any) -> Iterator[str]:
    """Every text in a result for programs."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


FOR_PEOPLE = [
    "run --dry-run",
    "run --dry-run -v",
    "run",
    "run -v",
    "run -q",
    "host-keys --dry-run -v",
    "keys --wait 60",
    "keys -v --wait 60",
    "keys -q --wait 60",
    "status",
    "status -q",
    "status --timeline",
    "status --svg -",
    "doctor --wait 60 --no-probe",
    "doctor --wait 60 --no-probe -v",
    "doctor --wait 60 --no-probe -q",
    "config",
    "config --check",
    "config --diff",
    "audit",
    "audit -v",
    "audit -q",
    "seal --dry-run",
]


@pytest.mark.parametrize("command", FOR_PEOPLE)
@pytest.mark.sample(5)
def test_text_and_stderr(machine: Machine, service: Emulator, command: str) -> None:
    """Whatever is told, it is told in lines that print; and those texts do come along on the way."""
    done = firstkey(machine, service, *command.split())
    logged = harmless(done.stdout) + harmless(done.stderr)
    assert MARK in logged
    assert "internal-error" not in logged


@pytest.mark.parametrize(
    "command",
    [
        "run --dry-run --json",
        "run --json",
        "host-keys --dry-run --json",
        "keys --json --wait 60",
        "status --json",
        "doctor --json --wait 60 --no-probe",
        "config --json",
        "config --diff --json",
        "audit --json",
        "audit --sarif",
        "seal --dry-run --json",
    ],
)
@pytest.mark.sample(11)
def test_json(machine: Machine, service: Emulator, command: str) -> None:
    """It is ASCII that strict readers take, and every string in it is text."""
    done = firstkey(machine, service, *command.split())
    harmless(done.stderr)
    assert done.stdout.isascii()
    found = list(strings(json.loads(harmless(done.stdout))))
    assert all(text.encode().decode() == text for text in found)
    assert MARK in "".join(found)


def test_files_and_console(machine: Machine, service: Emulator) -> None:
    """What a run leaves for others: its report, and the blocks on the console."""
    harmless(firstkey(machine, service, "run").stderr)
    report = machine.path("/run/firstkey/report.json").read_bytes()
    assert all(text.encode() for text in strings(json.loads(harmless(report))) if text)
    assert f"{MARK}\u202e" in [key["name"] for key in json.loads(report)["keys"]]
    console = machine.path("/dev/console").read_bytes()
    assert console.isascii()
    assert "BEGIN SSH HOST KEY KEYS" in harmless(console)


def test_the_exclude_list_acts_on_nothing(machine: Machine, service: Emulator) -> None:
    """Its lines are as many as its patterns, and each of them begins where the tree does."""
    done = firstkey(machine, service, "audit", "--exclude-list")
    harmless(done.stderr)
    lines = done.stdout.split(b"\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"/") for line in lines)
    assert not any(byte < 32 or byte == 127 for line in lines for byte in line)
    assert any(MARK.encode() in line for line in lines)


@pytest.mark.parametrize(
    "command", ["audit -v", "audit --exclude-list", "seal --dry-run", "status", "config"]
)
@pytest.mark.sample(5)
def test_a_terminal_gets_no_colours_but_ours(machine: Machine, service: Emulator, command: str) -> None:
    """There too, where lines are broken and marks have colours."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        program = subprocess.Popen(
            [sys.executable, "-m", "firstkey", *command.split(), "--root", str(machine.root)],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "LC_ALL": "C.UTF-8", "TERM": "xterm"},
        )
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # the end of a terminal that nobody has open any more
        pass
    finally:
        os.close(ours)
        program.wait()
    text = shown.replace(b"\r\n", b"\n")
    for movement in (b"\r\x1b[K",):  # the line that tells how far a scan is
        text = text.replace(movement, b"")
    assert MARK in harmless(OWN_COLOURS.sub("", text.decode()).encode())
    assert bool(OWN_COLOURS.search(text.decode())) is command.startswith(("audit -v", "seal"))


def test_a_mistake_in_the_options_is_shown(machine: Machine, service: Emulator) -> None:
    """Scripts hand over names that they did not choose."""
    for argv in (("run", WORD[:-1]), ("audit", "--rule", NAME), ("doctor", "--key", NAME), (NAME,)):
        done = firstkey(machine, service, *argv)
        assert done.returncode == 2
        assert MARK in harmless(done.stderr)
