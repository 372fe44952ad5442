"""A power cut after each call of a job, on a disk that loses what was not synced (tests/support/powercut.py).

The tree is taken before every call of a job that is not disturbed. From that and from what was synced follow
all the trees that may be found on the disk after a power cut: every one of them is judged, and on some
(on all with `./dev sweep`) the job is run again, in another boot.
"""

from __future__ import annotations

from pathlib import Path

import callwatch
import crash_scenarios
import processes
import pytest
import sweeps
import treestate
from crash_scenarios import Scenario
from powercut import Disk

pytestmark = [
    pytest.mark.root,
    pytest.mark.sshd,
    pytest.mark.skipif(bool(crash_scenarios.missing()), reason=str(crash_scenarios.missing())),
]
FEW, MORE = 2, 10
"""On how many trees the job is run again, in the normal run and in the slow one."""


def sweep(scenario: Scenario, many: int) -> None:
    """Judge every tree that there may be, and what the next boot makes of so many of them."""
    cuts = sweeps.power_cuts(scenario)
    assert len(cuts) > many
    wrong = [(cut.call, found) for cut in cuts if (found := sweeps.found_at_once(scenario, cut))]
    assert wrong == []
    some = cuts[many % 3 :: len(cuts) // many]
    wrong = [(cut.call, found) for cut in some if (found := sweeps.found_on_next_boot(scenario, cut))]
    assert wrong == []


@pytest.mark.slow
def test_a_power_cut_leaves_the_old_or_the_new(scenario: Scenario) -> None:
    """No host key is empty or half of another, no file of keys is cut off; the next boot mends the rest."""
    sweep(scenario, FEW)


@pytest.mark.slow
def test_the_next_boot_completes_the_job(scenario: Scenario) -> None:
    """As above, on more of the trees."""
    sweep(scenario, MORE)


# --- the disk itself ------------------------------------------------------------------------------

WRITER = """
    import os, sys
    os.chdir(sys.argv[1])
    fd = os.open("new", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"content")
    if "file" in sys.argv:
        os.fsync(fd)
    os.rename("new", "file")
    if "names" in sys.argv:
        os.fsync(os.open(".", os.O_RDONLY))
"""


def left_by(place: Path, *synced: str) -> set[bytes]:
    """What may be in the file at last, after a program that syncs this and no more."""
    (place / "file").write_bytes(b"old")
    states: list[treestate.State] = []
    argv = processes.program(WRITER, place, *synced)
    ended = callwatch.run(argv, place, lambda _call: states.append(treestate.take(place)))
    states.append(treestate.take(place))
    disk = Disk(states[0])
    for call, after in zip(ended.calls, states[1:]):
        disk.learn(call, after)
    return {state["/file"].content for state in disk.states()}


def test_what_was_not_synced_may_be_lost(tmp_path: Path) -> None:
    """A name without the content, the old name, both: the model finds what a missing fsync costs."""
    place = tmp_path / "place"
    place.mkdir()
    assert left_by(place) == {b"old", b"content", b"", bytes(7), b"con"}
    assert left_by(place, "names") == {b"content", b"", bytes(7), b"con"}
    assert left_by(place, "file") == {b"old", b"content"}
    assert left_by(place, "file", "names") == {b"content"}
