"""A scratch root for tests: what a fresh image has, and firstkey run on it as people run it, as a program."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import fork_server

from firstkey.metadata.emulator import Emulator

AGENT = Path(__file__).parents[2] / "agent"
SSHD_CONFIG = "HostKey /etc/ssh/ssh_host_ed25519_key\n"
"""One host key that takes no time: sshd's defaults have an RSA key, for which a test may wait for seconds."""


class Run(NamedTuple):
    """How a run ended."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def user(self, name: str) -> dict[str, Any]:
        return next(user for user in self.report["users"] if user["name"] == name)


class Machine:
    """An image's tree. Its user is the caller, so that no test needs root."""

    def __init__(self, root: Path) -> None:
        me = pwd.getpwuid(os.geteuid())
        self.root = root
        self.user = "admin"
        self.uid, self.gid = me.pw_uid, me.pw_gid
        self.accounts: list[str] = []
        self.add_user(self.user)
        self.write("/etc/hostname", "scratch\n")
        self.write("/etc/ssh/sshd_config", SSHD_CONFIG)
        self.write("/etc/firstkey/firstkey.conf", f"[Keys]\nUsers={self.user}\n")

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> Path:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def add_user(self, name: str, *, home: str | None = None, make_home: bool = True) -> None:
        home = home or f"/home/{name}"
        self.accounts.append(f"{name}:x:{self.uid}:{self.gid}::{home}:/bin/sh")
        self.write("/etc/passwd", "\n".join(self.accounts) + "\n")
        self.write("/etc/group", f"users:x:{self.gid}:\n")
        if make_home:
            self.path(home).mkdir(parents=True, exist_ok=True)
            self.path(home).chmod(0o755)

    def ask_for_all_host_keys(self) -> None:
        """Configure sshd as a distribution does, whose defaults ask for RSA, ECDSA and Ed25519."""
        self.write("/etc/ssh/sshd_config", "# defaults\n")

    def configure(self, text: str) -> None:
        self.write("/etc/firstkey/firstkey.conf", text)

    def set_firmware(self, instance: str) -> None:
        self.write("/sys/class/dmi/id/board_asset_tag", f"{instance}\n")

    @property
    def keys_file(self) -> Path:
        return self.path(f"/home/{self.user}/.ssh/authorized_keys")

    @property
    def keys(self) -> list[str]:
        """The lines of the user's authorized_keys."""
        return self.keys_file.read_text().splitlines() if self.keys_file.exists() else []

    def write_keys(self, content: str | bytes) -> Path:
        self.keys_file.parent.mkdir(mode=0o700, exist_ok=True)
        return self.write(f"/home/{self.user}/.ssh/authorized_keys", content, mode=0o600)

    def host_keys(self) -> dict[str, str]:
        """Public host key lines by file name."""
        return {
            file.name: file.read_text() for file in sorted(self.path("/etc/ssh").glob("ssh_host_*_key.pub"))
        }

    def snapshot(self) -> dict[str, tuple[int, int, int, int]]:
        """What tells whether anything was written or its mode changed; /run does not count."""
        files = (path for path in self.root.rglob("*") if path.relative_to(self.root).parts[0] != "run")
        return {
            str(path): (found.st_ino, found.st_mtime_ns, found.st_mode, found.st_uid)
            for path in files
            for found in [path.lstat()]
        }

    def firstkey(
        self,
        *argv: str,
        service: Emulator | None = None,
        timeout: float = 60,
        prefix: tuple[str, ...] = (),
        **environ: str,
    ) -> Run:
        """Run the command on this tree, with `prefix` before it: then in a process of its own."""
        command, *options = argv
        where = ["--root", str(self.root), *(["--imds", service.url] if service else [])]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(AGENT),
            "HOME": "/nonexistent",
            **environ,
        }
        if not prefix:
            status, out, err = fork_server.firstkey(
                command, *where, *options, environ=environment, timeout=timeout
            )
            return Run(status, out.decode(), err.decode())
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "firstkey", command, *where, *options],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def run(self, service: Emulator, *options: str, timeout: float = 60) -> Run:
        return self.firstkey("run", "--json", *options, service=service, timeout=timeout)


def new_key(directory: Path, name: str, kind: str = "ed25519", *more: str) -> str:
    """A new key pair in the directory; returns its public line."""
    argv = ["ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-C", name, "-f", str(directory / name)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return (directory / f"{name}.pub").read_text().strip()


def fingerprint(line: str) -> str:
    """As ssh-keygen shows the key; this machine's need not know its type."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


class World(NamedTuple):
    """Everything that a test of the whole job needs."""

    machine: Machine
    service: Emulator
    key: str
    directory: Path

    def another_key(self, name: str) -> str:
        return new_key(self.directory, name)

    def become(self, instance: str, *keys: str) -> None:
        """The disk wakes up as another instance, with other launch keys."""
        self.service.change(instance_id=instance, keys=tuple((f"key-{i}", key) for i, key in enumerate(keys)))
