"""What a whole test run makes once, however many workers it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rootfs import alone


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The directory of that name, as `make` filled it for whoever asked first; the others wait for it.

    Raises AssertionError with the words of the first failure, for everybody: it is not tried again.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory, failure = shared / f"once-{name}", shared / f"once-{name}.failed"
    with alone(shared / f"once-{name}.lock"):
        if failure.exists():
            raise AssertionError(failure.read_text())
        if not directory.exists():
            directory.mkdir()
            try:
                make(directory)
            except BaseException as error:
                failure.write_text(f"{name}: {error}")
                raise
    return directory
