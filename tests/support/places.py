"""File systems of a test's own, in a mount namespace that ends with its program, and failing calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import processes


def run_on_tmpfs(code: str, place: Path, *arguments: object, options: str = "size=1m") -> str:
    """Run a program (see processes.run) that has a new tmpfs at `place`; the first argument is `place`."""
    script = f'mount -t tmpfs -o {options} none "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", place, *processes.program(code, place, *arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=processes.PATIENCE,
        env=processes.environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def missing_for_strace() -> str | None:
    """Why no system call can be made to fail here, or None."""
    if not shutil.which("strace"):
        return "needs strace, which is not installed"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True)
    return "strace may not trace here" if tried.returncode else None


def with_failing_calls(argv: list[str], *injections: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose system calls fail as strace(1) is told, like `fsync:error=EIO:when=1`."""
    options = [option for injection in injections for option in ("-e", f"inject={injection}")]
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", *options, *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=processes.PATIENCE,
        env=processes.environment(),
    )
