"""The commands and their options, as the program's own parsers have them."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from firstkey.cli import usage


class Option(NamedTuple):
    """One option of a command."""

    names: tuple[str, ...]
    """The short one before the long one."""
    value: str | None
    """What its argument is called (FILE, DIR, NAME, ...); None where it takes none."""
    choices: tuple[str, ...]
    """The values that it takes, where these can be counted."""
    help: str
    repeatable: bool = False


class Command(NamedTuple):
    """One command."""

    name: str
    summary: str
    description: str
    options: tuple[Option, ...]
    epilog: str


def every() -> list[Command]:
    """All commands, in the order in which `firstkey --help` tells them."""
    return [_command(name, summary) for name, summary in usage.COMMANDS.items()]


def _command(name: str, summary: str) -> Command:
    parser = usage.parser(name)
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]  # noqa: SLF001 - there is no public way
    options = tuple(_option(action) for action in actions if action.option_strings)
    return Command(name, summary, parser.description or "", options, parser.epilog or "")


def _option(action: argparse.Action) -> Option:
    names = tuple(sorted(action.option_strings, key=len))
    choices = tuple(str(choice) for choice in action.choices or ())
    value = None if action.nargs == 0 else str(action.metavar or action.dest.upper())
    help_text = (action.help or "").replace("%%", "%")
    repeatable = isinstance(action, argparse._AppendAction)  # noqa: SLF001 - there is no public way
    return Option(names, value, choices, help_text, repeatable)
