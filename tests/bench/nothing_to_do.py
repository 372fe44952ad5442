"""What a run with nothing to do costs, beside the Python that runs it (DESIGN: Speed).

Started by hand, with the distribution's Python, on a machine that does nothing else:

    /usr/bin/python3 tests/bench/nothing_to_do.py [RUNS]

It measures firstkey as packages install it (byte-compiled, in a private directory, behind a launcher), on two
scratch roots: one whose firmware tells the instance, and one where a service on loopback must be asked. The
programs take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "support"), str(TESTS.parent / "agent")]

from machine import AGENT, Machine, new_key  # noqa: E402 - the path comes first

PYTHON = "/usr/bin/python3"
INSTANCE = "i-0000000000000001"
LAUNCHER = f"""\
#!{PYTHON} -BIS
import sys

python = "python%d.%d" % sys.version_info[:2]
sys.path.insert(0, "LIBRARY")
sys.path += [
    "/usr/lib/python3/dist-packages",
    "/usr/lib64/" + python + "/site-packages",
    "/usr/lib/" + python + "/site-packages",
]

from firstkey.cli.main import main

sys.exit(main())
"""
SERVICE = """\
import sys, time
sys.path.insert(0, sys.argv[1])
from firstkey.metadata.emulator import Emulator, Settings
with Emulator(Settings(instance_id=sys.argv[2], keys=(("launch", sys.argv[3]),))) as service:
    print(service.url, flush=True)
    sys.stdin.read()
"""


class Cost(NamedTuple):
    """One run: seconds on the clock, seconds of processor time, and the most memory in KiB."""

    wall: float
    processor: float
    memory: int


def main(argv: Sequence[str]) -> int:
    """Measure, and print a table."""
    runs = int(argv[0]) if argv else 40
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firstkey-bench-")))
        firstkey = install(directory)
        key = new_key(directory, "launch")
        url = stack.enter_context(Service(directory, key)).url
        by_firmware, by_service = Machine(directory / "a"), Machine(directory / "b")
        by_firmware.set_firmware(INSTANCE)
        commands = {
            "python3 -I -c pass": [PYTHON, "-I", "-c", "pass"],
            "firstkey run, firmware": run_on(firstkey, by_firmware, url),
            "python3 -I -c 'import requests'": [PYTHON, "-I", "-c", "import requests"],
            "firstkey run, service": run_on(firstkey, by_service, url),
        }
        for name in ("firstkey run, firmware", "firstkey run, service"):
            for _ in range(2):
                cost_of(commands[name])
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                costs[name].append(cost_of(command))
    show(costs, runs)
    return 0


class Service:
    """The metadata service in a process of its own."""

    def __init__(self, directory: Path, key: str) -> None:
        argv = [PYTHON, "-I", "-c", SERVICE, str(directory / "lib"), INSTANCE, key]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()

    def __enter__(self) -> Service:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def install(directory: Path) -> str:
    """A byte-compiled copy and its launcher; returns the launcher's path."""
    library = directory / "lib"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(AGENT / "firstkey", library / "firstkey", ignore=ignored)
    compileall.compile_dir(str(library), quiet=1)
    launcher = directory / "firstkey"
    launcher.write_text(LAUNCHER.replace("LIBRARY", str(library)))
    launcher.chmod(0o755)
    return str(launcher)


def run_on(firstkey: str, machine: Machine, url: str) -> list[str]:
    """The command for one scratch root."""
    return [firstkey, "run", "--quiet", "--root", str(machine.root), "--imds", url]


def cost_of(command: list[str]) -> Cost:
    """Run the command to its end, which must be a good one."""
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    begin = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def show(costs: dict[str, list[Cost]], runs: int) -> None:
    """The table: medians and least times in ms, and how many times the Python before it that is."""
    print(f"{runs} runs each; milliseconds on the clock and of the processor, MiB\n")
    print(f"{'':34}{'median':>8}{'least':>8}{'cpu':>8}{'memory':>8}   times Python: median  least    cpu")
    base = (1.0, 1.0, 1.0)
    for name, measured in costs.items():
        walls = [cost.wall * 1000 for cost in measured]
        processor = statistics.median(cost.processor * 1000 for cost in measured)
        figures = (statistics.median(walls), min(walls), processor)
        row = f"{name:34}" + "".join(f"{figure:8.1f}" for figure in figures)
        row += f"{max(cost.memory for cost in measured) / 1024:8.1f}"
        if name.startswith("python3"):
            base = figures
        else:
            times = [figure / below for figure, below in zip(figures, base)]
            row += f"{times[0]:23.2f}{times[1]:7.2f}{times[2]:7.2f}"
        print(row)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
