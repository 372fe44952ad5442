"""The demo's machine: a scratch root that the caller owns, and a real sshd over it, which needs no port."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil  # noqa: TID251 - it removes what this module made
import signal
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from firstkey import reasons, settings
from firstkey.cli import streams
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key, restrictions
from firstkey.system import command
from firstkey.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN_SECONDS = 15.0
HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key" for kind in ("rsa", "ecdsa", "ed25519"))
DEMO_USER = "demo"
RUN_SSHD = "/run/sshd"


class Machine:
    """A scratch root with one user: the caller, so that a real sshd can let that user in."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._account = _caller()
        self.user = _usable(self._account.pw_name)
        self._keys = f"{root}/keys"
        self._home = f"/home/{self.user}"
        self._furnish()
        self.without_login = self._why_no_login()
        self.is_strict = _is_safe(root)

    def new_key(self, name: str) -> str:
        """Make the key pair of that name, as a person would; returns the public line."""
        path = f"{self._keys}/{name}"
        program = command.find("ssh-keygen")
        if program is None:
            raise FirstkeyError("ssh-keygen is not installed", reason=reasons.KEYGEN_MISSING)
        outcome = command.run([program, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path])
        if outcome.status:
            raise FirstkeyError(f"ssh-keygen makes no key: {outcome.words}", reason=reasons.KEYGEN_FAILED)
        return self._public(name)

    def has_key(self, name: str) -> bool:
        """Whether the key of that name is in the user's authorized_keys."""
        return self._public(name).split()[1] in self._read(f"{self._home}/.ssh/authorized_keys")

    def authorized_keys(self) -> tuple[str, list[str]]:
        """The user's file of keys, as the machine names it, and its lines."""
        path = f"{self._home}/.ssh/authorized_keys"
        return path, self._read(path).splitlines()

    def write_authorized_keys(self, line: str) -> None:
        """What an editor would leave: only this line."""
        with Tree(self.root) as tree:
            tree.write(f"{self._home}/.ssh/authorized_keys", f"{line}\n".encode(), mode=0o600)

    def host_key_fingerprints(self) -> set[str]:
        """The host keys that there are."""
        lines = (self._read(f"{path}.pub").encode() for path in HOST_KEYS)
        return {public_key.parse_launch_key(line).fingerprint for line in lines if line}

    def files(self) -> list[tuple[str, os.stat_result]]:
        """What firstkey has to do with on this machine, by path."""
        found = []
        for top in ("/etc/ssh", self._home, "/var/lib/firstkey", "/run/firstkey"):
            for where, directories, names in os.walk(self.root + top):
                found += [os.path.join(where, name) for name in [*directories, *names]]
        return [(path[len(self.root) :], os.lstat(path)) for path in sorted(found)]

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """What shows whether any file was written; /run is of the run, not of the machine."""
        kept = [(path, found) for path, found in self.files() if not path.startswith("/run")]
        return {
            path: (found.st_ino, found.st_mtime_ns) for path, found in kept if stat.S_ISREG(found.st_mode)
        }

    def login(self, key: str) -> bool:
        """Log in with that key, to an sshd on the machine's files that ssh itself starts."""
        if os.geteuid() == 0:
            with Tree("/") as host:
                host.ensure(RUN_SSHD, mode=0o755).__exit__()  # Debian's sshd wants it
        known = f"{self.root}/keys/known_hosts"
        with open(known, "w", encoding="ascii") as file:
            file.writelines(f"demo {self._read(f'{path}.pub')}" for path in HOST_KEYS)
        server = [str(command.find("sshd")), "-i", "-e", "-f", self._sshd_config()]
        options = {
            "ProxyCommand": shlex.join(server), "HostKeyAlias": "demo",
            "BatchMode": "yes", "IdentitiesOnly": "yes", "IdentityAgent": "none", "ConnectTimeout": "10",
            "StrictHostKeyChecking": "yes", "UserKnownHostsFile": known, "GlobalKnownHostsFile": "/dev/null",
        }  # fmt: skip
        argv = [str(command.find("ssh")), "-F", "none", "-i", f"{self._keys}/{key}"]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        argv += ["-l", self._account.pw_name, "demo"]
        outcome = command.run([*argv, "echo", "hello"], seconds=LOGIN_SECONDS)
        return outcome.status == 0 and b"hello" in outcome.stdout

    def _sshd_config(self) -> str:
        """Only the launch key's way in, nothing else."""
        path = f"{self.root}/keys/sshd_config"
        lines = [
            *(f"HostKey {self.root}{key}" for key in HOST_KEYS),
            f"AuthorizedKeysFile {self.root}{self._home}/.ssh/authorized_keys",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            f"StrictModes {'yes' if self.is_strict else 'no'}",
            f"UsePAM {'yes' if _is_locked_root() else 'no'}",
        ]
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def _why_no_login(self) -> str:
        """Why no login can be shown here, or nothing."""
        if not (command.find("sshd") and command.find("ssh")):
            return "sshd is not installed (openssh-server)"
        if not self._account.pw_shell or restrictions.is_no_shell(self._account.pw_shell):
            return f"{self.user} has no login shell"
        return ""

    def _furnish(self) -> None:
        uid, gid, shell = os.geteuid(), os.getegid(), self._account.pw_shell
        files = {
            "/etc/passwd": f"{self.user}:x:{uid}:{gid}:the demo's user:{self._home}:{shell}\n",
            "/etc/group": f"{self.user}:x:{gid}:\n",
            "/etc/hostname": "demo\n",
            "/etc/ssh/sshd_config": "# OpenSSH's defaults\n",
        }
        with Tree(self.root) as tree:
            for path, content in files.items():
                tree.write(path, content.encode(), mode=0o644)
            for path, mode in ((self._home, 0o700), ("/keys", 0o700)):
                tree.ensure(path, mode=mode).__exit__()

    def _public(self, name: str) -> str:
        with open(f"{self._keys}/{name}.pub", encoding="ascii") as file:
            return file.read().strip()

    def _read(self, path: str) -> str:
        with Tree(self.root) as tree:
            return (tree.read(path, limit=1 << 20) or b"").decode()


