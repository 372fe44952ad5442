"""`firstkey help`: all commands in a line each, or one of them with its options."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from firstkey.cli import streams, usage
from firstkey.cli.parsers import Parser
from firstkey.reasons import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  firstkey help              all commands
  firstkey help run          the options of run, as firstkey run --help
"""


def main(argv: Sequence[str]) -> int:
    """Explain the command that is named; returns the exit status."""
    name = _parser().parse_args(argv).command
    if name is None:
        streams.show(*usage.overview())
    elif name in usage.COMMANDS:
        importlib.import_module(f"firstkey.cli.{name.replace('-', '_')}").main(["--help"])
    else:
        raise UsageError(usage.no_command(name), hint="See: firstkey --help")
    return 0


def _parser() -> Parser:
    made = Parser(prog="firstkey help", description="Explain a command, or list all commands.", epilog=EPILOG)
    made.add_argument("command", nargs="?", metavar="COMMAND", help="the command to explain")
    return made
