"""A release that no mirror serves: told loudly, and no failure of firstkey's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installed import TOP

pytestmark = [pytest.mark.root, pytest.mark.boot]

TRIED = (
    "tests/matrix/test_lifetime.py", "tests/firstboot/test_rpm_payload.py",
    "tests/firstboot/test_beside_cloud_init.py",
)  # fmt: skip
MMDEBSTRAP = "#!/bin/sh\necho 'E: no mirror has it' >&2\nexit 100\n"


def attempt(directory: Path, suite: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A run on one release, with an empty cache and a mirror that has nothing."""
    program = directory / "bin/mmdebstrap"
    program.parent.mkdir(exist_ok=True)
    program.write_text(MMDEBSTRAP)
    program.chmod(0o755)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--suite", suite]
    return subprocess.run(
        [*argv, *TRIED],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
        timeout=100,
        env={
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "FIRSTKEY_CACHE": str(directory / "cache"),
            "HOME": str(directory),
            **environ,
        },
    )


def test_it_is_skipped_with_a_warning(tmp_path: Path) -> None:
    """In CI too; a run in which nothing else ran is none."""
    done = attempt(tmp_path, "sid", CI="true")
    assert "UserWarning: WITHOUT Debian sid: nothing was tried on it: " in done.stdout
    assert "no mirror has it" in done.stdout
    assert " passed" not in done.stdout
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


def test_without_the_usual_one_nothing_was_tried(tmp_path: Path) -> None:
    """That is a failure in CI."""
    assert attempt(tmp_path, "bookworm", CI="true").returncode == pytest.ExitCode.TESTS_FAILED
