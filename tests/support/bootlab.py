"""Real boots for tests: a distribution's system under systemd, in a container with a network of its own.

A disk is an overlay: what is written to it lies apart from the image, so a boot costs no copy, the next boot
has the same disk again, and after a shutdown its files can be looked at from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from control_groups import ControlGroup
from netlab import Cloud, end, run, wait_until
from rootfs import debian_root, inside, unpack
from suites import USUAL
from terminal import recorded

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "openssh-server", "sudo",
    "python3", "python3-requests", "python3-systemd",
)  # fmt: skip
"""What the image has: a minimal system with SSH, and what firstkey needs."""
MORE_PACKAGES = {"trixie": ("sudo-rs",), "sid": ("openssh-client", "sudo-rs")}
"""What some suites have besides: the other sudo, and what openssh-server brings along in the older ones."""
ALL_MORE = ("curl", "strace", "time", "cloud-init")
"""What else tests want of a system. They share one that has all of it: to make one takes a minute."""
SHUTDOWN_SECONDS = 30
OLD_CONTROL_GROUPS = ("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0")
BOOT_WORDS = {"trixie": OLD_CONTROL_GROUPS}
"""What a suite's systemd wants to hear where this kernel's control groups are those of old."""
BOOT_ENVIRONMENT = {"sid": {"UNIFIED_CGROUP_HIERARCHY": "1"}}
"""What systemd-nspawn wants to hear of a suite whose systemd knows the unified ones alone."""


class Image(NamedTuple):
    """A system that disks are made of: directories, the uppermost first, which nobody writes to."""

    layers: tuple[Path, ...]
    suite: str = USUAL

    def changed(self, directory: Path, change: Callable[[Path], None]) -> Image:
        """This image with a change made to its tree; what changed is kept in the directory."""
        with Disk(self, directory) as disk:
            change(disk.root)
        return self._replace(layers=(disk.written, *self.layers))


def archive(suite: str, *more: str) -> Path:
    """The tar of the suite's system: the plain one, or one with these packages and all of ALL_MORE.

    Raises MissingReleaseError where none can be made.
    """
    assert set(more) <= set(ALL_MORE), more
    return debian_root(suite, (*PACKAGES, *MORE_PACKAGES.get(suite, ()), *(ALL_MORE if more else ())))


def distribution(directory: Path, *more: str, suite: str = USUAL) -> Image:
    """A distribution's system with these packages more, fresh, unpacked into the directory."""
    tree = directory / "distribution"
    unpack(archive(suite, *more), tree)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (tree / "etc/hostname").write_text("ip-10-97-0-2\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 ip-10-97-0-2\n")
    (tree / "etc/resolv.conf").write_text("# no name server\n")
    # A login prompt that starts discards what is still unread of the console (agetty and systemd: tcflush).
    # A serial line has sent it by then; systemd-nspawn, on a busy machine, has not read it.
    (tree / "etc/systemd/system/console-getty.service").symlink_to("/dev/null")
    return Image((tree,), suite)


def install_deb(root: Path, deb: Path) -> None:
    """Install the package into a tree, as an image builder does."""
    shutil.copy(deb, root / "firstkey.deb")
    done = inside(root, "dpkg", "--install", "/firstkey.deb")
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "firstkey.deb").unlink()


def unpack_rpm(root: Path, rpm: Path) -> None:
    """Put the package's files into a tree, enabled as its preset says; no scriptlet of it is run."""
    program = 'rpm2cpio "$1" | cpio --directory "$2" --extract --make-directories --quiet'
    run("sh", "-ec", program, "sh", rpm, root)
    run("systemctl", f"--root={root}", "--quiet", "preset", "firstkey.service")


