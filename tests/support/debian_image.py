"""An image being built: a Debian tree that packages are installed into, and a systemd that takes notes."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import rootfs

from firstkey.metadata.emulator import Emulator

SUITES = ("bookworm", "trixie")
"""The Debian releases that the package is for."""

CODE = "/usr/lib/firstkey/firstkey"
LEDGER = "/var/lib/firstkey/ledger.json"
REPORT = "/run/firstkey/report.json"
WANTED = "/etc/systemd/system/multi-user.target.wants/firstkey.service"
SETTINGS = "/etc/firstkey/firstkey.conf.d/50-local.conf"
CONFIGURATION = """\
[Keys]
Users=
Users=root deploy

[User deploy]
Create=yes
Sudo=ALL=(ALL) NOPASSWD: ALL
"""
STARTING = frozenset({"start", "restart", "try-restart", "reload-or-restart", "isolate"})

SYSTEMCTL = """\
#!/bin/sh
# Links are made in the tree by the real one.
case "$*" in *--root=*) exec systemctl.real "$@" ;; esac
echo "$*" >>/systemctl-calls
case "$*" in
    *MainPID*) echo "MainPID=$(cat /main-pid 2>/dev/null || echo 0)" ;;
    *is-enabled*) echo enabled ;;
esac
"""
"""Stands in for the running system's, so that a test sees what maintainer scripts ask of it."""


class Image(NamedTuple):
    """A tree under `root`."""

    root: Path

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str, *, mode: int = 0o644) -> Path:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
        return file

    def run(self, *argv: str, status: int = 0, **environ: str) -> str:
        """What the program says in there; it must end with the status."""
        done = self.attempt(*argv, **environ)
        assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return rootfs.inside(self.root, *argv, environ=environ)

    def install(self, package: Path, *options: str) -> str:
        """With dpkg, which resolves nothing: what the package depends on must be there."""
        self.path("/tmp/package.deb").write_bytes(package.read_bytes())
        said = self.run("dpkg", *options, "--install", "/tmp/package.deb", DEBIAN_FRONTEND="noninteractive")
        self.path("/tmp/package.deb").unlink()
        return said

    def pretend_to_run(self, *, main_pid: int = 0) -> None:
        """From now on it looks like a running system, whose firstkey has this process (0: none)."""
        self.path("/run/systemd/system").mkdir(parents=True, exist_ok=True)
        self.path("/usr/bin/systemctl").rename(self.path("/usr/bin/systemctl.real"))
        self.write("/usr/bin/systemctl", SYSTEMCTL, mode=0o755)
        self.write("/main-pid", str(main_pid))
        self.write("/systemctl-calls", "")

    @property
    def calls(self) -> list[str]:
        """What systemctl was asked to do."""
        return self.path("/systemctl-calls").read_text().splitlines()

    def verbs(self) -> set[str]:
        """The words that systemctl was given, without its options."""
        return {word for call in self.calls for word in call.split() if not word.startswith("-")}

    def work(self, service: Emulator) -> dict[str, object]:
        """Let the agent do its job, for root and a user that it creates; returns its report."""
        self.write(SETTINGS, CONFIGURATION)
        report: dict[str, object] = json.loads(self.run("firstkey", "run", "--json", "--imds", service.url))
        return report

    def uncompiled(self) -> list[str]:
        """The modules whose bytecode Python would not take, as missing or not of this very source."""
        tag = self.run("python3", "-c", "import sys; print(sys.implementation.cache_tag)").strip()
        return [str(source) for source in self.path(CODE).rglob("*.py") if not _is_compiled(source, tag)]

    def files(self) -> set[str]:
        """Everything that is there, but for what belongs to the kernel or to dpkg."""
        unimportant = ("/proc/", "/dev/", "/sys/", "/var/lib/dpkg/", "/var/log/", "/var/cache/")
        found = (f"/{path.relative_to(self.root)}" for path in self.root.rglob("*"))
        return {path for path in found if not path.startswith(unimportant)}


def _is_compiled(source: Path, tag: str) -> bool:
    """Whether the bytecode is there and names the time and size of its source (PEP 552)."""
    bytecode = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
    if not bytecode.exists():
        return False
    flags, mtime, size = struct.unpack("<4xLLL", bytecode.read_bytes()[:16])
    found = source.stat()
    return (flags, mtime, size) == (0, int(found.st_mtime), found.st_size)


def prepare(root: Path) -> Image:
    """An image out of a root file system; its console is a file, since the real one is the machine's."""
    image = Image(root)
    image.path("/dev/console").unlink()
    image.write("/dev/console", "")
    return image
