"""The parser of every command: it says which option was probably meant, where there is none of that name."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from functools import partial
from typing import NoReturn

from firstkey.text import visible, width_of

HIDDEN = argparse.SUPPRESS
"""The help of an option that is taken, since every command takes it, and means nothing here."""
UNKNOWN = "unrecognized arguments: "
"""How argparse begins to tell of options that there are not."""


class Parser(argparse.ArgumentParser):
    """As argparse has it, with a suggestion for each mistyped option."""

    def __init__(self, *, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            # Without a width it would import shutil, and with it the compressors, for each option anew.
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=(width_of(1) or 80) - 2),
        )
        self.color = False  # Python 3.14 would colour what it prints, past our own streams

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong, on stderr, and exit with 2."""
        super().error(visible(f"{message}{self._suggestions(message)}"))

    def _suggestions(self, message: str) -> str:
        if not message.startswith(UNKNOWN):
            return ""
        given = [word.split("=")[0] for word in message[len(UNKNOWN) :].split() if word.startswith("--")]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        close = [match for word in given for match in get_close_matches(word, known, n=1)]
        return f" (did you mean {' '.join(dict.fromkeys(close))}?)" if close else ""
