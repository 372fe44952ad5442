"""Where secrets must not be: everywhere that a full run leaves something, one looks for them."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import places
import processes
import pytest
from machine import AGENT, new_key
from private_system import HOMES, PrivateSystem
from raw_server import FIRST_KEY, SECRET, RawServer, ok

pytestmark = pytest.mark.root

TOKEN = SECRET.decode()
JOURNAL = "/run/systemd/journal/socket"
COMMANDS = {
    "run": ("--force", "-v", "--json"),
    "doctor": ("-v", "--json"),
    "status": ("-v",),
    "keys": ("-v",),
    "authorized-keys": ("--wait", "30", "root"),
    "known-hosts": (),
    "config": (),
}
SHOWN_TO_ALL = {
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/run/firstkey/console-shown",
    "/run/firstkey/report.json",
}
"""What firstkey makes for everybody's eyes: public halves, and what programs may know."""
CARELESS = "umask 0; ulimit -c unlimited 2>/dev/null; "
"""The shell of a caller who takes no care; a hard limit may stand in the way of the latter."""


class Journald:
    """Where journald would be: keeps every datagram that comes, until the block ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        self._path = path
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(path))
        self.received = b""
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Journald:  # noqa: PYI034 - Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(b"", str(self._path))
        self._thread.join()
        self._channel.close()

    def _listen(self) -> None:
        while part := self._channel.recv(1 << 20):
            self.received += part + b"\n"


class Traces:
    """All that a full run left: what was said and to whom, what was started, and the system's files."""

    def __init__(self, system: PrivateSystem, directory: Path) -> None:
        self.system = system
        self._directory = directory
        self.left: dict[str, bytes] = {}
        self.limits = ""

    def argv(self, service: RawServer, command: str, *options: str) -> list[str]:
        """The command as a careless caller's shell starts it, with each program that it starts written down.

        All arguments and the whole environment of each, in the order of their starts.
        """
        log = str(self._directory / f"started-{command}")
        watched = ["strace", "-f", "-qq", "-v", "-s", "100000", "-e", "trace=execve,execveat", "-o", log]
        firstkey = [sys.executable, "-m", "firstkey", command, *options, "--imds", service.url]
        return ["sh", "-c", f"{CARELESS}exec {shlex.join([*watched, *firstkey])}"]

    def run(self, service: RawServer, command: str, *options: str) -> int:
        """Run a command to its end."""
        done = self.system.run(*self.argv(service, command, *options))
        self.left[f"output of {command}"] = f"{done.stdout}\n{done.stderr}".encode()
        return done.returncode

    def collect(self, journald: Journald) -> None:
        """What is there in the end."""
        self.left["journal"] = journald.received
        for log in self._directory.glob("started-*"):
            self.left[f"programs of {log.name[8:]}"] = log.read_bytes()
        for path, file in self.files().items():
            if file.is_file():
                self.left[path] = file.read_bytes()

    def files(self) -> dict[str, Path]:
        """What the system's own directories hold, by path."""
        found = {}
        for top in ("/etc", "/run", "/var/lib"):
            inside = self.system.path(top)
            found.update({f"{top}/{file.relative_to(inside)}": file for file in inside.rglob("*")})
        return found

    def holding(self, secret: str) -> set[str]:
        """Where the secret is."""
        return {place for place, content in self.left.items() if secret.encode() in content}


@pytest.fixture(scope="module")
def launch_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The public half of the launch key."""
    return new_key(tmp_path_factory.mktemp("launch"), "launch")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory, launch_key: str) -> Iterator[Traces]:
    """A first boot's daemon, and then every command that an operator may try."""
    pytest.importorskip("systemd", reason="needs systemd-python, which is not installed")
    if os.geteuid() != 0:
        pytest.skip("needs root for a system of its own")
    if missing := places.missing_for_strace():
        pytest.skip(missing)
    scratch = tmp_path_factory.mktemp("system")
    was_seen = threading.Event()

    def key(_number: int) -> bytes:
        """The launch key, once the daemon that asks for it was looked at."""
        was_seen.wait(processes.PATIENCE)
        return ok(f"{launch_key}\n".encode())

    with PrivateSystem(scratch) as system, RawServer({FIRST_KEY: key}) as service:
        system.add_user("alice")
        system.configure(
            "Types=\nTypes=ed25519 ecdsa\n[Keys]\nUsers=root alice\n"
            "[User alice]\nSudo=ALL=(ALL) NOPASSWD: ALL\n"
        )
        system.set_sshd_config("")
        with Journald(system.path(JOURNAL)) as journald:
            found = Traces(system, scratch)
            _daemon(found, service, was_seen)
            for command, options in COMMANDS.items():
                found.run(service, command, *options)
        found.collect(journald)
        yield found


