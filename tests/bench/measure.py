"""One boot, measured from outside; and one that is slowed down to see what the agent does in it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from bootlab import Disk, Image, Machine
from netlab import BOTH, Cloud, end, wait_until
from traces import Footprint, read_traces

Seen = TypeVar("Seen")

INSTANCE = "i-0123456789abcdef0"
LIMIT = 120.0
"""Seconds after which a boot counts as failed."""
SAMPLING_SECONDS = 0.02
TRACER = "/usr/bin/strace -f -y -qq -o /var/log/bench/{name} -e trace=%%file,%%desc,%%process"
TIMER = "/usr/bin/time -f '%%U %%S' -o /var/log/bench/{name}"
"""With each %% for systemd, to which one % begins a specifier (systemd.unit(5))."""
ON_THE_MACHINE = ("--capability=CAP_NET_ADMIN",)
"""What a machine needs that brings up its network by itself."""


class Setting(NamedTuple):
    """What is there beside the image. `is_late`: the machine brings its network up by itself."""

    is_late: bool = False
    has_rsa: bool = True
    firmware: str = ""


class Boot(NamedTuple):
    """Seconds from the start of the machine's first process."""

    port: float
    """Until port 22 answers: an SSH server has said its banner."""
    login: float
    """Until a login with the launch key has succeeded."""
    rsa: float | None = None
    """Until sshd shows an RSA host key; None where it is to have none."""


class Use(NamedTuple):
    """What an agent takes of the machine in one boot."""

    cpu_seconds: float
    memory_bytes: int
    """The most that its processes had at one time, shared pages counted in part (PSS)."""


class Bench:
    """The place and the launch key for all boots."""

    def __init__(self, directory: Path, key: Path) -> None:
        self._directory = directory
        self._key = key
        self.line = key.with_suffix(".pub").read_text().strip()

    @contextmanager
    def fresh(self, image: Image, *, is_late: bool = False) -> Iterator[tuple[Disk, Cloud]]:
        """A new disk of the image, and a metadata service for it."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        with Disk(image, directory / "disk") as disk, Cloud(directory) as cloud:
            if is_late:
                cloud.families = BOTH
            else:
                cloud.plug_in()
            cloud.offer(self.line, instance=INSTANCE)
            yield disk, cloud

    def boots(self, image: Image, setting: Setting, *, later: bool) -> tuple[Boot, Boot | None]:
        """The first boot of a new disk, and its second, with nothing left to do, where that is asked for."""
        with self.fresh(image, is_late=setting.is_late) as (disk, cloud):
            first = self._boot(disk, cloud, setting, orderly=later)
            return first, self._boot(disk, cloud, setting, orderly=False) if later else None

    def looked_at(
        self, image: Image, setting: Setting, look: Callable[[Machine, float], Seen]
    ) -> tuple[Boot, Seen]:
        """The first boot of a new disk, and what `look` sees in the machine once it is over."""
        seen: list[Seen] = []
        with self.fresh(image, is_late=setting.is_late) as (disk, cloud):

            def keep(machine: Machine, began: float) -> None:
                seen.append(look(machine, began))

            return self._boot(disk, cloud, setting, orderly=False, look=keep), seen[0]

    def _boot(
        self,
        disk: Disk,
        cloud: Cloud,
        setting: Setting,
        *,
        orderly: bool,
        look: Callable[[Machine, float], None] = lambda _machine, _began: None,
    ) -> Boot:
        probe = cloud.probe(seconds=LIMIT)
        time.sleep(0.3)  # so that the start of the probe itself takes nothing of the boot's time
        options = ON_THE_MACHINE if setting.is_late else ()
        started = time.monotonic()
        try:
            with Machine(disk, cloud, firmware=setting.firmware, options=options) as machine:
                said, _ = probe.communicate(timeout=LIMIT + 10)
                port = float(said) - started
                wait_until(lambda: cloud.ssh(self._key).status == 0, seconds=LIMIT, what="the login")
                login = time.monotonic() - started
                rsa = None
                if setting.has_rsa:
                    wait_until(lambda: _shows_rsa(cloud), seconds=LIMIT, what="the RSA host key")
                    rsa = time.monotonic() - started
                boot = Boot(port, login, rsa)
                machine.wait_until_booted()
                look(machine, started)
                if orderly:
                    machine.shut_down()
        finally:
            end(probe)
        return boot

    @contextmanager
    def booted(self, image: Image, *, firmware: str = "") -> Iterator[Machine]:
        """A machine whose first boot is over."""
        with self.fresh(image) as (disk, cloud), Machine(disk, cloud, firmware=firmware) as machine:
            machine.wait_for_ssh(seconds=LIMIT)
            machine.wait_until_booted()
            yield machine

    # --- what the agent does in it ------------------------------------------------------------

    def footprint(self, image: Image, units: Sequence[str]) -> Footprint:
        """The files that the agent opens and reads on a first boot, by strace."""
        with self.fresh(image) as (disk, cloud):
            for unit in units:
                _wrap(disk, unit, TRACER)
            with Machine(disk, cloud) as machine:
                _work_off(machine, units)
            return read_traces(sorted(disk.path("/var/log/bench").iterdir()))

    def use(self, image: Image, units: Sequence[str]) -> Use:
        """Processor time and memory of the agent on a first boot."""
        with self.fresh(image) as (disk, cloud):
            for unit in units:
                _wrap(disk, unit, TIMER)
            with Machine(disk, cloud) as machine, _Memory(machine, units) as memory:
                _work_off(machine, units)
            said = [file.read_text().split() for file in disk.path("/var/log/bench").iterdir()]
        return Use(sum(float(word) for words in said for word in words[-2:]), memory.peak)


def _work_off(machine: Machine, units: Sequence[str]) -> None:
    """Wait for the end of all that the units do, in the background too, and shut the machine down."""
    machine.wait_for_ssh(seconds=LIMIT)
    machine.wait_until_booted()
    show = ("systemctl", "show", "--value", "--property=MainPID", *units)
    wait_until(lambda: set(machine.inside(*show).split()) == {"0"}, seconds=LIMIT, what="the units' end")
    machine.shut_down()


def _shows_rsa(cloud: Cloud) -> bool:
    argv = ["ssh-keyscan", "-T", "5", "-t", "rsa", cloud.machine_address]
    said, _ = cloud.start(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).communicate(timeout=30)
    return b"ssh-rsa" in said


def _wrap(disk: Disk, unit: str, wrapper: str) -> None:
    """Have the unit's programs started by another one, without the sandbox that would hinder that."""
    units = [disk.path(f"{place}/{unit}") for place in ("/etc/systemd/system", "/usr/lib/systemd/system")]
    text = next(path for path in units if path.exists()).read_text()
    programs = [line.split("=", 1)[1] for line in text.splitlines() if line.startswith("ExecStart=")]
    lines = ["[Service]", "ExecStart="]
    for number, program in enumerate(programs):
        lines.append(f"ExecStart={wrapper.format(name=f'{unit}.{number}')} {program}")
    lines += ["NotifyAccess=all", "SystemCallFilter=", "CapabilityBoundingSet=~", "ProtectSystem=no"]
    lines += ["RestrictAddressFamilies=", "ProtectProc=default"]
    disk.write(f"/etc/systemd/system/{unit}.d/bench.conf", "\n".join(lines) + "\n")
    disk.path("/var/log/bench").mkdir(exist_ok=True)


