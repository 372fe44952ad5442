"""Interrupting a job at its calls, in every way, and judging what is left and what the next run makes."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Union

import treestate
from callwatch import KILL_ALL, KILL_CALLER, Call, Ended
from crash_judge import ACCOUNT_BACKUP, ACCOUNT_LOCK, Judge
from crash_scenarios import Scenario
from powercut import Disk

from firstkey import reasons

Wish = Union[int, str, None]

_NEED_ROOM = (
    "open", "creat", "write", "pwrite", "pwritev", "mkdir", "link", "symlink", "fsync", "fdatasync",
    "fallocate", "copy_file_range", "sendfile", "setxattr", "lsetxattr", "fsetxattr",
)  # fmt: skip
"""Calls that fail on a full disk; renaming and removing go on working."""


def _at(number: int, wish: Wish) -> Callable[[Call], Wish]:
    return lambda call: wish if call.number == number else None


def _full_from(number: int) -> Callable[[Call], Wish]:
    def wish(call: Call) -> Wish:
        is_on_disk = not call.path.startswith("/run/")
        return (
            errno.ENOSPC
            if call.number >= number and is_on_disk and call.name.startswith(_NEED_ROOM)
            else None
        )

    return wish


WAYS: dict[str, Callable[[int], Callable[[Call], Wish]]] = {
    "everything dies": lambda number: _at(number, KILL_ALL),
    "one process dies": lambda number: _at(number, KILL_CALLER),
    "EIO": lambda number: _at(number, errno.EIO),
    "ENOSPC": lambda number: _at(number, errno.ENOSPC),
    "full from then on": _full_from,
}


class Case(NamedTuple):
    """One interruption, and what was wrong after it."""

    way: str
    call: Call
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.way} at call {self.call.number}, {self.call.name} {self.call.path}"
        return "\n  ".join([f"{where}:", *self.wrong])


@cache
def calls(scenario: Scenario) -> tuple[Call, ...]:
    """The calls of the job that change something, when nothing disturbs it."""
    ended = scenario.interrupted(lambda _call: None)
    assert ended.status == 0, ended.err
    return ended.calls


def case(scenario: Scenario, way: str, number: int) -> Case | None:
    """Interrupt the job at that call, look, run it again and look again; None where it made fewer calls."""
    ended = scenario.interrupted(WAYS[way](number))
    return _judged(scenario, way, ended, ended.calls[number - 1]) if number <= len(ended.calls) else None


def case_where(scenario: Scenario, way: str, is_meant: Callable[[Call], bool]) -> Case | None:
    """The same at the first call that is meant, whichever number it has: ssh-keygen works beside all else."""
    met: list[Call] = []

    def wish(call: Call) -> Wish:
        if met or not is_meant(call):
            return None
        met.append(call)
        return WAYS[way](call.number)(call)

    ended = scenario.interrupted(wish)
    return _judged(scenario, way, ended, met[0]) if met else None


def _judged(scenario: Scenario, way: str, ended: Ended, call: Call) -> Case:
    judge = Judge(scenario)
    left = treestate.take(scenario.root)
    wrong = judge.at_once(left)
    if way != "everything dies":
        usual = set(_found(json.loads(scenario.report)))
        wrong += _told_wrongly(ended, judge.undone(left), usual)
    if way in ("EIO", "ENOSPC"):
        wrong += _left_lying(judge, left, call)
        wrong += _dragged_along(judge.undone(left))
    done = scenario.again()
    after = [f"then {each}" for each in judge.at_the_end(treestate.take(scenario.root), done)]
    return Case(way, call, (*wrong, *after))


# --- power cuts -----------------------------------------------------------------------------------

BOOT_ID = "/proc/sys/kernel/random/boot_id"


_NOT_KEPT = re.compile(f"/run/|{ACCOUNT_BACKUP.pattern}$|{ACCOUNT_LOCK.pattern}$")


class Cut(NamedTuple):
    """A power cut right after a call, and a tree that may be found on the disk then."""

    call: Call
    state: treestate.State


def power_cuts(scenario: Scenario) -> list[Cut]:
    """Every different tree that a power cut may leave, whenever it comes, with the first moment for it."""
    states: list[treestate.State] = []
    ended = scenario.interrupted(lambda _call: states.append(_on_disk(scenario)))
    assert ended.status == 0, ended.err
    states.append(_on_disk(scenario))
    disk = Disk(states[0])
    cuts: dict[object, Cut] = {}
    for call, after in zip(ended.calls, states[1:]):
        disk.learn(call, after)
        for state in disk.states():
            cuts.setdefault(frozenset((path, entry.looks) for path, entry in state.items()), Cut(call, state))
    return list(cuts.values())


def _on_disk(scenario: Scenario) -> dict[str, treestate.Entry]:
    """The tree as it is, but for /run, which is in memory, and for useradd's backups and locks."""
    tree = treestate.take(scenario.root)
    return {path: entry for path, entry in tree.items() if not _NOT_KEPT.match(path)}


def found_at_once(scenario: Scenario, cut: Cut) -> list[str]:
    """What is wrong with that tree."""
    return Judge(scenario).at_once(cut.state)


def found_on_next_boot(scenario: Scenario, cut: Cut) -> list[str]:
    """What is wrong after the job has run on that tree, in another boot."""
    state = {
        path: entry._replace(content=b"the next\n") if path == BOOT_ID else entry
        for path, entry in cut.state.items()
    }
    treestate.put(scenario.root, state)
    done = scenario.again()
    return Judge(scenario).at_the_end(treestate.take(scenario.root), done)


# --- what is told ---------------------------------------------------------------------------------


def _told_wrongly(ended: Ended, undone: set[str], usual: set[str]) -> list[str]:
    """What was not done is told with a reason, and by the exit status; nothing is told as a traceback."""
    wrong = [f"a traceback: {ended.err[-1000:]}"] if "Traceback" in ended.err + ended.out else []
    if ended.status == -9:
        return wrong
    if ended.status not in (0, 1):
        wrong.append(f"exit status {ended.status}: {ended.err[-1000:]}")
    if ended.status == 0 and undone - {"state"}:
        wrong.append(f"exit status 0, though not done: {sorted(undone)}")
    if (undone or ended.status) and not _reasons(ended) - usual:
        wrong.append(f"no reason told; not done: {sorted(undone)}; {ended.err[-1000:]}")
    return wrong


def _reasons(ended: Ended) -> set[str]:
    """Every reason in the report, or in the message where there is none."""
    said = re.findall(r"\(([a-z0-9-]+)\)", ended.err)
    return {*said, *(_found(json.loads(ended.out)) if ended.out else [])} & set(reasons.ALL)


def _found(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["reason"]] if isinstance(value.get("reason"), str) else []
        return own + [each for part in value.values() for each in _found(part)]
    return [each for part in value for each in _found(part)] if isinstance(value, list) else []


def _left_lying(judge: Judge, left: treestate.State, call: Call) -> list[str]:
    """A run that ended by itself leaves no temporary file, unless it was the removing that failed."""
    if call.name.startswith(("unlink", "rmdir")):
        return []
    return [f"{path} was left lying about" for path in judge.temporary(left)]


def _dragged_along(undone: set[str]) -> list[str]:
    """One call that fails costs one thing at most."""
    parts = undone - {"state"}
    return [f"one failure kept all of these from being done: {sorted(parts)}"] if len(parts) > 1 else []
