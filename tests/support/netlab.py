"""A network of a test's own: the machine's namespace, the cloud's, and one cable between the two.

In the cloud's namespace the metadata service answers at its real addresses, and from there somebody logs in
to the machine. Nothing of it touches the network of whoever runs the test.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

AGENT = Path(__file__).parents[2] / "agent"
METADATA = {4: "169.254.169.254", 6: "fd00:ec2::254"}
"""AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata"."""
CLOUD = {4: "10.97.0.1", 6: "fd97::1"}
MACHINE = {4: "10.97.0.2", 6: "fd97::2"}
BOTH = (4, 6)
MACHINE_LINK = "02:00:00:00:00:02"
PREFIX = "firstkey-"
LOGIN_SECONDS = 120

PROBE = """\
import socket, sys, time
address, port, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + limit
while time.monotonic() < end:
    try:
        with socket.create_connection((address, port), timeout=0.05) as channel:
            channel.settimeout(max(0.01, end - time.monotonic()))
            if channel.recv(4) == b"SSH-":
                print(time.monotonic())
                break
    except OSError:
        time.sleep(0.002)
"""
"""Prints the moment (CLOCK_MONOTONIC) at which an SSH server has said that it is one.

Each attempt is short: TCP repeats a packet that met no network only a second later.
"""

_numbers = itertools.count()


class Login(NamedTuple):
    """How an attempt to log in ended: ssh's exit status (255: not let in), and what was said."""

    status: int
    out: str
    err: str

    @property
    def is_refused(self) -> bool:
        """The server was there, and let nobody in with this key."""
        return self.status == 255 and "Permission denied (publickey" in self.err


