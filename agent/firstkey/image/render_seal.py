"""Sealing as text for people, and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from firstkey.colours import GREEN, RED, YELLOW, Coloured
from firstkey.display import DECIDE
from firstkey.image import seal
from firstkey.image.door import WIPED
from firstkey.image.formats import as_json, path_json
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.colours import Line
    from firstkey.image.audit import Audit
    from firstkey.image.plan import Left, Plan, Step
    from firstkey.image.seal import Outcome, Sealing
    from firstkey.reasons import Refusal

WAITS = "-wait-online"
"""In the name of a unit that holds network-online.target until there is a network, or two minutes."""
_COLOURS = {seal.DONE: GREEN, seal.FAILED: RED, seal.LEFT: YELLOW}


def plan(planned: Plan, *, diffs: bool) -> Iterator[str]:
    """What is to be done, in order, and what is not; with `diffs`, what becomes of each file."""
    is_clean = not (planned.steps or planned.left or planned.stays)
    nothing = "; there is nothing to do." if is_clean else "; what is left is for a person."
    yield f"Plan: {_steps(len(planned.steps))}{':' if planned.steps else nothing}"
    rule = None
    for step in planned.steps:
        if step.rule is not rule:
            rule = step.rule
            yield f"  {rule.title} [{rule.id}]"
        first, *others = step.change.describe().removesuffix("\n").split("\n")
        yield f"    - {first}"
        yield from (f"        {line}" for line in others if diffs)
    yield from _left("Left as it is:", planned.left)
    if planned.stays:
        yield "Will still be found afterwards:"
    for spot in planned.stays:
        yield f"  {visible(spot.path)}: {spot.reason} [{spot.rule.id}]"
    if planned.starts:
        yield "The first boot will turn on by preset (mask what the image shall not start):"
    for unit in planned.starts:
        yield f"  {visible(unit)}{', which holds what waits for a network' if WAITS in unit else ''}"


def _left(title: str, left: tuple[Left, ...]) -> Iterator[str]:
    if left:
        yield title
    for entry in left:
        yield f"  {entry.rule.title} [{entry.rule.id}]"
        yield from _refusal(entry.refusal)


def _refusal(refusal: Refusal) -> Iterator[str]:
    yield f"      {refusal.detail} ({refusal.reason.code})"
    yield f"      {DECIDE}{refusal.reason.remedy}"


def outcome(done: Outcome) -> Iterator[Line]:
    """What became of one step."""
    detail = f": {done.detail}" if done.refusal is None else ""
    first = done.step.change.describe().partition("\n")[0]
    after = f"  {first}{detail}"
    yield Coloured(_COLOURS[done.result], f"{done.result:6}", before="  ", after=after)
    if done.refusal:
        yield from (f"  {line}" for line in _refusal(done.refusal))


def summary(done: Sealing) -> Iterator[str]:
    """How it ended, and what overwriting cannot promise where there was any."""
    if any(outcome.detail == WIPED for outcome in done.outcomes):
        yield from (*seal.OVERWRITING.split("\n"), "")
    if done.unpredicted:
        yield from (*_left("Not as predicted:", done.unpredicted), "")
    counts = {result: _count(done, result) for result in (seal.DONE, seal.FAILED, seal.LEFT)}
    said = f"{_steps(counts[seal.DONE])} done, {counts[seal.FAILED]} failed, {counts[seal.LEFT]} left"
    yield f"{said}."


def difference(planned: Plan, after: Audit) -> Iterator[Line]:
    """What was found before and is gone, a line for each rule; what is left, `render.lines` has."""
    before = Counter(spot.rule.id for spot in (*planned.gone, *planned.stays))
    differences = ((rule, before[rule.id] - len(verdict.findings)) for rule, verdict, *_ in after.results)
    gone = [(rule, number) for rule, number in differences if number > 0]
    yield f"The rules were asked again.{' Gone since:' if gone else ''}"
    for rule, number in gone:
        told = f"   {rule.title} [{rule.id}]: {number} of {before[rule.id]}"
        yield Coloured(GREEN, "gone", before="  ", after=told)


def one_line(done: Sealing) -> str:
    """The same for the journal."""
    fit = "fit to share" if done.is_fit else "not fit to share"
    return f"{_steps(_count(done, seal.DONE))} done, {_count(done, seal.FAILED)} failed; {fit}"


def _count(done: Sealing, result: str) -> int:
    return sum(outcome.result == result for outcome in done.outcomes)


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


# --- for programs ---------------------------------------------------------------------------------


def plan_json(planned: Plan) -> dict[str, Any]:
    """What `seal --dry-run --json` prints."""
    return {
        "version": 1,
        "dry_run": True,
        "steps": [_step_json(step) for step in planned.steps],
        "left": [_left_json(entry) for entry in planned.left],
        "stays": [{"rule": spot.rule.id, **path_json(spot.path)} for spot in planned.stays],
        "starts": list(map(visible, planned.starts)),
    }


def sealing_json(done: Sealing) -> dict[str, Any]:
    """What `seal --json` prints; `audit` is as `audit --json` has it."""
    return {
        "version": 1,
        "dry_run": False,
        "fit": done.is_fit,
        "steps": [
            {
                **_step_json(entry.step),
                "result": entry.result,
                "detail": visible(entry.detail),
                "reason": entry.refusal.reason.code if entry.refusal else None,
            }
            for entry in done.outcomes
        ],
        "left": [_left_json(entry) for entry in done.left],
        "unpredicted": [_left_json(entry) for entry in done.unpredicted],
        "audit": as_json(done.after),
    }


def _step_json(step: Step) -> dict[str, Any]:
    first, _, diff = step.change.describe().partition("\n")
    return {"rule": step.rule.id, **path_json(step.change.path), "change": first, "diff": diff}


def _left_json(entry: Left) -> dict[str, Any]:
    why = entry.refusal
    return {"rule": entry.rule.id, "reason": why.reason.code, "detail": visible(why.detail)}
