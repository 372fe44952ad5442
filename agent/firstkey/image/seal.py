"""Making an image fit to share: a plan first, then each step by itself, then the rules again.

A step that fails does not keep the others from being done. The order is the rules', by stage: logs near the
end, histories last. Planning reads the image and gives values; carrying out believes nothing but them, and
holds the audit afterwards against what was predicted.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import in_use, rules, sshd_change, units, whose
from firstkey.image.audit import Result, verdict_of
from firstkey.image.changes import Link, Lock, SetSshd, Update, Write
from firstkey.image.door import is_needed, mounted, seen
from firstkey.image.plan import DESTROYING, Left, Plan, Spot, Step, destroyed, judged
from firstkey.image.rule import HISTORIES
from firstkey.image.rules import ami_tools, identities
from firstkey.image.verdict import FINDING
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import walk
from firstkey.system.mounts import is_at_or_below
from firstkey.system.sshd import CONFIGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.audit import Audit
    from firstkey.image.changes import Change, Empty, Remove
    from firstkey.image.door import Context
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image

OVERWRITING = """\
Files were overwritten where they are now. That is no promise that nothing is left of them: journals,
copy-on-write file systems, snapshots, RAID, flash disks and caches can keep older copies, and what was
removed without being overwritten stays in free blocks, which a snapshot of a volume takes along. A copy of
the files to a fresh volume has none of that."""

DONE, FAILED, LEFT = "done", "failed", "left"


class Outcome(NamedTuple):
    """What became of a step: `done` with a few words, `failed` or `left` with a reason."""

    step: Step
    result: str
    detail: str
    refusal: Refusal | None = None


class Sealing(NamedTuple):
    """The whole: what was done, what was not, what the rules say then, and what of that was not predicted."""

    outcomes: tuple[Outcome, ...]
    left: tuple[Left, ...]
    after: Audit
    unpredicted: tuple[Left, ...] = ()

    @property
    def is_fit(self) -> bool:
        """Whether everything went well, as predicted, and the image is fit to share now."""
        failed = any(outcome.result == FAILED for outcome in self.outcomes)
        return self.after.is_fit and not failed and not self.unpredicted


def plan(image: Image, wanted: Sequence[Rule], options: Collection[str]) -> Plan:
    """Decide everything, and change nothing."""
    steps: list[Step] = []
    left: list[Left] = []
    results = [Result(rule, verdict_of(rule, image)) for rule in sorted(wanted, key=lambda rule: rule.stage)]
    found = [result for result in results if result.outcome == FINDING]
    for result in found:
        rule = result.rule
        if rule.by_hand and result.is_fit:
            continue  # a note, which will be found afterwards as well, and is told there
        refusal = None
        if rule.option and rule.option not in options:
            refusal = Refusal(image_reasons.NOT_ASKED_FOR, f"it is done only with --{rule.option}")
        changes = [] if refusal else _changes(result, image)
        if isinstance(changes, Refusal):
            refusal = changes
        elif not changes and refusal is None:
            detail = f"{rule.title}: that is for a person to bring about"
            refusal = Refusal(image_reasons.FOR_A_PERSON, detail)
        else:
            steps += _steps(rule, changes, image, left, steps)
        if refusal:
            left.append(Left(rule, refusal))
    kept, contradicting = judged(steps)
    return predicted(image, Plan(tuple(kept), (*left, *contradicting), starts=_starts(image, kept)), found)


def _starts(image: Image, steps: Sequence[Step]) -> tuple[str, ...]:
    """The units that systemd turns on by preset at a first boot, where the steps bring one."""
    if all(not isinstance(step.change, Write) or step.change.after != identities.UNSET for step in steps):
        return ()
    try:
        return tuple(units.newly_enabled(image))
    except FirstkeyError as error:
        return (f"units that cannot be told: {error.message}",)


def _steps(
    rule: Rule, changes: Sequence[Change], image: Image, left: list[Left], before: Sequence[Step]
) -> Iterator[Step]:
    """A step for each change; one that may not be done is left, with its reason."""
    for change in changes:
        try:
            settled = _settled(change, image, [step.change for step in before])
            if settled and not isinstance(settled, Update):
                mount = image.mounted_at(settled.path)
                if mount:
                    left.append(Left(rule, mounted(settled.path, mount).refusal))
                    continue
        except FirstkeyError as error:
            left.append(Left(rule, error.refusal))
            continue
        if settled:
            yield Step(rule, settled)


def _settled(change: Change, image: Image, before: Sequence[Change]) -> Change | None:
    """The change as it may be believed: no link in its path, and with what is seen there.

    None: there is nothing to be done.
    """
    if isinstance(change, SetSshd):
        earlier = {
            path: after for each in before if isinstance(each, SetSshd) for path, _, after in each.files
        }
        if earlier:
            change = sshd_change.change(image, sshd_change.SETTINGS[change.keyword], earlier)
        return change._replace(files=tuple((_file(image, path), old, new) for path, old, new in change.files))
    if isinstance(change, (Lock, Write)):
        is_there = isinstance(change, Write) and change.link is not None
        return change._replace(path=(_real if is_there else _file)(image, change.path))
    if isinstance(change, Link):
        path = _real(image, change.path)
        status = image.status(path)
        leads = _leads(image, posixpath.join(posixpath.dirname(path), change.target))
        return change._replace(path=path, leads=leads, seen=seen(status) if status else None)
    return _to_be_destroyed(change, image) if isinstance(change, DESTROYING) else change


def _to_be_destroyed(change: Remove | Empty, image: Image) -> Change | None:
    path = _real(image, change.path)
    status = image.status(path)
    if status is None:
        return None
    if is_needed(path):
        raise FirstkeyError(f"{path} is the system's", reason=image_reasons.NEEDED)
    if whose.is_aside(image, change.path, path):
        message = f"{change.path} leads to {path}, which is the system's or a user's"
        raise FirstkeyError(message, reason=image_reasons.NEEDED)
    if stat.S_ISDIR(status.st_mode) and in_use.is_used(path, image.used):
        raise FirstkeyError(f"{path} is used by a running program", reason=image_reasons.IN_USE)
    return change._replace(path=path, seen=seen(status))


def _file(image: Image, path: str) -> str:
    """Where the path leads in the end; a file that is not there yet, where it will be."""
    found = walk.follow(image.tree, path)
    return found.path if found else _real(image, path)


def _real(image: Image, path: str) -> str:
    """The path without a link in it, but for the last name: that is what is meant itself."""
    above, name = posixpath.split(posixpath.normpath(path))
    if not name:
        return above
    found = walk.follow(image.tree, above)
    return posixpath.join(found.path if found else _real(image, above), name)


def _leads(image: Image, path: str) -> str | None:
    found = whose.end_of(image, path)
    return found.path if found else None


def _changes(result: Result, image: Image) -> list[Change] | Refusal:
    try:
        return result.rule.changes(image, result.verdict)
    except FirstkeyError as error:
        return error.refusal
    except Exception as error:  # noqa: BLE001 - one rule's mistake must not keep the others from being repaired
        return Refusal(reasons.INTERNAL_ERROR, f"the rule {result.rule.id} failed: {error!r}")


# --- what will be found then ----------------------------------------------------------------------


def predicted(image: Image, planned: Plan, found: Sequence[Result]) -> Plan:
    """The plan with what it comes to: which findings will be gone, and which stay."""
    steps = tuple(_waiting(step, image, planned) for step in planned.steps)
    planned = planned._replace(steps=steps)
    gone: list[Spot] = []
    stays: list[Spot] = []
    for rule, verdict, *_ in found:
        heals = _healer(image, rule, planned)
        for finding in verdict.findings:
            (gone if heals(finding.path) else stays).append(Spot(rule, finding.path, finding.reason))
    return planned._replace(gone=tuple(gone), stays=tuple(stays))


def _waiting(step: Step, image: Image, planned: Plan) -> Step:
    """The step, which waits where what it takes away is still needed to heal what another rule finds."""
    if step.rule.after is None:
        return step
    needed_by = rules.by_id(step.rule.after)
    heals = _healer(image, needed_by, planned)
    found = verdict_of(needed_by, image).findings
    return step._replace(waits=not all(heals(finding.path) for finding in found))


def _healer(image: Image, rule: Rule, planned: Plan) -> Callable[[str], bool]:
    """Whether a finding of the rule's about a path will be gone: by its own steps, or taken away."""
    taken = {path for step in planned.steps if not step.waits for path in destroyed(step.change)}
    own = {path for step in planned.steps if step.rule is rule and not step.waits for path in _about(step)}

    def heals(path: str) -> bool:
        try:
            real = _real(image, path) if path.startswith("/") else path
            file = _leads(image, path) if path.startswith("/") else None
        except FirstkeyError:
            return path in own
        if real in own or path in own or (file is not None and file in own):
            return True
        return any(is_at_or_below(real, each) for each in taken)

    return heals


