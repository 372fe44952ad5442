"""A running system of a test's own: accounts, homes, /etc, /run and /var/lib in a private mount namespace.

Programs in it run on the same kernel and loopback, but no file of the host's outside the test's directory is
changed. Needs root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import fork_server
from listeners import wait_for_listener
from machine import AGENT, Run

from firstkey.metadata.emulator import Emulator

COPIED = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "login.defs", "nsswitch.conf", "pam.d", "security", "skel",
    "default", "sudoers", "localtime", "hosts",
)  # fmt: skip
"""What programs need of /etc; no account and no key of the host's is among it. See also MOUNTS."""
HOMES = "/var/lib/homes"
ACCOUNTS = f"""\
root:x:0:0:root:{HOMES}/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:74:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nwheel:x:10:\nusers:x:100:\nssh_users:x:101:\nnogroup:x:65534:\n"
MOUNTS = """
set -e
for name in alternatives ssl pki crypto-policies; do # hundreds of files that no test changes
    [ ! -d "/etc/$name" ] || { mkdir "$1/etc/$name"; mount -o bind,ro "/etc/$name" "$1/etc/$name"; }
done
mount --rbind "$1/etc" /etc
mount -t tmpfs -o mode=0755 none /run
mount -t tmpfs -o mode=0755 none /var/lib
mount -t tmpfs -o mode=0775 none /var/mail 2>/dev/null || true
[ ! -d /sys/class/dmi/id ] || mount -t tmpfs none /sys/class/dmi/id
mkdir -m 755 /run/sshd /var/lib/homes
mkdir -m 700 /var/lib/homes/root
echo ready
exec cat
"""


class Login(NamedTuple):
    """How an ssh ended."""

    status: int
    out: str
    err: str


class PrivateSystem:
    """The system; to be used in a `with` block. Paths in it are reached from outside by `path`."""

    def __init__(self, scratch: Path) -> None:
        self.homes = HOMES
        self._scratch = scratch
        self._copy_etc()
        self._holder: subprocess.Popen[str] | None = None
        self._sshd: subprocess.Popen[bytes] | None = None
        self._next_uid = 2000
        self.port = 0

    def __enter__(self) -> PrivateSystem:  # noqa: PYI034 - Self came with Python 3.11
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh"]
        argv.append(str(self._scratch))
        self._holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "ready\n", "the private mounts could not be made"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_sshd()
        assert self._holder
        self._holder.communicate()

    # --- files and accounts ---------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """A path of the system, as the test can open it."""
        assert self._holder
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def write(self, path: str, content: str, *, mode: int = 0o644, owner: str = "root") -> Path:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
        os.chown(file, *self.ids(owner))
        return file

    def add_user(self, name: str, *, home: str | None = None, uid: int | None = None) -> str:
        """An account that may log in, with a home of its own unless another is given; returns the home."""
        self._next_uid += 1
        uid = self._next_uid if uid is None else uid
        home = home or f"{self.homes}/{name}"
        self.add_account(name, home, uid)
        # By a program inside: an absolute link there would lead the test to the host's files.
        if self.run("test", "-e", home).returncode:
            self.run("install", "-d", "-m", "0755", "-o", str(uid), "-g", str(uid), home)
        return home

    def add_account(self, name: str, home: str, uid: int) -> None:
        """An account alone, wherever its home may be."""
        self._append("passwd", f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n")
        self._append("group", f"{name}:x:{uid}:\n")
        self._append("shadow", f"{name}:*:19000::::::\n")

    def ids(self, name: str) -> tuple[int, int]:
        lines = (line.split(":") for line in self.path("/etc/passwd").read_text().splitlines())
        return next((int(fields[2]), int(fields[3])) for fields in lines if fields[0] == name)

    def configure(self, text: str) -> None:
        self.write("/etc/firstkey/firstkey.conf", f"[HostKeys]\nTypes=ed25519\nConsole=no\n{text}")

    def keys_of(self, name: str) -> list[str]:
        """The lines of the user's own file of keys."""
        file = self.path(f"{self.homes}/{name}/.ssh/authorized_keys")
        return file.read_text().splitlines() if file.exists() else []

    # --- programs -------------------------------------------------------------------------------

    def run(
        self, *argv: str, user: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the system, as root or as a user."""
        become = []
        if user:
            uid, gid = self.ids(user)
            become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        assert self._holder
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wd=/", *become]
        return subprocess.run(
            [*inside, *argv],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "LC_ALL": "C.UTF-8"}

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program in the system; whoever starts it ends it."""
        assert self._holder
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wd=/"]
        return subprocess.Popen([*inside, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def firstkey(self, *argv: str, service: Emulator | None = None) -> Run:
        """Run firstkey on the running system, which this is."""
        command, *options = argv
        where = ["--imds", service.url] if service else []
        assert self._holder
        status, out, err = fork_server.firstkey(
            command, *where, *options, environ=self._environment(), mounts=f"/proc/{self._holder.pid}/ns/mnt"
        )
        return Run(status, out.decode(), err.decode())

    def start_sshd(self, config: str = "") -> None:
        """Start sshd with its defaults (StrictModes among them) and these lines, on a loopback port."""
        self.stop_sshd()
        self.set_sshd_config(config)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        assert self._holder
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wd=/"]
        options = [f"-oPort={self.port}", "-oListenAddress=127.0.0.1", "-oPidFile=none"]
        argv = [*inside, str(shutil.which("sshd")), "-D", "-e", *options]
        self._sshd = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_listener(self._sshd, self.port)

    def set_sshd_config(self, config: str) -> None:
        self.write("/etc/ssh/sshd_config", f"UsePAM no\nPermitRootLogin prohibit-password\n{config}")

    def stop_sshd(self) -> None:
        if self._sshd:
            self._sshd.terminate()
            self._sshd.communicate()
            self._sshd = None

    def ssh(self, user: str, key: Path, *command: str, seconds: float = 30) -> Login:
        """Log in with that key alone."""
        options = [
            "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "LogLevel=ERROR",
        ]  # fmt: skip
        argv = ["ssh", "-F", "none", "-i", str(key), "-p", str(self.port)]
        argv += [word for option in options for word in ("-o", option)]
        with subprocess.Popen(
            [*argv, f"{user}@127.0.0.1", *(command or ("echo", "let in"))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as ssh:  # fmt: skip
            try:
                out, err = ssh.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                ssh.kill()
                out, err = ssh.communicate()
            return Login(ssh.returncode, out, err)

    def lets_in(self, user: str, key: Path) -> bool:
        """Whether a login works, all the way to a command."""
        return self.ssh(user, key).out == "let in\n"

    # --- how it is made -------------------------------------------------------------------------

    def _copy_etc(self) -> None:
        etc = self._scratch / "etc"
        etc.mkdir()
        copied = [f"/etc/{name}" for name in COPIED if os.path.lexists(f"/etc/{name}")]
        subprocess.run(["cp", "-a", "--parents", *copied, str(self._scratch)], check=True)
        (etc / "passwd").write_text(ACCOUNTS)
        (etc / "group").write_text(GROUPS)
        (etc / "shadow").write_text("root:*:19000::::::\n")
        (etc / "shadow").chmod(0o600)
        (etc / "sudoers.d").mkdir(mode=0o750)
        (etc / "ssh").mkdir()

    def _append(self, name: str, line: str) -> None:
        with self.path(f"/etc/{name}").open("a") as file:
            file.write(line)
