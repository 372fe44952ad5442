"""Options in the form in which units and scripts give them, read without argparse.

argparse takes longer to load than a run with nothing to do takes for everything else. Whatever is not as
plain as this (an abbreviation, `--name=value`, a mistake, a call for help) is argparse's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMMON_VALUES = {"--root": "root", "--config": "config", "--imds": "imds"}
COMMON_FLAGS = {"-v": "verbose", "--verbose": "verbose", "-q": "quiet", "--quiet": "quiet"}
COMMON_DEFAULTS = {"root": "/", "config": None, "imds": None, "verbose": False, "quiet": False}


def read(
    argv: Sequence[str], *, flags: Sequence[str] = (), others: Sequence[str] = ()
) -> Mapping[str, Any] | None:
    """What argparse would make of `argv`, or None where it must look itself.

    `flags` are the command's own ones (`--dry-run`); `others` are the names of its options that take values,
    which are left to argparse, and are None as long as they are not given.
    """
    own = {flag: flag[2:].replace("-", "_") for flag in flags}
    known = {**COMMON_FLAGS, **own}
    found = {**COMMON_DEFAULTS, **dict.fromkeys(own.values(), False), **dict.fromkeys(others)}
    words = iter(argv)
    for word in words:
        if word in known:
            found[known[word]] = True
        elif word in COMMON_VALUES:
            value = next(words, "")
            if not value or value.startswith("-"):
                return None
            found[COMMON_VALUES[word]] = value
        else:
            return None
    return None if found["verbose"] and found["quiet"] else found