def _caller() -> pwd.struct_passwd:
    """The caller's account, without which OpenSSH's programs do nothing. A container's user may have none."""
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError as error:
        message = f"user id {os.geteuid()} has no account on this machine, and ssh-keygen works for accounts"
        hint = "Run it as root, or as another user that /etc/passwd has."
        raise FirstkeyError(message, reason=reasons.NO_SUCH_USER, hint=hint) from error


def _usable(name: str) -> str:
    """The name, if an image's configuration could have it too: a directory service may know others."""
    try:
        return settings.account_name(name)
    except ValueError:
        return DEMO_USER


@contextmanager
def scratch(*, keep: bool) -> Iterator[Machine]:
    """A machine in a new directory, removed at the end unless it is to be kept."""
    had_run_sshd = os.path.isdir(RUN_SSHD)
    root = _new_directory()
    try:
        yield Machine(root)
    finally:
        _ignore_signals()
        if keep:
            streams.show(f"Kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
        if not had_run_sshd:
            _remove_run_sshd()


def _ignore_signals() -> None:
    """A second Ctrl-C may not keep the first one from tidying up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _remove_run_sshd() -> None:
    """Debian's sshd wants this directory even for `sshd -T`; but one that has started meanwhile needs it."""
    if not any(_comm(number) == "sshd" for number in os.listdir("/proc") if number.isdigit()):
        with suppress(OSError):
            os.rmdir(RUN_SSHD)  # noqa: TID251 - only an empty one goes


def _comm(number: str) -> str:
    try:
        with open(f"/proc/{number}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _new_directory() -> str:
    try:
        return tempfile.mkdtemp(prefix="firstkey-demo-", dir=_base())
    except OSError as error:
        message = f"cannot make a scratch directory: {error.strerror}"
        hint = "Set TMPDIR to a directory that you can write."
        raise FirstkeyError(message, reason=reasons.PERMISSION_DENIED, hint=hint) from error


def _base() -> str:
    """Where sshd trusts the path: only root and the caller can write the directories above."""
    places = [
        os.environ.get("XDG_RUNTIME_DIR", ""),
        "/run" if os.geteuid() == 0 else "",
        os.path.expanduser("~"),
    ]
    usable = (place for place in places if place and os.path.isdir(place) and os.access(place, os.W_OK))
    return next((place for place in usable if _is_safe(place)), None) or tempfile.gettempdir()


def _is_safe(path: str) -> bool:
    """Sshd's own rule for StrictModes (sshd_config(5)), up to the root."""
    path = os.path.realpath(path)
    while True:
        found = os.stat(path)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _is_locked_root() -> bool:
    """A locked root (`!` in shadow(5)) gets in by key only where PAM judges (sshd_config(5): UsePAM)."""
    if os.geteuid() != 0:
        return False
    with Tree("/") as tree:
        return (tree.read("/etc/shadow", limit=1 << 20) or b"").startswith(b"root:!")
