"""Jobs of firstkey's on a scratch tree that can be interrupted anywhere, and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import callwatch
import processes
import treestate
from hostkeys import generate
from machine import Machine, new_key

from firstkey.image.rules import boot
from firstkey.metadata.emulator import Emulator, Settings

ADMIN = 1500
FIRST, SECOND = "i-0000000000000001", "i-0000000000000002"
KINDS = ("ecdsa", "ed25519")  # an RSA key takes its time
FOREIGN = b'# mine\r\n\n\tfrom="10.0.0.0/8",no-pty %s\nnot a key \xff\x00 at all\n%s'
"""Lines that are not firstkey's, the last one without an end."""
PRIVATE_RUN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
"""What a killed program leaves in the host's /run (a scratch directory) goes with its mounts."""
SECTION = "[User deploy]\nCreate=yes\nGroups=wheel\nShell=/bin/sh\nSudo=ALL=(ALL) NOPASSWD: ALL\n"


def missing() -> str | None:
    """Why the jobs cannot be run and interrupted here, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = [name for name in ("useradd", "visudo", "unshare") if not shutil.which(name, path=path)]
    return f"needs {', '.join(programs)}, not installed here" if programs else callwatch.missing()


class Done(NamedTuple):
    """How a plain run ended."""

    status: int
    out: str
    err: str


class Scenario:
    """A tree as it is before the job, the job, and the same tree after it (`new`), undisturbed.

    `wipes`: what is taken out is overwritten before, so for a moment it is neither old nor gone.
    """

    def __init__(self, root: Path, *argv: str, wipes: bool = False) -> None:
        self.root = root
        self.wipes = wipes
        self._argv = [sys.executable, "-m", "firstkey", argv[0], "--root", str(root), "--json", *argv[1:]]
        self.old = treestate.take(root)
        done = self.again()
        assert done.status == 0, done.out + done.err
        self.report = done.out
        self.new = treestate.take(root)

    def begin(self) -> None:
        """Let it be as before the job."""
        treestate.put(self.root, self.old)

    def interrupted(self, at: Callable[[callwatch.Call], int | str | None]) -> callwatch.Ended:
        """The job under watch (see callwatch.run), from the beginning."""
        self.begin()
        return self.interrupted_again(at)

    def interrupted_again(self, at: Callable[[callwatch.Call], int | str | None]) -> callwatch.Ended:
        """The same on the tree as it is now."""
        return callwatch.run([*PRIVATE_RUN, *self._argv], self.root, at)

    def again(self) -> Done:
        """The job, on the tree as it is now."""
        done = subprocess.run(
            [*PRIVATE_RUN, *self._argv],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=processes.PATIENCE, env=processes.environment(),
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)


# --- how a tree comes about -----------------------------------------------------------------------


def machine_with_admin(directory: Path) -> Machine:
    """A machine with a user who is not root, and has lines of his own in his file of keys."""
    machine = Machine(directory / "root")
    machine.accounts = ["root:x:0:0::/root:/bin/sh"]
    machine.uid = machine.gid = ADMIN
    machine.add_user("admin")
    machine.write("/etc/group", f"root:x:0:\nwheel:x:10:\nadmin:x:{ADMIN}:\n")
    for name, content in {"shadow": "root:*:1::::::\nadmin:*:1::::::\n", "gshadow": "", "subuid": ""}.items():
        machine.write(f"/etc/{name}", content, mode=0o600)
    machine.write("/etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n")
    machine.write("/etc/skel/.profile", "# a profile\n")
    machine.write(
        "/etc/ssh/sshd_config", "".join(f"HostKey /etc/ssh/ssh_host_{kind}_key\n" for kind in KINDS)
    )
    machine.write("/proc/sys/kernel/random/boot_id", "boot\n")
    machine.write_keys(FOREIGN % tuple(new_key(directory, name).encode() for name in ("own", "other")))
    for path in ("/home/admin", "/home/admin/.ssh", "/home/admin/.ssh/authorized_keys"):
        os.chown(machine.path(path), ADMIN, ADMIN)
    for path in ("/var/lib", "/run", "/etc/sudoers.d"):
        machine.path(path).mkdir(parents=True)
    return machine


def first_run(directory: Path, service: Emulator) -> Scenario:
    """A first boot: a user is created, keys are added, one host key is missing, another one broken."""
    machine = machine_with_admin(directory)
    machine.configure(f"[Keys]\nUsers=admin deploy\n{SECTION}")
    machine.write("/etc/ssh/ssh_host_ecdsa_key", "-----BEGIN OPENSSH PRIVATE KEY-----\n", mode=0o600)
    return Scenario(machine.root, "run", "--imds", service.url)


def another_instance(directory: Path, service: Emulator) -> Scenario:
    """An image that was made without sealing wakes up: launch key and host keys are exchanged."""
    machine = machine_with_admin(directory)
    machine.configure("[Keys]\nUsers=admin\n")
    first = machine.run(service)
    assert first.status == 0, first.err
    service.change(instance_id=SECOND, keys=(("second", new_key(directory, "second")),))
    return Scenario(machine.root, "run", "--imds", service.url)


def broken_host_keys(directory: Path, _service: Emulator) -> Scenario:
    """Host keys alone: one is there twice over and does not match, one has lost its public half."""
    machine = machine_with_admin(directory)
    for kind in KINDS:
        generate(machine.path(f"/etc/ssh/ssh_host_{kind}_key"), kind)
    machine.path("/etc/ssh/ssh_host_ed25519_key.pub").unlink()
    other = generate(directory / "stray", "ecdsa")
    shutil.copy(f"{other}.pub", machine.path("/etc/ssh/ssh_host_ecdsa_key.pub"))
    return Scenario(machine.root, "host-keys")


def sealing(directory: Path, service: Emulator) -> Scenario:
    """An image is sealed: files are rewritten, emptied, removed, and overwritten before."""
    machine = machine_with_admin(directory)
    machine.configure("[Keys]\nUsers=admin\n")
    first = machine.run(service)
    assert first.status == 0, first.err
    shutil.rmtree(machine.path("/run"))
    machine.write("/etc/shadow", "root:$6$salt$hash:19000::::::\nadmin:$6$s$h:19000::::::\n", mode=0o600)
    machine.write("/etc/shadow-", "root:$6$salt$old:19000::::::\n", mode=0o600)
    machine.write("/etc/machine-id", f"{'0123456789abcdef' * 2}\n")
    machine.write("/home/admin/.bash_history", "export PASSWORD=x\n", mode=0o600)
    machine.write("/var/log/syslog", "a line\n")
    machine.write("/var/lib/systemd/random-seed", "x" * 32, mode=0o600)
    machine.write(
        "/usr/lib/systemd/system/firstkey.service", "[Service]\nExecStart=/usr/bin/firstkey daemon\n"
    )
    for path in boot.PARTS:
        machine.write(path, "", mode=0o755)
    machine.path("/etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    machine.path("/etc/systemd/system/multi-user.target.wants/firstkey.service").symlink_to(
        "/usr/lib/systemd/system/firstkey.service"
    )
    return Scenario(machine.root, "seal", wipes=True)


SCENARIOS: Mapping[str, Callable[[Path, Emulator], Scenario]] = {
    "a first boot": first_run,
    "another instance": another_instance,
    "broken host keys": broken_host_keys,
    "sealing": sealing,
}


@contextmanager
def scenario(name: str, directory: Path) -> Iterator[Scenario]:
    """The scenario of that name, with a metadata service that lives as long."""
    key = new_key(directory, "launch")
    with Emulator(Settings(instance_id=FIRST, keys=(("launch", key),))) as service:
        yield SCENARIOS[name](directory, service)
