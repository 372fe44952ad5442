"""What the tests of real boots play with: a disk, the cloud around it, and the owner's launch key."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bootlab import Disk, Image, Machine
from machine import new_key
from netlab import Cloud, Login, run, wait_until

PROMPT = 20.0
"""Seconds in which what must happen soon has happened, on a busy machine too; the boot deadline is later."""
BACKGROUND = 120.0
"""Seconds for what takes idle time only: the RSA key, and what waits for it."""

BLOCK = re.compile(
    r"^-----BEGIN SSH HOST KEY KEYS-----$(.*?)^-----END SSH HOST KEY KEYS-----$", re.MULTILINE | re.DOTALL
)

TELLING = ("firstkey", "sshd", "sshd-session", "systemd")

ACCEPTING = """\
[Socket]
Accept=yes
"""
INSTANCE = """\
[Unit]
Description=OpenBSD Secure Shell server per-connection daemon

[Service]
ExecStart=-/usr/sbin/sshd -i $SSHD_OPTS
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
"""
"""Debian's own until Debian 11, and what other distributions have."""


class Scenario:
    """What a first boot takes: a disk, the cloud around it, and the key that its owner launches it with."""

    def __init__(self, disk: Disk, cloud: Cloud, directory: Path) -> None:
        self.disk = disk
        self.cloud = cloud
        self.directory = directory
        self.line = self.new_key("launch")
        self.key = directory / "launch"

    def new_key(self, name: str) -> str:
        """Another key pair, a file of that name in the directory; returns its public line."""
        return new_key(self.directory, name)

    def configure(self, text: str) -> None:
        """The administrator's own settings."""
        self.disk.write("/etc/firstkey/firstkey.conf.d/50-test.conf", text)

    @property
    def takes_socket(self) -> bool:
        """Whether one sshd can serve a whole socket of systemd's: Debian 11's starts one a connection."""
        return self.disk.image.suite != "bullseye"

    def listen_by_socket(self, *, accept: bool) -> None:
        """Let systemd listen on port 22, as Ubuntu does; by preset, which a first boot applies again.

        Where sshd cannot take the socket, there is a process a connection whatever `accept` says.
        """
        preset = "enable ssh.socket\ndisable ssh.service\n"
        self.disk.write("/etc/systemd/system-preset/10-test.preset", preset)
        run("systemctl", f"--root={self.disk.root}", "--quiet", "preset", "ssh.service", "ssh.socket")
        if accept:
            self.disk.write("/etc/systemd/system/ssh.socket.d/accept.conf", ACCEPTING)
            self.disk.write("/etc/systemd/system/ssh@.service", INSTANCE)

    def boot(self, *kernel_words: str, firmware: str | dict[str, str] = "", may_ask: bool = False) -> Machine:
        """Switch the machine on."""
        return Machine(self.disk, self.cloud, kernel_words=kernel_words, firmware=firmware, may_ask=may_ask)

    def login(
        self, *command: str, user: str = "root", key: str = "launch", on: Machine | None = None
    ) -> Login:
        """Log in from the cloud; with `on` only if that machine's console vouches for the host key."""
        return self.cloud.ssh(
            self.directory / key,
            *(command or ("true",)),
            user=user,
            known_hosts=self.known_hosts(on) if on else None,
        )

    def known_hosts(self, machine: Machine) -> Path:
        """What somebody who reads the console knows of the host, once all its keys are made."""
        wait_until(lambda: BLOCK.search(machine.console), seconds=BACKGROUND, what="host keys on the console")
        found = BLOCK.findall(machine.console)
        lines = [f"{self.cloud.machine_address} {line}" for line in found[-1].strip().splitlines()]
        file = self.directory / "known_hosts"
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    def host_keys(self) -> dict[str, str]:
        """The public host keys on the disk, by file name."""
        return {file.name: file.read_text() for file in self.disk.path("/etc/ssh").glob("ssh_host_*_key.pub")}

    def logged(self) -> str:
        """For the report of a test that failed: the consoles, and what was said in the journal."""
        lines = []
        for console in sorted(self.disk.directory.glob("console-*.log")):
            lines += [f"--- {console.name}", console.read_text(errors="replace")]
        if self.disk.path("/var/log/journal").is_dir():
            lines += [
                f"{entry['SYSLOG_IDENTIFIER']}: {entry['MESSAGE']}"
                for entry in self.disk.journal()
                if entry.get("SYSLOG_IDENTIFIER") in TELLING
            ]
        return "\n".join(lines)


def scenario_on(image: Image, shelf: Path) -> Iterator[Scenario]:
    """A scenario with the machine's network plugged in, and nobody answering in the cloud yet."""
    directory = Path(tempfile.mkdtemp(dir=shelf))
    with Disk(image, directory / "disk") as disk, Cloud(directory) as cloud:
        cloud.plug_in()
        scenario = Scenario(disk, cloud, directory)
        yield scenario
        print(scenario.logged())