def _daemon(traces: Traces, service: RawServer, was_seen: threading.Event) -> None:
    system = traces.system
    holder = system.path("/").parent.name
    inside = ["nsenter", f"--mount=/proc/{holder}/ns/mnt", "--wd=/"]
    daemon = subprocess.Popen(
        [*inside, *traces.argv(service, "daemon", "-v")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "LC_ALL": "C.UTF-8"},
    )
    try:
        processes.wait_for(lambda: service.headers(FIRST_KEY), "the question for the launch key")
        [supervisor] = processes.children(daemon.pid)
        traces.limits = Path(f"/proc/{supervisor}/limits").read_text()
        was_seen.set()
        said, _ = daemon.communicate(timeout=processes.PATIENCE)
    finally:
        daemon.kill()
        daemon.communicate()
    traces.left["output of daemon"] = said
    assert daemon.returncode == 0, said


def test_everything_was_really_there_to_be_found(traces: Traces, launch_key: str) -> None:
    """The full run did its work and left its traces, so that a secret in one of them would be seen."""
    assert b"FIRSTKEY_EVENT=key-added" in traces.left["journal"]
    assert b"FIRSTKEY_EVENT=host-key-made" in traces.left["journal"]
    assert b"ssh-keygen" in traces.left["programs of daemon"]
    assert b"visudo" in traces.left["programs of daemon"]
    assert {f"output of {command}" for command in (*COMMANDS, "daemon")} <= set(traces.left)
    assert all(traces.left[f"output of {command}"].strip() for command in COMMANDS)
    assert traces.holding("SHA256:") >= {"journal", "/run/firstkey/report.json", "output of run"}
    assert traces.system.keys_of("root") == [launch_key]


def test_the_token_is_nowhere(traces: Traces) -> None:
    """No message, file, argument or variable has it, nor a part of it."""
    for part in (TOKEN, TOKEN[:20], TOKEN[-20:]):
        assert traces.holding(part) == set()


def test_private_keys_are_in_their_own_files_alone(traces: Traces) -> None:
    """Each line of each private host key, and nothing that was used to make it is left behind."""
    private = [path for path in traces.left if path.startswith("/etc/ssh/ssh_host_") and path[-4:] != ".pub"]
    assert len(private) == 2
    for path in private:
        public = traces.left[f"{path}.pub"].decode()
        # The first line of content is the same for all keys of a type, and some are of the public half.
        lines = [line for line in traces.left[path].decode().splitlines()[2:-1] if line not in public]
        assert len(lines) >= 2
        for line in lines:
            assert traces.holding(line) == {path}


def test_key_material_is_where_sshd_reads_it(traces: Traces, launch_key: str) -> None:
    """Elsewhere, the journal, the report and the ledger among them, a fingerprint has to do."""
    homes = {f"{HOMES}/{name}/.ssh/authorized_keys" for name in ("root", "alice")}
    assert traces.holding(launch_key.split()[1]) == {*homes, "output of authorized-keys"}
    for path in ("/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub"):
        blob = traces.left[path].decode().split()[1]
        assert traces.holding(blob) == {path, "output of known-hosts"}


def test_what_is_made_is_for_its_owner_alone(traces: Traces) -> None:
    """Whatever the caller's umask: nobody else may write anything, or read more than is meant for all."""
    shown, open_to_others = set(), set()
    for path, file in traces.files().items():
        if not path.startswith(
            ("/etc/ssh/ssh_host", "/etc/sudoers.d/", "/run/firstkey", "/var/lib/", "/run/sshd")
        ):
            continue
        mode = file.lstat().st_mode
        if stat.S_IMODE(mode) & 0o022:
            open_to_others.add(path)
        if stat.S_ISREG(mode) and mode & 0o004:
            shown.add(path)
    assert open_to_others == set()
    assert shown <= SHOWN_TO_ALL
    assert shown >= SHOWN_TO_ALL - {"/run/firstkey/console-shown"}


def test_no_core_file_is_written(traces: Traces) -> None:
    """Not of the daemon, nor of what it starts: a limit is inherited."""
    [limit] = [line.split() for line in traces.limits.splitlines() if line.startswith("Max core file size")]
    assert limit[4:6] == ["0", "0"]


def test_programs_get_a_clean_environment(traces: Traces) -> None:
    """Of the caller's variables only PATH comes through to what firstkey starts."""
    lines = traces.left["programs of daemon"].decode().splitlines()
    started = [line for line in lines if "execve(" in line and line.endswith("= 0")]
    assert len(started) >= 3
    for line in started[1:]:  # the first one is firstkey itself
        assert "PYTHONPATH" not in line
        assert '"LC_ALL=C.UTF-8"' in line
