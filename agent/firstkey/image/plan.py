"""A plan as values: its steps, what is left, what will be found afterwards; and judged as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons
from firstkey.image.changes import Empty, Link, Lock, Remove, SetSshd, Write
from firstkey.reasons import Refusal
from firstkey.system.mounts import is_at_or_below
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Rule

DESTROYING = (Remove, Empty)
"""What takes something away."""


class Step(NamedTuple):
    """One change, and the rule that asks for it. `waits`: what it takes away is still needed afterwards."""

    rule: Rule
    change: Change
    waits: bool = False


class Left(NamedTuple):
    """A rule with findings that are not repaired, and why."""

    rule: Rule
    refusal: Refusal


class Spot(NamedTuple):
    """A finding, as far as it is to be known again."""

    rule: Rule
    path: str
    reason: str


class Plan(NamedTuple):
    """What is to be done, in order, and what is not; which findings will be `gone` then, and which stay.

    `starts`: the units that the first boot then turns on by preset.
    """

    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    gone: tuple[Spot, ...] = ()
    stays: tuple[Spot, ...] = ()
    starts: tuple[str, ...] = ()


def judged(steps: Sequence[Step]) -> tuple[list[Step], list[Left]]:
    """The steps in an order in which none undoes another's, and those that cannot be among them.

    Where one would destroy what another makes, it is the one that destroys that is left.
    """
    kept, left = _without_contradictions(_without_doubles(steps))
    for whole in [step for step in kept if isinstance(step.change, Remove)]:
        top = whole.change.path
        inside = [step for step in kept if step.change.path != top and is_at_or_below(step.change.path, top)]
        if inside:  # what is overwritten or remembered in there goes first
            kept.remove(whole)
            kept.insert(kept.index(inside[-1]) + 1, whole)
    return kept, left


def _without_doubles(steps: Sequence[Step]) -> list[Step]:
    """Of those that take away the same, the most thorough; of those that are the same, the first."""
    kept: list[Step] = []
    for step in steps:
        same = next((each for each in kept if _is_double(each.change, step.change)), None)
        if same is None:
            kept.append(step)
            continue
        best, other = sorted((same, step), key=lambda each: _rank(each.change))
        kept[kept.index(same)] = best._replace(change=_joined(best.change, other.change))
    return kept


def _is_double(one: Change, other: Change) -> bool:
    both_destroy = isinstance(one, DESTROYING) and isinstance(other, DESTROYING)
    return one.path == other.path if both_destroy else (type(one), one) == (type(other), other)


def _rank(change: Change) -> tuple[bool, bool, bool]:
    """The most thorough first: what is remembered, then what is overwritten, removed, and emptied."""
    if not isinstance(change, Remove):
        return (True, True, True)
    return (False, not change.blob, not change.wiping)


def _joined(best: Change, other: Change) -> Change:
    if not isinstance(best, Remove) or not isinstance(other, (Remove, Empty)):
        return best
    links = tuple(dict.fromkeys((*best.links, *other.links)))
    return best._replace(links=links, wiping=best.wiping or (isinstance(other, Remove) and other.wiping))


def _without_contradictions(steps: Sequence[Step]) -> tuple[list[Step], list[Left]]:
    made = {path for step in steps for path, _, _ in _writes(step.change)}
    contents: dict[str, object] = {}
    kept: list[Step] = []
    left: list[Left] = []
    for step in steps:
        why = _contradiction(step.change, steps, made, contents)
        if why:
            left.append(Left(step.rule, Refusal(image_reasons.CONTRADICTION, why)))
            continue
        contents.update({path: after for path, _, after in _writes(step.change)})
        kept.append(step)
    return kept, left


def _contradiction(
    change: Change, steps: Sequence[Step], made: set[str], contents: dict[str, object]
) -> str | None:
    """What other step the change is at odds with, in words; None where it is with none."""
    for path in destroyed(change):
        if any(is_at_or_below(each, path) for each in made):
            return f"{visible(path)} would be removed, and another step writes there"
    for path, before, _ in _writes(change):
        if path in contents and contents[path] != before:
            return f"{visible(path)} would be written twice, each time as if the other were not"
    if isinstance(change, Link):
        target = os.path.normpath(os.path.join(os.path.dirname(change.path), change.target))
        if any(is_at_or_below(target, path) for step in steps for path in destroyed(step.change)):
            return f"{visible(change.path)} would be a link to {visible(target)}, which another step removes"
        is_written = any(isinstance(each.change, Write) and each.change.path == target for each in steps)
        if change.path in (target, None if is_written else change.leads):
            return f"{visible(change.path)} would be a link to {visible(target)}, which leads back to it"
    return None


def destroyed(change: Change) -> tuple[str, ...]:
    """The paths that are gone, or hold nothing, after it."""
    return (change.path, *change.links) if isinstance(change, (Remove, Empty)) else ()


def _writes(change: Change) -> Iterator[tuple[str, object, object]]:
    """The paths that have something new after it: with what must be there before, and what is then."""
    if isinstance(change, Write):
        yield change.path, change.before, change.after
    elif isinstance(change, SetSshd):
        yield from change.files
    elif isinstance(change, Lock):
        yield change.path, Lock, Lock
    elif isinstance(change, Link):
        yield change.path, change.target, change.target