def run(*argv: str | Path, seconds: float = 30, check: bool = True) -> str:
    """Run a program of this machine's; returns what it printed. A failure is told with its words."""
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def end(process: subprocess.Popen[bytes], *, patience: float = 5) -> None:
    """End a process that we started, politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(patience)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


class Service:
    """The metadata service on some of its addresses, until it is stopped."""

    def __init__(self, cloud: Cloud, options: Sequence[str], families: Sequence[int], log: Path) -> None:
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for family in families:
                self._processes.append(self._started(cloud, options, METADATA[family]))
            for process in self._processes:
                url = process.stdout.readline() if process.stdout else b""
                assert url, f"no metadata service: {log.read_text()}"
        except BaseException:
            self.stop()
            raise

    def _started(self, cloud: Cloud, options: Sequence[str], address: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "firstkey", "imds", "--host", address, "--port", "80", *options]
        with self._log.open("ab") as log:
            return cloud.start(argv, stdout=subprocess.PIPE, stderr=log, PYTHONPATH=str(AGENT))

    @property
    def requests(self) -> list[str]:
        """What was asked, oldest first: `GET /latest/meta-data/instance-id with a token: 200`."""
        return self._log.read_text().splitlines()

    def stop(self) -> None:
        """No answer any more: connections are refused from now on."""
        for process in self._processes:
            end(process)


class Cloud:
    """The two namespaces. Both are gone when the `with` block ends, with all that was started in them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.name = f"{name}-cloud"
        self.machine_name = f"{name}-machine"
        self.families: tuple[int, ...] = ()
        self.services: list[Service] = []
        self._exits = ExitStack()

    def __enter__(self) -> Cloud:  # noqa: PYI034 - Self came with Python 3.11
        with ExitStack() as undo:
            for name in (self.name, self.machine_name):
                undo.enter_context(_namespace(name))
            self._lay_cable()
            self._exits = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.silence()
        self._exits.close()

    @property
    def machine_namespace(self) -> str:
        """Where the machine's network is, as systemd-nspawn wants to know it."""
        return f"/run/netns/{self.machine_name}"

    def _lay_cable(self) -> None:
        peer = f"peer name eth0 address {MACHINE_LINK} netns {self.machine_name}"
        _ip(self.name, f"link add cable type veth {peer}", "link set lo up")
        _ip(self.machine_name, "link set lo up")
        for family in BOTH:
            _ip(self.name, f"addr add {CLOUD[family]}/{_width(family)} dev cable{_at_once(family)}")
        _ip(self.name, "link set cable up")
        for address in MACHINE.values():  # else who asks before it is there is answered a second later
            _ip(self.name, f"neigh replace {address} lladdr {MACHINE_LINK} dev cable nud permanent")

    def plug_in(self, *families: int) -> None:
        """Give the machine its addresses (of these families, or both) and its way to the cloud."""
        self.families = families or BOTH
        _ip(self.machine_name, "link set eth0 up")
        for family in self.families:
            address = f"{MACHINE[family]}/{_width(family)} dev eth0{_at_once(family)}"
            _ip(self.machine_name, f"addr add {address}", f"-{family} route add default via {CLOUD[family]}")

    def unplug(self) -> None:
        """Take the machine's network away; its addresses and routes go with it."""
        _ip(self.machine_name, "link set eth0 down", "addr flush dev eth0")

    def offer(
        self,
        *keys: str,
        instance: str = "i-0123456789abcdef0",
        tokens: str = "both",
        off: bool = False,
        faults: Sequence[str] = (),
        families: Sequence[int] = BOTH,
    ) -> Service:
        """Start the metadata service (`firstkey imds`) with these keys, in place of an earlier one."""
        self.silence()
        for family in families:
            address = f"{METADATA[family]}/{32 if family == 4 else 128}"
            _ip(self.name, f"addr replace {address} dev lo{_at_once(family)}")
        options = ["--instance-id", instance, "--tokens", tokens, *(["--off"] if off else [])]
        options += [word for key in keys for word in ("--key", key)]
        options += [word for fault in faults for word in ("--fault", fault)]
        log = self._directory / f"metadata-{len(self.services)}.log"
        self.services.append(Service(self, options, families, log))
        return self.services[-1]

    def silence(self) -> None:
        """Stop the metadata service."""
        for earlier in self.services:
            earlier.stop()

    @property
    def machine_address(self) -> str:
        """Where the machine is logged in to."""
        return MACHINE[self.families[0]]

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        stdout: int | None = None,
        stderr: int | BinaryIO | None = None,
        **environ: str,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the cloud's namespace; whoever starts it ends it."""
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environ},
        )

    def probe(self, *, seconds: float) -> subprocess.Popen[bytes]:
        """Start to look for an SSH server on the machine; the moment of its banner is printed."""
        argv = [sys.executable, "-I", "-S", "-c", PROBE, self.machine_address, "22", str(seconds)]
        return self.start(argv, stdout=subprocess.PIPE)

    def is_open(self, port: int) -> bool:
        """Whether a connection to the machine's port is accepted."""
        program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"
        argv = [sys.executable, "-I", "-S", "-c", program, self.machine_address, str(port)]
        return self.start(argv, stderr=subprocess.DEVNULL).wait(timeout=30) == 0

    def has_ssh(self) -> bool:
        """Whether an SSH server answers on the machine right now."""
        said, _ = self.probe(seconds=0.3).communicate(timeout=60)
        return bool(said)

    def ssh(
        self,
        key: Path,
        *command: str,
        user: str = "root",
        known_hosts: Path | None = None,
    ) -> Login:
        """Log in with the key and run a command; with `known_hosts` only to a machine that it lists."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "PreferredAuthentications": "publickey",
            "ConnectTimeout": "10",
            "ConnectionAttempts": "3",  # for some milliseconds of a reload, sshd does not listen
            "GlobalKnownHostsFile": "/dev/null",
            "UserKnownHostsFile": str(known_hosts or "/dev/null"),
            "StrictHostKeyChecking": "yes" if known_hosts else "no",
        }
        argv = ["ssh", "-F", "/dev/null", "-o", "LogLevel=ERROR", "-i", str(key)]
        argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        process = self.start(
            [*argv, f"{user}@{self.machine_address}", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(timeout=LOGIN_SECONDS)
        finally:
            end(process)
        return Login(process.returncode, out.decode(), err.decode())


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    run("ip", "netns", "add", name)
    try:
        yield
    finally:
        _remove(name)


def _remove(name: str) -> None:
    run("ip", "netns", "del", name, check=False)


def sweep() -> None:
    """Remove namespaces of test runs that were killed before they could do it themselves."""
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0]
        owner = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
            _remove(name)


def _ip(namespace: str, *lines: str) -> None:
    for line in lines:
        run("ip", "-n", namespace, *line.split())


def _width(family: int) -> int:
    return 24 if family == 4 else 64


def _at_once(family: int) -> str:
    """No wait for a duplicate of an IPv6 address, which lasts a second and more."""
    return " nodad" if family == 6 else ""


def wait_until(condition: Callable[[], object], *, seconds: float = 30, what: str) -> None:
    """Look again and again until the condition holds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)
