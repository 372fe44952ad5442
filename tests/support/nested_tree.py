"""Directories nested deeper than a program that calls itself for each could follow; gone again afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEPTH = 1200
"""More than Python's limit for recursion, and for a path that is given as a whole to be too long."""


@contextmanager
def nested(directory: Path) -> Iterator[None]:
    """Below the directory, until the `with` block ends: pytest could not clear that away either."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("below", dir_fd=descriptor)
        below = os.open("below", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", str(directory / "below")], check=True)
