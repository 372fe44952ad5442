"""Plain options are read without argparse, and mean what they mean to argparse."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.cli import common, usage

PLAIN = ("--root", "--config", "--imds", "-v", "--verbose", "-q", "--quiet", "--json", "--dry-run", "--force")
OTHER = ("/tree", "x", "", "-", "--", "--roo", "--root=/x", "-vq", "-h", "--user", "--wait", "5", "-5")
WORDS = st.sampled_from([*PLAIN, *OTHER])


RUN = {"flags": ("--json", "--dry-run", "--force"), "others": ("user", "wait")}


@given(st.lists(WORDS, max_size=5))
def test_what_is_read_is_what_argparse_reads(argv: list[str]) -> None:
    """Whatever is read at all; the rest, mistakes among it, is left to argparse."""
    found = common.plain_options(argv, **RUN)
    if found:
        with contextlib.redirect_stderr(io.StringIO()):
            assert vars(found) == vars(usage.run().parse_args(argv))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--root", "/tree", "--imds", "http://127.0.0.1:1"],
        ["-q"],
        ["--dry-run", "--json", "--config", "a.conf", "--force", "-v"],
    ],
)
def test_what_scripts_write_is_read(argv: list[str]) -> None:
    """The usual run does not load argparse."""
    assert common.plain_options(argv, **RUN)


@pytest.mark.parametrize("argv", [["-h"], ["--root"], ["--root", "-v"], ["-v", "-q"], ["x"], ["--root=/x"]])
def test_what_is_not_plain_is_left_to_argparse(argv: list[str]) -> None:
    """It has the words for what is wrong."""
    assert common.plain_options(argv) is None