class _Memory:
    """Looks at the memory of some units again and again, from outside of the machine."""

    def __init__(self, machine: Machine, units: Sequence[str]) -> None:
        self.peak = 0
        self._machine = machine
        self._units = units
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Memory:  # noqa: PYI034 - Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(SAMPLING_SECONDS):
            self.peak = max(self.peak, sum(map(_proportional, self._processes())))

    def _processes(self) -> list[str]:
        group = self._machine.control_group()
        if group is None:
            return []
        files = [group / "system.slice" / unit / "cgroup.procs" for unit in self._units]
        return [number for file in files if file.exists() for number in file.read_text().split()]


def _proportional(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# --- a run by hand ------------------------------------------------------------------------------

REPEATER = """\
import json, os, sys, time
commands, rounds, seconds = json.loads(sys.argv[1]), int(sys.argv[2]), {}
null = os.open("/dev/null", os.O_RDWR)
files = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
for turn in range(rounds + 1):
    for name, argv in commands.items():
        start = time.perf_counter()
        process = os.posix_spawn(argv[0], argv, os.environ, file_actions=files)
        status = os.waitpid(process, 0)[1]
        assert status == 0, (argv, status)
        if turn:
            seconds.setdefault(name, []).append(time.perf_counter() - start)
print(json.dumps(seconds))
"""
"""Runs commands in turn, the first round not counted, and prints the seconds that each took."""


def repeat(machine: Machine, commands: dict[str, list[str]], *, rounds: int) -> dict[str, list[float]]:
    """Wall-clock seconds of commands in the running machine, interleaved."""
    said = machine.inside(
        "python3", "-I", "-c", REPEATER, json.dumps(commands), str(rounds), seconds=LIMIT + rounds * 20
    )
    found: dict[str, list[float]] = json.loads(said)
    return found
