"""Processes of a test's own: small programs that use firstkey, and how they are looked at and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

AGENT = Path(__file__).parents[2] / "agent"
PATIENCE = 60.0
"""Seconds after which a test that waits for something has failed; nothing takes a tenth of it."""


def program(code: str, *arguments: object) -> list[str]:
    """The command line of a program that can import firstkey."""
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that can import firstkey."""
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT), "HOME": "/nonexistent"}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(code: str, *arguments: object, **more: str) -> str:
    """Run such a program to its good end, and return what it printed."""
    done = subprocess.run(
        program(code, *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=environment(**more),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start such a program; what it prints can be read."""
    return subprocess.Popen(
        program(code, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` returns in a child of this process; nothing where it dies on the way."""
    # Programs that know nothing of firstkey use this module too.
    from firstkey import reasons
    from firstkey.reasons import FirstkeyError
    from firstkey.system import child

    try:
        said: str = child.ask("a test", lambda _: work().decode("latin-1"), seconds=PATIENCE)
    except FirstkeyError as error:
        if error.reason is not reasons.INTERNAL_ERROR:
            raise
        return b""
    return said.encode("latin-1")


def missing_for_others() -> str | None:
    """Why nobody else than this account can run firstkey from here, or None."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    tried = subprocess.run([*nobody, *program("import firstkey")], check=False, env=environment())
    return "this checkout or its Python is out of reach for others than root" if tried.returncode else None


def wait_for(condition: Callable[[], object], what: str = "what was waited for") -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)


def state(pid: int) -> str | None:
    """The process's state as ps(1) has it (`Z`: ended, and nobody has collected it); None: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rsplit(")", 1)[1].split()[0]


def is_gone(pid: int) -> bool:
    """Whether the process has ended."""
    return state(pid) in (None, "Z")


def children(pid: int) -> list[int]:
    """The process's children, those of them included that have ended and were not collected."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """The process's children, and theirs."""
    direct = children(pid)
    return [*direct, *(below for child in direct for below in descendants(child))]


class Vitals(NamedTuple):
    """What a process that runs for long must not have more of from hour to hour; `memory` is in KiB."""

    memory: int
    descriptors: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """As the kernel counts them now."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        memory, threads = (
            int(re.findall(rf"(?m)^{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads")
        )
        return cls(memory, len(os.listdir(f"/proc/{pid}/fd")), threads, len(children(pid)))
