"""Making an image fit to share: a plan first, then each step by itself, then the rules again.

A step that fails does not keep the others from being done. The order is the rules', by stage: logs near the
end, histories last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from firstkey import image_reasons, reasons
from firstkey.errors import FirstkeyError
from firstkey.image import audit
from firstkey.image.audit import Result, verdict_of
from firstkey.image.rule import HISTORIES
from firstkey.image.verdict import FINDING
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.image.changes import Change
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image

OVERWRITING = """\
Files were overwritten where they are now. That is no promise that nothing is left of them: journals,
copy-on-write file systems, snapshots, RAID, flash disks and caches can keep older copies, and what was
removed without being overwritten stays in free blocks, which a snapshot of a volume takes along. A copy of
the files to a fresh volume has none of that."""

DONE, FAILED, LEFT = "done", "failed", "left"


class Step(NamedTuple):
    """One change, and the rule that asks for it."""

    rule: Rule
    change: Change


class Left(NamedTuple):
    """A rule with findings that are not mended, and why."""

    rule: Rule
    refusal: Refusal


class Plan(NamedTuple):
    """What is to be done, in order, and what is not."""

    steps: tuple[Step, ...]
    left: tuple[Left, ...]


class Outcome(NamedTuple):
    """What became of a step: `done` with a few words, `failed` or `left` with a reason."""

    step: Step
    result: str
    detail: str
    refusal: Refusal | None = None


class Sealing(NamedTuple):
    """The whole: what was done, what was not, and what the rules say then."""

    outcomes: tuple[Outcome, ...]
    left: tuple[Left, ...]
    after: audit.Audit

    @property
    def is_fit(self) -> bool:
        """Whether everything went well and the image is fit to share now."""
        return self.after.is_fit and not any(outcome.result == FAILED for outcome in self.outcomes)

    @property
    def has_overwritten(self) -> bool:
        """Whether there is something to be said about overwriting."""
        return any(outcome.detail.startswith("overwritten") for outcome in self.outcomes)


def plan(image: Image, wanted: Sequence[Rule], options: Collection[str]) -> Plan:
    """Decide everything, and change nothing."""
    steps: list[Step] = []
    left: list[Left] = []
    for rule in sorted(wanted, key=lambda rule: rule.stage):
        result = Result(rule, verdict_of(rule, image))
        if result.outcome != FINDING:
            continue
        refusal = _refusal(rule, options)
        changes = [] if refusal else _remedy(rule, image)
        if isinstance(changes, Refusal):
            refusal = changes
        elif changes:
            steps += _steps(rule, changes, image, left)
        elif refusal is None:
            detail = f"{rule.title}: that is for a person to bring about"
            refusal = Refusal(image_reasons.FOR_A_PERSON, detail)
        if refusal:
            left.append(Left(rule, refusal))
    return Plan(tuple(steps), tuple(left))


def _refusal(rule: Rule, options: Collection[str]) -> Refusal | None:
    if rule.option is None or rule.option in options:
        return None
    return Refusal(image_reasons.NOT_ASKED_FOR, f"it is done only with --{rule.option}")


def _steps(rule: Rule, changes: Sequence[Change], image: Image, left: list[Left]) -> Iterator[Step]:
    """A step for each change; one that would reach what is mounted from elsewhere is left."""
    for change in changes:
        mounted = _mounted(change, image)
        if mounted:
            left.append(Left(rule, mounted))
        else:
            yield Step(rule, change)


def _mounted(change: Change, image: Image) -> Refusal | None:
    try:
        image.refuse_mounted(change.path)
    except FirstkeyError as error:
        return error.refusal if error.reason is image_reasons.MOUNTED else None
    return None


def _remedy(rule: Rule, image: Image) -> list[Change] | Refusal:
    try:
        return rule.remedy(image)
    except FirstkeyError as error:
        return error.refusal


def carry_out(
    planned: Plan,
    fresh: Callable[[], Image],
    wanted: Sequence[Rule],
    tell: Callable[[Outcome], None],
    *,
    before_histories: Callable[[], None] = lambda: None,
) -> Sealing:
    """Do each step, tell of it, and audit again. `fresh` makes the image anew, as it is by then."""
    image = fresh()
    outcomes: list[Outcome] = []
    is_quiet = False
    for step in planned.steps:
        if step.rule.stage == HISTORIES and not is_quiet:
            before_histories()
            is_quiet = True
        outcome = _attempt(step, image, outcomes)
        outcomes.append(outcome)
        tell(outcome)
    if not is_quiet:
        before_histories()
    return Sealing(tuple(outcomes), planned.left, audit.audit(fresh(), wanted))


def _attempt(step: Step, image: Image, before: Sequence[Outcome]) -> Outcome:
    waiting = _still_needed(step, image, before)
    if waiting:
        return Outcome(step, LEFT, waiting.detail, waiting)
    try:
        return Outcome(step, DONE, step.change.apply(image))
    except FirstkeyError as error:
        return Outcome(step, FAILED, error.message, error.refusal)
    except Exception as error:  # noqa: BLE001 - one step's mistake must not keep the others from being done
        detail = f"the step failed: {error!r}"
        return Outcome(step, FAILED, detail, Refusal(reasons.INTERNAL_ERROR, detail))


def _still_needed(step: Step, image: Image, before: Sequence[Outcome]) -> Refusal | None:
    """Why the step must wait: what it takes away is still needed to heal what another rule finds."""
    needed_by = next((rule for rule in audit.chosen() if rule.id == step.rule.after), None)
    if needed_by is None or (before and before[-1].step.rule is step.rule and before[-1].result == DONE):
        return None
    if verdict_of(needed_by, image).outcome != FINDING:
        return None
    detail = f"{step.change.path} stays while {needed_by.id} has findings, which it helps to heal at boot"
    return Refusal(image_reasons.STILL_NEEDED, detail)
