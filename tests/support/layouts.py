"""Systems that are laid out unlike Debian and Fedora, as trees: what a builder leaves there, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from machine import Machine, new_key

UNIT = "/usr/lib/systemd/system/{}.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/{}.service"
FIRSTKEY = ("/usr/bin/firstkey", "/usr/lib/firstkey/firstkey/cli/main.py")
OPENSUSE = """\
Include /etc/ssh/sshd_config.d/*.conf
Include /usr/etc/ssh/sshd_config.d/*.conf
AuthorizedKeysFile .ssh/authorized_keys
UsePAM yes
Subsystem sftp /usr/libexec/ssh/sftp-server
"""
ROOTHOME = "/var/roothome/.ssh/authorized_keys"
HASH = "$y$j9T$salt$hash"
ARM = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\xb7\0\1\0\0\0"
"""How a program for 64-bit ARM begins (elf(5)): e_type is ET_DYN, e_machine EM_AARCH64."""


class Layout(NamedTuple):
    """One of them. `host_keys` is the directory of sshd's host keys; `keys` is where the file of keys in
    root's home really lies, `launch_keys` the file in which sshd looks first.
    """

    name: str
    build: Callable[[Machine], None]
    host_keys: str = "/etc/ssh"
    keys: str = "/root/.ssh/authorized_keys"
    launch_keys: str = keys
    left: tuple[tuple[str, str, str], ...] = ()
    """What a builder can leave in places of this layout alone: the rule that finds it, path and content;
    `KEY` is somebody's public key.
    """

    def grow(self, directory: Path) -> Machine:
        """The tree, clean: root has no password and no keys, and firstkey is installed as on the system."""
        machine = Machine(directory)
        machine.accounts.clear()
        machine.add_user("root", home="/root")
        machine.write("/etc/shadow", "root:*:19000:0:99999:7:::\n", mode=0o640)
        machine.write("/usr/bin/bash", ARM, mode=0o755)
        machine.path("/bin").symlink_to("usr/bin")
        machine.path("/usr/bin/sh").symlink_to("bash")
        machine.write("/etc/machine-id", "uninitialized\n", mode=0o444)
        machine.configure("[Keys]\nUsers=root\n[HostKeys]\nTypes=ed25519\n")
        for path in FIRSTKEY:
            machine.write(path, "", mode=0o755)
        machine.write("/usr/sbin/sshd", ARM + b"OpenSSH_10.0p2", mode=0o755)
        self.build(machine)
        return machine

    def leave(self, machine: Machine, directory: Path) -> set[tuple[str, str]]:
        """Leave what a builder does, in the usual places and in those of the layout; rules, and paths."""
        key = new_key(directory, "builder")
        usual = (
            ("authorized-keys", self.keys, "KEY"),
            ("host-keys", f"{self.host_keys}/ssh_host_ed25519_key", "x"),
        )
        for _, path, content in (*usual, *self.left):
            machine.write(path, content.replace("KEY", f"{key}\n"), mode=0o600)
        return {(rule, path) for rule, path, _ in (*usual, *self.left)}


def _systemd(machine: Machine, unit: str, started: str) -> None:
    """A system that systemd starts, with its sshd and firstkey."""
    machine.write("/usr/lib/systemd/systemd", ARM, mode=0o755)
    machine.write(UNIT.format(unit), started)
    machine.write(UNIT.format("firstkey"), "[Service]\nExecStart=/usr/bin/firstkey daemon\n")
    for name in (unit, "firstkey"):
        link = machine.path(WANTED.format(name))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(UNIT.format(name))


def _opensuse(machine: Machine) -> None:
    """What the vendor says is in /usr/etc, what the administrator says in /etc."""
    machine.write("/usr/lib/os-release", 'NAME="openSUSE MicroOS"\nID="opensuse-microos"\n')
    machine.path("/etc/ssh/sshd_config").unlink()
    machine.path("/etc/ssh/sshd_config.d").mkdir()
    machine.write("/usr/etc/ssh/sshd_config", OPENSUSE)
    machine.write("/usr/etc/login.defs", "HOME_MODE 0700\n")
    machine.write("/usr/etc/sudoers", "@includedir /usr/etc/sudoers.d\n@includedir /etc/sudoers.d\n")
    machine.write("/usr/sbin/sshd-gen-keys-start", "#!/bin/sh\nssh-keygen -A\n", mode=0o755)
    _systemd(
        machine, "sshd",
        "[Service]\nEnvironmentFile=-/etc/sysconfig/ssh\nExecStartPre=/usr/sbin/sshd-gen-keys-start\n"
        "ExecStartPre=/usr/sbin/sshd -t $SSHD_OPTS\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n",
    )  # fmt: skip


def _alt(machine: Machine) -> None:
    """/etc/openssh in place of /etc/ssh, and a file of passwords for each user (tcb(5))."""
    machine.write("/etc/os-release", 'NAME="ALT Server"\nID=altlinux\n')
    machine.path("/etc/ssh/sshd_config").unlink()
    machine.path("/etc/ssh").rmdir()
    machine.write(
        "/etc/openssh/sshd_config",
        "#HostKey /etc/openssh/ssh_host_ed25519_key\nPermitRootLogin without-password\nUsePAM yes\n",
    )
    machine.path("/etc/shadow").unlink()
    machine.write("/etc/tcb/root/shadow", "root:*:19000::::::\n", mode=0o640)
    _systemd(
        machine, "sshd",
        "[Service]\nEnvironmentFile=-/etc/sysconfig/sshd\nExecStartPre=/usr/bin/ssh-keygen -A\n"
        "ExecStart=/usr/sbin/sshd -D $EXTRAOPTIONS\n",
    )  # fmt: skip


def _ostree(machine: Machine) -> None:
    """Homes are links into /var, which an image has empty: systemd-tmpfiles makes what is in it at boot."""
    machine.write("/usr/lib/os-release", 'NAME="Fedora CoreOS"\nID=fedora\n')
    for name, place in (("root", "roothome"), ("home", "home")):
        where = machine.path(f"/var/{place}")
        where.parent.mkdir(exist_ok=True)
        machine.path(f"/{name}").rename(where)
        machine.path(f"/{name}").symlink_to(f"var/{place}")
    machine.write("/usr/lib/tmpfiles.d/provision.conf", "d /var/roothome 0700 root root -\n")
    machine.write("/usr/etc/ssh/sshd_config", machine.path("/etc/ssh/sshd_config").read_text())
    machine.write("/run/ostree-booted", "")
    _systemd(machine, "sshd", "[Service]\nExecStart=/usr/sbin/sshd -D $OPTIONS\n")


def _alpine(machine: Machine) -> None:
    """OpenRC starts it, and busybox is all the tools that there are."""
    machine.write("/etc/os-release", 'NAME="Alpine Linux"\nID=alpine\n')
    for name in ("bash", "sh"):
        machine.path(f"/usr/bin/{name}").unlink()
    machine.write("/usr/bin/busybox", ARM, mode=0o755)
    machine.path("/usr/bin/sh").symlink_to("/bin/busybox")
    machine.write("/etc/apk/world", "alpine-base\nopenssh\npython3\npy3-requests\n")
    machine.write("/etc/inittab", "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n")
    for name in ("sshd", "firstkey"):
        machine.write(f"/etc/init.d/{name}", "#!/sbin/openrc-run\n", mode=0o755)
        link = machine.path(f"/etc/runlevels/default/{name}")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/etc/init.d/{name}")


def _another_architecture(machine: Machine) -> None:
    """Nothing in it can be run here."""
    machine.write("/etc/os-release", "NAME=Debian\nID=debian\n")
    for name in ("ssh-keygen", "systemctl", "visudo", "useradd", "rpm", "dpkg"):
        machine.write(f"/usr/bin/{name}", ARM, mode=0o755)
    _systemd(machine, "ssh", "[Service]\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n")


LAYOUTS = (
    Layout(
        "openSUSE", _opensuse,
        left=(("root-password-login", "/usr/etc/ssh/sshd_config", OPENSUSE + "PermitRootLogin yes\n"),),
    ),
    Layout(
        "ALT", _alt, host_keys="/etc/openssh", launch_keys="/etc/openssh/authorized_keys/root",
        left=(
            ("authorized-keys", "/etc/openssh/authorized_keys/root", "KEY"),
            ("root-password", "/etc/tcb/root/shadow", f"root:{HASH}:19000::::::\n"),
        ),
    ),
    Layout("ostree", _ostree, keys=ROOTHOME, launch_keys=ROOTHOME),
    Layout("Alpine", _alpine),
    Layout("another architecture", _another_architecture),
)  # fmt: skip
