"""A machine for tests that need root: its own /etc, /run, /srv and network, in namespaces that end with it.

A real sshd runs in it on port 22, real users log in with real keys, and nothing of the host is changed.
Homes are below /srv, so that whatever a checkout or a Python lies in stays where it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from machine import AGENT, fingerprint, new_key
from processes import wait_for

INIT = Path(__file__).with_name("lab_init.py")
ALICE = 4242
"""The uid and gid of the lab's user, which no host's account should have."""
OF_NO_USE = ("alternatives", "ssl", "fonts", "java-*", "X11")
"""Most of the files of /etc, which no login looks at."""
CERTIFICATES = "ssl/certs/ca-certificates.crt"
"""Without which some versions of requests cannot be imported."""
PAM = """\
auth     required pam_unix.so
account  required pam_nologin.so
account  required pam_unix.so
password required pam_unix.so
session  required pam_permit.so
"""
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
LogLevel VERBOSE
UsePAM yes
"""
MODE_OF_SHADOW = 0o640
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
"""Whatever ends a test run, even SIGKILL, ends what it started."""


class Done(NamedTuple):
    """How a command in the lab ended."""

    status: int
    out: str
    err: str


class Diagnosis(NamedTuple):
    """What the doctor said of one user."""

    status: int
    report: dict[str, Any]
    err: str

    @property
    def user(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["users"][0]
        return found

    def with_status(self, status: str) -> list[dict[str, Any]]:
        return [finding for finding in self.user["findings"] if finding["status"] == status]

    @property
    def obstacles(self) -> list[str]:
        """The reason codes of the obstacles, in order."""
        return [finding["reason"] for finding in self.with_status("obstacle")]

    @property
    def first(self) -> dict[str, Any]:
        return self.with_status("obstacle")[0]

    @property
    def notes(self) -> list[str]:
        return [finding["reason"] for finding in self.with_status("ok") if finding["reason"]]

    @property
    def unknowns(self) -> list[str]:
        return [finding["reason"] for finding in self.with_status("unknown")]


class Lab:
    """A healthy machine with one user, alice, until a test breaks it. Use it in a `with` block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.user = "alice"
        self.home = "/srv/home/alice"
        for name in ("run/sshd", "srv/home", "srv/root", "var/lib", "keys", "bin"):
            (directory / name).mkdir(parents=True)
        of_no_use = shutil.ignore_patterns(*OF_NO_USE)
        shutil.copytree(
            "/etc", directory / "etc", symlinks=True, ignore_dangling_symlinks=True, ignore=of_no_use
        )
        certificates = directory / f"etc/{CERTIFICATES}"
        certificates.parent.mkdir(parents=True)
        shutil.copy(f"/etc/{CERTIFICATES}", certificates)
        for path in (
            directory,
            *(directory / name for name in ("run", "run/sshd", "srv", "srv/home", "var")),
        ):
            path.chmod(0o755)
        self._furnish()
        self._install()
        self._process = self._start()

    def __enter__(self) -> Lab:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        # The first process of a process namespace takes all others with it.
        self._process.kill()
        self._process.communicate()

    # --- its files ------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Where the host sees a path of the lab's own directories."""
        return self.directory / path.lstrip("/")

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: int = 0) -> Path:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        os.chown(file, owner, owner)
        return file

    def append(self, path: str, content: str) -> None:
        with self.path(path).open("a", encoding="utf-8") as file:
            file.write(content)

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.path(path).read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        self.path(path).write_text(text.replace(old, new), encoding="utf-8")

    def prepend_config(self, text: str) -> None:
        """Before everything else in sshd_config: the first value is the one that counts."""
        self.write("/etc/ssh/sshd_config", f"{text}\n{self.path('/etc/ssh/sshd_config').read_text()}")

    @property
    def keys_file(self) -> str:
        return f"{self.home}/.ssh/authorized_keys"

    def snapshot(self) -> dict[str, tuple[Any, ...]]:
        """Mode, owner, size and times of every file, but for what sshd itself writes, in its own time."""
        found = {}
        for top in ("etc", "run", "srv", "var"):
            for where, directories, names in os.walk(self.directory / top):
                for path in (Path(where, name) for name in [*directories, *names]):
                    found[str(path)] = self._looks(path)
        own = ("/run/sshd.log", "/run/sshd.pid")
        return {path: looks for path, looks in found.items() if not path.endswith(own)}

    @staticmethod
    def _looks(path: Path) -> tuple[Any, ...]:
        status = path.lstat()
        # Nobody can change a content without that the kernel notes the time (inode(7): st_ctim).
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_size, times)

    # --- its programs ---------------------------------------------------------------------------

    def run(self, *argv: str, timeout: float = 60, check: bool = False) -> Done:
        """Run a program in the lab."""
        if "chattr" in " ".join(argv) and not shutil.which("chattr"):
            pytest.skip("needs chattr of e2fsprogs")
        done = subprocess.run(
            [*self._enter(), *argv], capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, cwd="/", env=self._environment(),
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def background(self, *argv: str) -> Iterator[None]:
        """Run a program in the lab for as long as the block lasts, from its first line of output on."""
        # In the host's process namespace: there, nsenter becomes the program, and can be ended by its own id.
        enter = [*WITH_PARENT, "nsenter", "-t", self._init_pid(), "-m", "-n", "--"]
        process = subprocess.Popen(
            [*enter, *argv], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=self._environment()
        )
        try:
            assert process.stdout
            assert process.stdout.readline(), f"{argv} said nothing"
            yield
        finally:
            process.kill()
            process.communicate()

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", self._init_pid(), "-m", "-n", "-p", "--"]

    def sh(self, script: str) -> Done:
        """Run a shell script in the lab, as an operator would type it."""
        return self.run("sh", "-c", script)

    def start_sshd(self, *options: str) -> bool:
        """Start sshd and wait until it listens; whether it came up."""
        self.path("/run/sshd.log").write_text("")
        done = self.run(shutil.which("sshd") or "sshd", "-E", "/run/sshd.log", *options)
        if done.status != 0:
            print(f"sshd ended with {done.status}: {done.out}{done.err}{self.sshd_log}")
            return False
        # The command ends before sshd listens; its PID file comes after that.
        wait_for(self._pid_file.exists, "sshd")
        return True

    def ensure_sshd(self) -> None:
        """Start sshd, unless it runs."""
        assert self._pid_file.exists() or self.start_sshd()

    def reload_sshd(self) -> None:
        """Let sshd read its configuration again, and wait until it has."""
        with self.reloaded():
            self.run("kill", "-HUP", self._pid_file.read_text().strip(), check=True)

    @contextmanager
    def reloaded(self) -> Iterator[None]:
        """What the block does makes sshd read its configuration again; wait until it has."""
        before = self._pid_file_written()
        yield
        wait_for(lambda: self._pid_file_written() not in (before, None), "the reload")

    def stop_sshd(self) -> None:
        self.run("kill", self._pid_file.read_text().strip(), check=True)
        wait_for(lambda: not self._pid_file.exists(), "sshd's end")

    @property
    def _pid_file(self) -> Path:
        return self.path("/run/sshd.pid")

    def _pid_file_written(self) -> int | None:
        try:
            return self._pid_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    @property
    def sshd_log(self) -> str:
        return self.path("/run/sshd.log").read_text(encoding="utf-8", errors="replace")

    def works(self, *, user: str | None = None, key: str = "launch") -> bool:
        """Whether a login works with a command and without one."""
        return self.login(user=user, key=key) and self.shell(user=user, key=key)

    def login(self, *, user: str | None = None, key: str = "launch", host: str = "127.0.0.1") -> bool:
        """Whether a login with the key runs a command in a shell."""
        done = self.run(*self._ssh(user, key), host, "echo hello")
        return done.status == 0 and done.out == "hello\n"

    def shell(self, *, user: str | None = None, key: str = "launch") -> bool:
        """Whether a login with the key comes to a shell at a terminal, which takes a command."""
        done = subprocess.run(
            [*self._enter(), *self._ssh(user, key), "-tt", "127.0.0.1"],
            input="echo he''llo\nexit\n", capture_output=True, text=True, timeout=60, check=False, cwd="/",
            env=self._environment(),
        )  # fmt: skip
        return "hello" in done.stdout

    def _ssh(self, user: str | None, key: str) -> list[str]:
        options = (
            "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ConnectTimeout=50",
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
            "PreferredAuthentications=publickey", "LogLevel=ERROR",
        )  # fmt: skip
        argv = ["ssh", "-F", "none", "-i", str(self.directory / "keys" / key), "-l", user or self.user]
        for option in options:
            argv += ["-o", option]
        return argv

    def speaks(self) -> bool:
        """Whether the running sshd tells a client who it is, whatever came after that."""
        return (
            "Remote protocol version" in self.run(*self._ssh(None, "launch"), "-v", "127.0.0.1", "true").err
        )

    def accepts(self, *, user: str | None = None, key: str = "launch") -> bool:
        """Whether the running sshd would take the public key, whatever came after that."""
        argv = ["ssh", "-v", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-l", user or self.user]
        done = self.run(*argv, "-i", str(self.directory / "keys" / key), "127.0.0.1", "true")
        return "Server accepts key" in done.err

    def firstkey(self, *argv: str, user: int | None = None, timeout: float = 60) -> Done:
        """Run firstkey in the lab, as root or as somebody else."""
        before = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return self.run(*before, sys.executable, "-m", "firstkey", *argv, timeout=timeout)

    def doctor(self, *options: str, user: int | None = None, key: str | None = "launch") -> Diagnosis:
        """What the doctor says, for a client on this machine."""
        which = ["--key", str(self.directory / "keys" / f"{key}.pub")] if key else []
        done = self.firstkey("doctor", "--json", "--from", "127.0.0.1", *which, *options, user=user)
        assert done.status in (0, 1) and done.out, done.err  # noqa: PT018
        return Diagnosis(done.status, json.loads(done.out), done.err)

    # --- how it is made -------------------------------------------------------------------------

    def new_key(self, name: str, kind: str = "ed25519") -> str:
        return new_key(self.directory / "keys", name, kind)

    def authorize(self, lines: str, *, user: str | None = None) -> None:
        """Put the lines into the user's file of keys, as it should be."""
        home, uid = (self.home, ALICE) if user in (None, self.user) else ("/srv/root", 0)
        self.write(f"{home}/.ssh/authorized_keys", lines, mode=0o600, owner=uid)
        self.path(f"{home}/.ssh").chmod(0o700)
        os.chown(self.path(f"{home}/.ssh"), uid, uid)

    def _furnish(self) -> None:
        self._accounts()
        self.key = self.new_key("launch")
        self.fingerprint = fingerprint(self.key)
        shutil.rmtree(self.path("/etc/ssh"), ignore_errors=True)
        self.write("/etc/ssh/sshd_config", SSHD_CONFIG)
        host_key = new_key(self.path("/etc/ssh"), "ssh_host_ed25519_key")
        assert host_key
        self.write("/etc/pam.d/sshd", PAM)
        self.write(
            "/etc/firstkey/firstkey.conf",
            f"[Keys]\nUsers={self.user}\n[IMDS]\nEndpoints=http://127.0.0.1:9\n",
        )
        for name in ("nologin", "hosts.allow", "hosts.deny"):
            self.path(f"/etc/{name}").unlink(missing_ok=True)
        self.path(self.home).mkdir(mode=0o755)
        os.chown(self.path(self.home), ALICE, ALICE)
        self.authorize(f"{self.key}\n")

    def _install(self) -> None:
        """The command, where an operator finds it."""
        script = f'#!/bin/sh\nPYTHONPATH={AGENT} exec {sys.executable} -m firstkey "$@"\n'
        self.write("/bin/firstkey", script, mode=0o755)

    def _accounts(self) -> None:
        host = self.path("/etc/passwd").read_text()
        kept = [line for line in host.splitlines() if line.split(":")[0] not in ("root", self.user)]
        passwd = ["root:x:0:0:root:/srv/root:/bin/sh", *kept, f"alice:x:{ALICE}:{ALICE}::{self.home}:/bin/sh"]
        self.write("/etc/passwd", "\n".join(passwd) + "\n")
        shadow = ["root:*:19000:0:99999:7:::", "alice:*:19000:0:99999:7:::"]
        self.write("/etc/shadow", "\n".join(shadow) + "\n", mode=MODE_OF_SHADOW)
        self.append("/etc/group", f"alice:x:{ALICE}:\nstaff2:x:4243:alice\n")
        for name in ("gshadow", "passwd-", "shadow-", "group-", "subuid", "subgid"):
            self.path(f"/etc/{name}").unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[str]:
        namespaces = [
            *WITH_PARENT,
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        process = subprocess.Popen(
            [*namespaces, sys.executable, str(INIT), str(self.directory)],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self._environment(),
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n", "the lab did not start"
        return process

    def _init_pid(self) -> str:
        """The pid, outside, of the lab's first process: the only child of unshare."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return children.read_text().split()[0]

    def _environment(self) -> dict[str, str]:
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        return {"PATH": path, "PYTHONPATH": str(AGENT), "HOME": "/srv/root", "LC_ALL": "C.UTF-8"}
