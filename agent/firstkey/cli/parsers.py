"""The parser of every command, and the options that they share; the unit gives none of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NoReturn

from firstkey import __version__
from firstkey.cli import streams
from firstkey.display import width_of
from firstkey.settings import seconds
from firstkey.text import visible

HIDDEN = argparse.SUPPRESS
"""The help of an option that means nothing here, and is accepted since every command accepts it."""
UNKNOWN = "unrecognized arguments: "
"""How argparse begins its message about unknown options."""


class Parser(argparse.ArgumentParser):
    """As argparse has it, with a suggestion for each mistyped option."""

    def __init__(self, name: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"firstkey {name}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            # Without a width it would import shutil, and with it the compressors, for each option again.
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=(width_of(1) or 80) - 2),
        )
        version = f"firstkey {__version__}"
        self.add_argument("-V", "--version", action="version", version=version, help=HIDDEN)
        self.color = False  # Python 3.14 would colour what it prints, past our own streams

    def flag(self, name: str, words: str) -> None:
        """Add an option without a value."""
        self.add_argument(name, action="store_true", help=words)

    def value(self, name: str, metavar: str, words: str, **more: Any) -> None:  # noqa: ANN401 - argparse's own
        """Add an option with one; `more` is as add_argument has it."""
        self.add_argument(name, metavar=metavar, help=words, **more)

    def values(self, name: str, metavar: str, words: str) -> None:
        """Add an option that may be given again, each time with one more value."""
        self.value(name, metavar, f"{words} (repeatable)", action="append", default=[])

    def users(self) -> None:
        """Add --user."""
        words = "this user, instead of the configured ones (repeatable)"
        self.value("--user", "NAME", words, action="append")

    def seconds(self, name: str, words: str, default: float) -> None:
        """Add an option with a time; its default is shown."""
        self.value(name, "SECONDS", f"{words} ({default:g})", type=seconds, default=default)

    def error(self, message: str) -> NoReturn:
        """Print the mistake on stderr, and exit with 2."""
        super().error(visible(f"{message}{self._suggestions(message)}"))

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ANN401 - any stream
        streams.put(file or sys.stderr, message)  # as all else that is printed: a full disk is reported

    def _suggestions(self, message: str) -> str:
        if not message.startswith(UNKNOWN):
            return ""
        given = [word.split("=")[0] for word in message[len(UNKNOWN) :].split() if word.startswith("--")]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        close = [match for word in given for match in get_close_matches(word, known, n=1)]
        return f" (did you mean {' '.join(dict.fromkeys(close))}?)" if close else ""


def command(name: str, description: str, *, epilog: str, without: Sequence[str] = ()) -> Parser:
    """A command's parser, with the options that all commands take; those of `without` mean nothing to it."""
    made = Parser(name, description, epilog)
    helps = {
        "--config": "read this configuration file instead of the system's",
        "--imds": "ask the metadata service at URL (http://ADDRESS[:PORT])",
        "--verbose": "show each step",
        **dict.fromkeys(without, HIDDEN),
    }
    made.value("--root", "DIR", "work on the tree under DIR, never outside of it", default="/")
    made.value("--config", "FILE", helps["--config"])
    made.value("--imds", "URL", helps["--imds"])
    volume = made.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help=helps["--verbose"])
    volume.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    return made


def with_forms(made: argparse.ArgumentParser) -> Any:  # noqa: ANN401 - argparse does not name it in public
    """Add --json; returns the group of forms of output, of which a call names one at most."""
    forms = made.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print the result for programs")
    return forms


def with_dry_run(made: Parser) -> Parser:
    """Add --dry-run."""
    made.flag("--dry-run", "show what would be done, and change nothing")
    return made
