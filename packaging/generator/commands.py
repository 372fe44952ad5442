"""The commands and their options, as the program's own parsers have them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from firstkey.cli.usage import COMMANDS, PARSERS


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
    return [_command(name, summary) for name, summary in COMMANDS.items()]


def _command(name: str, summary: str) -> Command:
    parser = _parser(name)
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


class _Caught(Exception):  # noqa: N818 - it is no error
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _parser(name: str) -> argparse.ArgumentParser:
    """The parser of a command: each makes its own when it is called, and is stopped before it does more."""
    if name in PARSERS:
        return PARSERS[name]()
    command = importlib.import_module(f"firstkey.cli.{name.replace('-', '_')}")
    with _parsing_stopped():
        try:
            command.main(["--help"])  # whatever happens, nothing is done
        except _Caught as caught:
            return caught.parser
    raise AssertionError(f"firstkey {name} went to work without asking its parser")


@contextmanager
def _parsing_stopped() -> Iterator[None]:
    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _Caught(parser)

    usual = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = usual  # type: ignore[method-assign]