def _about(step: Step) -> Iterator[str]:
    """What a finding that the step heals may name."""
    yield step.change.path
    if isinstance(step.change, SetSshd):
        yield from (*CONFIGS, *(path for path, _, _ in step.change.files))
    if isinstance(step.change, Update):
        yield from ami_tools.PROGRAMS


def unpredicted(planned: Plan, after: Audit) -> Iterator[Left]:
    """What is found afterwards, and should not be."""
    expected = {(spot.rule.id, spot.path) for spot in planned.stays}
    gone = {(spot.rule.id, spot.path) for spot in planned.gone}
    for result in after.results:
        for path in dict.fromkeys(finding.path for finding in result.verdict.findings):
            if (result.rule.id, path) not in expected:
                known = (result.rule.id, path) in gone
                detail = f"{path} should be gone, and is not" if known else f"{path} was not found before"
                yield Left(result.rule, Refusal(image_reasons.NOT_AS_PREDICTED, detail))


# --- doing it -------------------------------------------------------------------------------------


def carry_out(
    planned: Plan,
    wanted: Sequence[Rule],
    context: Context,
    look: Callable[[Sequence[Rule]], Audit],
    tell: Callable[[Outcome], None],
    *,
    before_histories: Callable[[], None] = lambda: None,
) -> Sealing:
    """Do each step, tell of it, and audit again: `look` audits these rules, in the tree as it is by then."""
    outcomes: list[Outcome] = []
    is_quiet = False
    for step in planned.steps:
        if step.rule.stage == HISTORIES and not is_quiet:
            before_histories()
            is_quiet = True
        outcome = _attempt(step, context, outcomes)
        outcomes.append(outcome)
        tell(outcome)
    if not is_quiet:
        before_histories()
    after = look(wanted)
    return Sealing(tuple(outcomes), planned.left, after, tuple(unpredicted(planned, after)))


def _attempt(step: Step, context: Context, before: Sequence[Outcome]) -> Outcome:
    if step.waits or any(each.step.rule.id == step.rule.after and each.result != DONE for each in before):
        detail = (
            f"{step.change.path} stays while {step.rule.after} has findings, which it helps to heal at boot"
        )
        return Outcome(step, LEFT, detail, Refusal(image_reasons.STILL_NEEDED, detail))
    try:
        return Outcome(step, DONE, step.change.apply(context))
    except FirstkeyError as error:
        return Outcome(step, FAILED, error.message, error.refusal)
    except Exception as error:  # noqa: BLE001 - one step's mistake must not keep the others from being done
        detail = f"the step failed: {error!r}"
        return Outcome(step, FAILED, detail, Refusal(reasons.INTERNAL_ERROR, detail))