class Disk:
    """An image that can be written to. Mounted (at `root`) until the `with` block ends."""

    def __init__(self, image: Image, directory: Path) -> None:
        self.image = image
        self.directory = directory
        self.root = directory / "root"
        self.written = directory / "written"
        self.boots = 0

    def __enter__(self) -> Disk:  # noqa: PYI034 - Self came with Python 3.11
        work = self.directory / "work"
        for place in (self.root, self.written, work):
            place.mkdir(parents=True)
        lower = ":".join(str(layer) for layer in self.image.layers)
        options = f"lowerdir={lower},upperdir={self.written},workdir={work}"
        run("mount", "-t", "overlay", "-o", options, "overlay", self.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run("umount", "--lazy", self.root)

    def path(self, path: str) -> Path:
        """A file of the tree, for looking at and changing while nothing runs."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Put a file into the tree."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def journal(self) -> list[dict[str, Any]]:
        """Every entry of every boot of this disk, in order."""
        said = run("journalctl", "-D", self.path("/var/log/journal"), "-o", "json", "--all", "--no-pager")
        return [json.loads(line) for line in said.splitlines()]


class Machine:
    """One boot of a disk, from `with` to the end of the block: a power cut, if nobody shut it down.

    `options` are more of systemd-nspawn's. `may_ask`: the console is a terminal, so that programs can wait
    for somebody to type there; nobody does.
    """

    def __init__(
        self,
        disk: Disk,
        cloud: Cloud,
        *,
        kernel_words: tuple[str, ...] = (),
        firmware: str | dict[str, str] = "",
        options: tuple[str, ...] = (),
        may_ask: bool = False,
    ) -> None:
        self.disk = disk
        self.cloud = cloud
        self._options = options
        self._may_ask = may_ask
        self._group = ControlGroup()
        self._words = kernel_words
        self._firmware = firmware
        disk.boots += 1
        self.console_log = disk.directory / f"console-{disk.boots}.log"

    def __enter__(self) -> Machine:  # noqa: PYI034 - Self came with Python 3.11
        self._group.__enter__()
        terminal = recorded(self.console_log) if self._may_ask else None
        with open(self.console_log if terminal is None else terminal, "wb", buffering=0) as console:
            self.process = subprocess.Popen(
                self._group.entered(*self._argv()),
                stdin=subprocess.DEVNULL if terminal is None else console,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, **BOOT_ENVIRONMENT.get(self.disk.image.suite, {})},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.cut_power()
        self._group.__exit__(kind, error, traceback)

    def _argv(self) -> list[str]:
        argv = [
            # Nothing stays behind, not even of a test run that is killed.
            "setpriv", "--pdeathsig=TERM",
            "systemd-nspawn", f"--directory={self.disk.root}", "--machine=ip-10-97-0-2", "--boot",
            "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            f"--network-namespace-path={self.cloud.machine_namespace}",
            f"--console={'interactive' if self._may_ask else 'read-only'}",
            "--setenv=SYSTEMD_COLORS=0", *self._options,
        ]  # fmt: skip
        if self._firmware:
            argv.append(f"--bind-ro={self._fake_firmware()}:/sys/class")
        return [*argv, *BOOT_WORDS.get(self.disk.image.suite, ()), *self._words]

    def _fake_firmware(self) -> Path:
        """What the firmware tells about itself (/sys/class/dmi/id); a Nitro instance's, by its name."""
        directory = self.disk.directory / "sys-class"
        entries = self._firmware
        if isinstance(entries, str):
            entries = {"board_asset_tag": entries, "sys_vendor": "Amazon EC2", "product_name": "t3.micro"}
        for name, content in entries.items():
            file = directory / "dmi/id" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")
        return directory

    # --- its end ------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """An orderly shutdown (SIGTERM to systemd-nspawn); the disk is complete afterwards."""
        assert self.boot_id  # who looks at the journal afterwards must know it
        self.process.terminate()
        try:
            self.process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self.cut_power()
            raise AssertionError(f"the machine did not shut down in {SHUTDOWN_SECONDS} s") from None

    def cut_power(self) -> None:
        """Everything in it ends at this instant, with systemd-nspawn."""
        with suppress(ProcessLookupError):
            # With a namespace's first process all others in it end; then systemd-nspawn does.
            os.kill(int(self._init() or self.process.pid), signal.SIGKILL)
        end(self.process)

    def wait_for_ssh(self, *, seconds: float = 60) -> float:
        """When (time.monotonic) the SSH server answered; fails at once where the machine died."""
        probe = self.cloud.probe(seconds=seconds)
        try:
            wait_until(lambda: probe.poll() is not None or self._is_dead(), seconds=seconds + 10, what="SSH")
            assert not self._is_dead(), f"the machine died:\n{self.console[-2000:]}"
            said = probe.stdout.read() if probe.stdout else b""
        finally:
            end(probe)
        assert said, f"no SSH server on the machine within {seconds} s"
        return float(said)

    def _is_dead(self) -> bool:
        return self.process.poll() is not None

    def control_group(self) -> Path | None:
        """Where the host sees the machine's control groups (systemd's own); None before there are."""
        with suppress(OSError):
            for line in Path(f"/proc/{self._init()}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if controllers in ("name=systemd", ""):
                    place = "systemd" if controllers else "."
                    return Path("/sys/fs/cgroup", place, path.lstrip("/").removesuffix("/init.scope"))
        return None

    # --- looking at it ------------------------------------------------------------------------

    @property
    def console(self) -> str:
        """What the console has shown."""
        return self.console_log.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")

    def inside(self, *argv: str, check: bool = True, seconds: float = 60) -> str:
        """Run a program in the running machine, past every login; returns what it printed."""
        wait_until(self._init, what="the start of the machine")
        entry = ["nsenter", f"--target={self._init()}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        return run(*entry, *argv, check=check, seconds=seconds)

    def _init(self) -> str | None:
        """The number that the machine's first process has outside of it; None while there is none.

        Before it is the machine's own program, not all is mounted: /proc is still this system's.
        """
        own = self.process.pid
        with suppress(FileNotFoundError, ProcessLookupError):
            for first in Path(f"/proc/{own}/task/{own}/children").read_text().split():
                if not Path(f"/proc/{first}/comm").read_text().startswith(("systemd-nspawn", "(sd-")):
                    return first
        return None

    def wait_until_booted(self) -> str:
        """Wait for the end of the boot; returns `running`, or what else the system is then."""
        return self.inside("systemctl", "is-system-running", "--wait", check=False).strip()

    def show(self, unit: str, setting: str, *, check: bool = True) -> str:
        """What systemd says of a unit."""
        argv = ["systemctl", "show", "--value", f"--property={setting}", unit]
        return self.inside(*argv, check=check).strip()

    def wait_for_unit(self, unit: str, state: str) -> None:
        """Wait until the unit is in that state: also while systemd itself is only about to start."""
        wait_until(lambda: self.show(unit, "ActiveState", check=False) == state, what=f"{unit} {state}")

    @property
    def report(self) -> dict[str, Any]:
        """What firstkey's last run left for programs."""
        found: dict[str, Any] = json.loads(self.inside("cat", "/run/firstkey/report.json"))
        return found

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The entries of this boot until now."""
        return [entry for entry in self.disk.journal() if entry["_BOOT_ID"] == self.boot_id]

    @cached_property
    def boot_id(self) -> str:
        """Which boot it is, as its journal names it; to be asked for the first time while it runs."""
        return self.inside("cat", "/proc/sys/kernel/random/boot_id").strip().replace("-", "")

    def events(self, name: str) -> list[dict[str, Any]]:
        """What firstkey said of this kind (`key-added`), with all fields."""
        return [entry for entry in self.journal if entry.get("FIRSTKEY_EVENT") == name]


@contextmanager
def workshop(directory: Path) -> Iterator[Path]:
    """A place for disks in memory, so that nothing waits for a real disk; gone afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=0755,size=4g", "tmpfs", directory)
    with ExitStack() as undo:
        undo.callback(run, "umount", "--lazy", directory)
        yield directory
