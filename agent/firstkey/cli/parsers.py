"""The parser of every command, and the options that they share; the unit gives none of them."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from firstkey.display import width_of
from firstkey.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = argparse.SUPPRESS
"""The help of an option that means nothing here, and is accepted since every command accepts it."""
UNKNOWN = "unrecognized arguments: "
"""How argparse begins its message about unknown options."""


class Parser(argparse.ArgumentParser):
    """As argparse has it, with a suggestion for each mistyped option."""

    def __init__(self, *, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            # Without a width it would import shutil, and with it the compressors, for each option again.
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=(width_of(1) or 80) - 2),
        )
        self.color = False  # Python 3.14 would colour what it prints, past our own streams

    def error(self, message: str) -> NoReturn:
        """Print the mistake on stderr, and exit with 2."""
        super().error(visible(f"{message}{self._suggestions(message)}"))

    def _suggestions(self, message: str) -> str:
        if not message.startswith(UNKNOWN):
            return ""
        given = [word.split("=")[0] for word in message[len(UNKNOWN) :].split() if word.startswith("--")]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        close = [match for word in given for match in get_close_matches(word, known, n=1)]
        return f" (did you mean {' '.join(dict.fromkeys(close))}?)" if close else ""


def command(
    name: str, description: str, *, epilog: str = "", without: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """A command's parser, with the options that all commands take; those of `without` mean nothing to it."""
    made = Parser(prog=f"firstkey {name}", description=description, epilog=epilog)
    made.add_argument(
        "--root", metavar="DIR", default="/", help="work on the tree under DIR, never outside of it"
    )
    helps = {
        "--config": "read this configuration file instead of the system's",
        "--imds": "ask the metadata service at URL (http://ADDRESS[:PORT])",
        "--verbose": "show each step",
        **dict.fromkeys(without, HIDDEN),
    }
    made.add_argument("--config", metavar="FILE", help=helps["--config"])
    made.add_argument("--imds", metavar="URL", help=helps["--imds"])
    volume = made.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help=helps["--verbose"])
    volume.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    return made


def with_forms(made: argparse.ArgumentParser) -> Any:  # noqa: ANN401 - argparse does not name it in public
    """Add --json; returns the group of forms of output, of which a call names one at most."""
    forms = made.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print the result for programs")
    return forms


def with_dry_run(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add --dry-run."""
    made.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    return made
