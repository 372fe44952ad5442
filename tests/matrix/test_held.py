"""What support/suites.py says is held on every release has its tests, so that a table can rest on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from installed import TOP
from suites import HELD, SUITES

pytestmark = pytest.mark.slow


def test_each_part_is_held_on_every_suite() -> None:
    """By a test of that name, with the suite's name among its parameters."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/matrix"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=TOP, timeout=100)
    collected = done.stdout.splitlines()
    missing = [
        (part, suite)
        for part, test in HELD.items()
        for suite in SUITES
        if not any(line.startswith(f"{test}[{suite}") for line in collected)
    ]
    assert missing == []
