"""kill -9, an I/O error and a full disk at the calls that change something, in every job that does.

Each job is run on a scratch tree under a watch (tests/support/callwatch.py) that stops every process of it
before each system call that changes a file of the tree, counts them over all processes, and at the chosen
number kills all of them, kills the one that makes the call, or lets this call fail. What is left is judged
(tests/support/crash_judge.py), and so is what the next run, which has nothing in its way, makes of it.

Here some of the calls are taken, spread over the job; `./dev sweep` takes every single one.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

import callwatch
import crash_scenarios
import pytest
import sweeps
from crash_scenarios import Scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.sshd,
    pytest.mark.skipif(bool(crash_scenarios.missing()), reason=str(crash_scenarios.missing())),
]
FEW, MORE = 1, 4
"""How many calls of each job are taken for each way of interrupting it, normally and in the slow test."""


def spread(total: int, many: int, shift: int) -> list[int]:
    """So many numbers up to `total`, evenly apart; others for each `shift`."""
    step = total / many
    return [1 + int(step * (each + shift % 8 / 8)) for each in range(many)]


def sweep(scenario: Scenario, way: str, many: int) -> None:
    """Interrupt the job that way at so many calls; nothing may be wrong after any."""
    total = len(sweeps.calls(scenario))
    numbers = spread(total, many, 3 * list(sweeps.WAYS).index(way) + many)
    cases = [sweeps.case(scenario, way, number) for number in numbers]
    taken = [case for case in cases if case is not None]
    assert len(taken) > many // 2, "the job made fewer calls than when they were counted"
    assert [str(case) for case in taken if case.wrong] == []


@pytest.mark.parametrize("way", ["everything dies", pytest.param("EIO", marks=pytest.mark.slow)])
@pytest.mark.sample(8)
def test_an_interrupted_job_leaves_the_old_or_the_new_and_is_completed(scenario: Scenario, way: str) -> None:
    """Every file is old or new, what failed is told, the next run completes the job and leaves no litter."""
    sweep(scenario, way, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("way", sweeps.WAYS)
def test_the_same_at_more_calls_and_in_every_way(scenario: Scenario, way: str) -> None:
    """As above, at other calls."""
    sweep(scenario, way, MORE)


# --- what the complete sweep brought to light -----------------------------------------------------

FOUND = [
    # An account whose making was cut off never got a home, or one that was root's.
    ("a first boot", "everything dies", "renameat", r"/etc/\.firstkey-passwd\.\w+"),
    ("a first boot", "everything dies", "renameat", r"/home/\.firstkey-deploy\.\w+"),
    ("a first boot", "one process dies", "fchown", r"/home/\.firstkey-deploy\.\w+"),
    ("a first boot", "EIO", "fchown", r"/home/\.firstkey-deploy\.\w+"),
    # Its own temporary files stayed beside the ledger, and with passwords in a sealed image.
    ("broken host keys", "everything dies", "fsync", r"/var/lib/firstkey/\.firstkey-ledger\..*"),
    ("sealing", "everything dies", "renameat", r"/etc/\.firstkey-shadow\..*"),
    # A ledger that could not be written once was not written at all, so host keys were forgotten.
    ("broken host keys", "EIO", "write", r"/var/lib/firstkey/\.firstkey-ledger\..*"),
    # A key that found no room was taken for one of a type that is refused, and the run for a success.
    ("broken host keys", "ENOSPC", "write", r"/run/firstkey/\.firstkey-hostkeys\.\w+/\.firstkey-key\.\w+"),
    # A workshop that could not be set up was left behind, and one that could not be removed ended the run.
    ("broken host keys", "EIO", "fchmod", r"/run/firstkey/\.firstkey-hostkeys\.\w+"),
    (
        "another instance",
        "EIO",
        "unlinkat",
        r"/run/firstkey/\.firstkey-hostkeys\.\w+/\.firstkey-key\.\w+\.pub",
    ),
    # No lock, no keys.
    ("another instance", "EIO", "openat", r"/run/firstkey/lock"),
]


@pytest.mark.slow
@pytest.mark.parametrize("scenario, way, name, path", FOUND, indirect=["scenario"])
def test_what_was_wrong_once_is_right(scenario: Scenario, way: str, name: str, path: str) -> None:
    """The call at which each defect showed."""

    def is_meant(call: callwatch.Call) -> bool:
        return call.name == name and re.fullmatch(path, call.path) is not None

    case = sweeps.case_where(scenario, way, is_meant)
    assert case is not None, "there is no such call any more"
    assert case.wrong == ()


# --- the watch itself -----------------------------------------------------------------------------

SHELL = ["sh", "-c", 'cd "$1" && echo 1 >one && mv one two && mkdir three && rm two', "sh"]


def test_calls_of_all_processes_are_counted(tmp_path: Path) -> None:
    """Each in its order, whichever program makes it, and what does not change the tree is none."""
    ended = callwatch.run([*SHELL, str(tmp_path)], tmp_path)
    assert [call.path for call in ended.calls] == ["/one", "/one", "/one", "/three", "/two"]
    assert [call.number for call in ended.calls] == [1, 2, 3, 4, 5]
    assert len({call.pid for call in ended.calls}) == 4
    assert (ended.status, [path.name for path in tmp_path.iterdir()]) == (0, ["three"])


@pytest.mark.parametrize(
    "wish, status, left",
    [
        (callwatch.KILL_ALL, -9, ["two"]),
        (callwatch.KILL_CALLER, 137, ["two"]),
        (errno.EIO, 1, ["two"]),
    ],
)
def test_a_call_can_be_the_last_or_fail(
    tmp_path: Path, wish: int | str, status: int, left: list[str]
) -> None:
    """The call is not made; all processes die, or one, or none."""
    ended = callwatch.run([*SHELL, str(tmp_path)], tmp_path, lambda call: wish if call.number == 4 else None)
    assert (ended.status, [path.name for path in tmp_path.iterdir()]) == (status, left)
