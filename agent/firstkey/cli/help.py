"""`firstkey help`: all commands in a line each, or one of them with its options."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING

from firstkey.cli import COMMANDS, streams
from firstkey.cli.parsers import Parser
from firstkey.reasons import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = """\
examples:
  firstkey help              all commands
  firstkey help run          the options of one; the same as firstkey run --help
"""


def main(argv: Sequence[str]) -> int:
    """Explain the command that is named; returns the exit status."""
    name = _parser().parse_args(argv).command
    if name is None:
        streams.show(*_overview())
    elif name in COMMANDS:
        importlib.import_module(f"firstkey.cli.{name.replace('-', '_')}").main(["--help"])
    else:
        raise UsageError(f"there is no command {name!r}.{suggestion(name)}", hint="See: firstkey --help")
    return 0


def _parser() -> Parser:
    made = Parser(prog="firstkey help", description="Explain a command, or list all.", epilog=EPILOG)
    made.add_argument("command", nargs="?", metavar="COMMAND", help="the command to explain")
    return made


def suggestion(name: str) -> str:
    """The command that was probably meant, as a question, or nothing."""
    close = get_close_matches(name, COMMANDS, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _overview() -> list[str]:
    width = max(map(len, COMMANDS))
    return [
        "usage: firstkey [OPTIONS] COMMAND [OPTIONS]",
        "",
        "Gives a fresh EC2 instance its first SSH access.",
        "",
        "commands:",
        *(f"  {name:{width}} {summary}" for name, summary in COMMANDS.items()),
        "",
        "options of most commands, before or behind the command:",
        "  --root DIR       work on the tree under DIR, never outside of it",
        "  --config FILE    read this configuration file instead of the system's",
        "  -v, --verbose    tell each step",
        "  -q, --quiet      only warnings and errors",
        "  -h, --help       explain the command; -V, --version prints the version",
        "",
        "Try: firstkey demo             (safe anywhere, needs no root)",
        "     firstkey help COMMAND",
    ]
