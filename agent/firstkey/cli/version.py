"""`firstkey version`: which one this is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import __version__
from firstkey.cli import streams
from firstkey.cli.parsers import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  firstkey version           the same as firstkey --version
"""


def main(argv: Sequence[str]) -> int:
    """Print the version; returns the exit status."""
    _parser().parse_args(argv)
    streams.show(f"firstkey {__version__}")
    return 0


def _parser() -> Parser:
    return Parser(prog="firstkey version", description="Print the version.", epilog=EPILOG)
