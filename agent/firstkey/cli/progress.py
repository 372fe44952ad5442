"""One line on a terminal that shows how far a long scan is; none anywhere else."""

from __future__ import annotations

import os
import sys

from firstkey.cli import screen
from firstkey.text import visible


class Progress:
    """The line. Leaving the `with` block takes it away."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_there = False

    def __enter__(self) -> Progress:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, for something else to be printed."""
        if self._is_there:
            screen.redraw()
            self._is_there = False

    def tell(self, files: int, path: str) -> None:
        """Show how many files were looked at, and where."""
        if self._wanted:
            self._is_there = True
            screen.redraw(f"{files:,} files  {visible(path)[:60]}")
