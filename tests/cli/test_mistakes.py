"""What people mistype: a sentence that says what was meant, exit status 2, and nothing done."""

from __future__ import annotations

import pytest
from machine import Machine


@pytest.mark.parametrize(
    "argv,meant",
    [
        ("run --frce", "--force"),
        ("run --dryrun", "--dry-run"),
        ("doctor --form=1.2.3.4", "--from"),
        ("config --chek --dif", "--check --diff"),
        ("audit /mnt/image", "--root /mnt/image"),  # a value without its option
        ("doctor deploy", "--user deploy"),
    ],
)
def test_a_mistyped_option_is_suggested(machine: Machine, argv: str, meant: str) -> None:
    """The one that is closest to what was typed."""
    done = machine.firstkey(*argv.split())
    assert (done.status, done.out) == (2, "")
    assert f"(did you mean {meant}?)" in done.err


@pytest.mark.parametrize(
    "argv",
    ["config --zzzzzz", "keys --user ann", "status --user=ann", "seal --force", "run -n"],
)
def test_what_resembles_nothing_is_not_guessed(machine: Machine, argv: str) -> None:
    """No suggestion is better than a wrong one: --quiet is not what --user was meant to be."""
    done = machine.firstkey(*argv.split())
    assert done.status == 2
    assert "unrecognized arguments" in done.err
    assert "did you mean" not in done.err


@pytest.mark.parametrize(
    "argv, said",
    [
        ("run --wait abc", "it takes a time such as 5, 0.5s or 2min, not 'abc'"),
        ("run --wait=-1", "it takes a time such as 5, 0.5s or 2min, not '-1'"),
        ("doctor --from www.example.com", "it takes an IP address, not 'www.example.com'"),
        ("imds --port 65536", "ports are numbers from 0 to 65535, not '65536'"),
        ("known-hosts --live --port 0", "ports are numbers from 1 to 65535, not '0'"),
    ],
)
def test_a_bad_value_is_told_from_a_good_one(machine: Machine, argv: str, said: str) -> None:
    """In words about the value, and not with the name of a function."""
    done = machine.firstkey(*argv.split())
    assert (done.status, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize("argv", ["status --root /nowhere", "doctor --from nowhere"])
def test_the_remedy_is_the_help_of_this_command(machine: Machine, argv: str) -> None:
    """The list of all commands explains no option."""
    command, *options = argv.split()
    done = machine.firstkey(command, *options)
    assert done.err.endswith(f"(bad-usage)\n  What to do: See: firstkey {command} --help\n")
