"""Plain options are read without argparse, and mean what they mean to argparse."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import AGENT

from firstkey.cli import common, usage
from firstkey.reasons import UsageError

PLAIN = ("--root", "--config", "--imds", "-v", "--verbose", "-q", "--quiet", "--json", "--dry-run", "--force")
OTHER = ("/tree", "x", "", "-", "--", "--roo", "--root=/x", "-vq", "-h", "--user", "--wait", "5", "-5")
WORDS = st.sampled_from([*PLAIN, *OTHER])


RUN: dict[str, Any] = {"flags": ("--json", "--dry-run", "--force"), "others": ("user", "wait")}


def seen(argv: list[str], read: Callable[[list[str]], argparse.Namespace]) -> dict[str, Any] | int:
    """What comes of the options: their values, or the exit status."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return vars(read(argv))
        except SystemExit as end:  # --help
            return int(end.code or 0)
        except UsageError as error:
            return error.exit_status


@given(st.lists(WORDS, max_size=5))
def test_what_is_read_is_what_argparse_reads(argv: list[str]) -> None:
    """Values and mistakes alike."""
    assert seen(argv, partial(common.parsed, command="run", **RUN)) == seen(
        argv, usage.parser("run").parse_args
    )


@pytest.mark.parametrize(
    "argv, loads_argparse",
    [
        ([], False),
        (["--root", "/tree", "--imds", "http://127.0.0.1:1"], False),
        (["-q"], False),
        (["--dry-run", "--json", "--config", "a.conf", "--force", "-v"], False),
        (["--root=/x"], True),
    ],
)
def test_what_scripts_write_is_read_without_argparse(argv: list[str], loads_argparse: bool) -> None:
    """The usual run does not load it."""
    program = (
        "import sys\nfrom firstkey.cli import common\n"
        f"common.parsed({argv}, 'run', flags={RUN['flags']}, others={RUN['others']})\n"
        "print('argparse' in sys.modules)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(AGENT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{loads_argparse}\n"
