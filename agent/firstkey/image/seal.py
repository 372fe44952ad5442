"""Making an image fit to share: a plan first, then each step by itself, then the rules again.

A step that fails does not keep the others from being done. The order is the rules', by stage: logs near the
end, histories last. Planning reads the image and gives values; carrying out believes nothing but them, and
holds the audit afterwards against what was predicted.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Union

from firstkey import NamedTuple, image_reasons
from firstkey.image import door, in_use, rules, sshd, units, whose
from firstkey.image.audit import RULE, Audit, Result, verdict_of
from firstkey.image.changes import Change, Link, Lock, Remove, SetSshd, Update, Write
from firstkey.image.door import Context, checked, mounted, seen
from firstkey.image.rule import HISTORIES, Rule, attempted
from firstkey.image.rules import identities
from firstkey.image.subject import Image
from firstkey.image.verdict import FINDING, NOT_APPLICABLE, UNKNOWN
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import walk
from firstkey.system.mounts import is_at_or_below, upwards
from firstkey.text import visible

Settled = dict[tuple[str, Change], Union[Change, Refusal, None]]
"""By rule and change: what is to be done, why it may not be, or None where there is nothing to do."""

DONE, FAILED, LEFT = "done", "failed", "left"


class Step(NamedTuple):
    """One change, and the rule that asks for it. `waits`: what it takes away is still needed afterwards."""

    rule: Rule
    change: Change
    waits: bool = False


class Left(NamedTuple):
    """A rule with findings that are not repaired, and why."""

    rule: Rule
    refusal: Refusal


class Match(NamedTuple):
    """A finding, as far as it is to be known again, and whether it will be found afterwards too."""

    rule: Rule
    path: str
    reason: str
    stays: bool


class Plan(NamedTuple):
    """What is to be done, in order, and what is not; what is `found` before.

    `starts`: the units that the first boot then turns on by preset. `open`: the rules that did not apply, or
    could not be checked; the steps may change that, so nothing is predicted of these.
    """

    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    found: tuple[Match, ...]
    starts: tuple[str, ...]
    open: tuple[Rule, ...]

    @property
    def stays(self) -> tuple[Match, ...]:
        """What will still be found."""
        return tuple(match for match in self.found if match.stays)


class Outcome(NamedTuple):
    """What became of a step: `done` with a few words, `failed` or `left` with a reason."""

    step: Step
    result: str
    detail: str
    refusal: Refusal | None = None


class Sealing(NamedTuple):
    """The whole: what was planned, what was done of it, and what the rules say then."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    after: Audit

    @property
    def is_fit(self) -> bool:
        """Whether everything went well, as predicted, and the image is fit to share now."""
        failed = any(outcome.result == FAILED for outcome in self.outcomes)
        return self.after.is_fit and not failed and not self.unpredicted

    @property
    def unpredicted(self) -> tuple[Left, ...]:
        """What is found afterwards, and should not be."""
        found = sorted(self.plan.found, key=lambda match: match.stays)  # one that stays outweighs others
        stays = {(match.rule.id, match.path): match.stays for match in found}
        is_open = {rule.id for rule in self.plan.open}
        why = {None: "was not found before", False: "should be gone, and is not"}
        return tuple(
            Left(rule, Refusal(image_reasons.NOT_AS_PREDICTED, f"{path} {why[stays.get((rule.id, path))]}"))
            for rule, verdict, *_ in self.after.results
            for path in dict.fromkeys(finding.path for finding in verdict.findings)
            if not stays.get((rule.id, path)) and rule.id not in is_open
        )


def plan(image: Image, wanted: Sequence[Rule], options: Collection[str]) -> Plan:
    """Decide everything, and change nothing."""
    results = [Result(rule, verdict_of(rule, image)) for rule in sorted(wanted, key=lambda rule: rule.stage)]
    found = [result for result in results if result.outcome == FINDING]
    steps: list[Step] = []
    left: list[Left] = []
    settled: Settled = {}
    needed = door.needed(image.tree, image.looking.left_out)
    for result in found:
        rule = result.rule
        image.looking.at(RULE, rule.id)
        if rule.by_hand and result.is_fit:
            continue  # a note, which the audit afterwards has as well
        changes = attempted(f"the rule {rule.id}", _changes, result, options)
        for change in () if isinstance(changes, Refusal) else changes:
            done = attempted(f"a change of the rule {rule.id}", _settled, change, image, steps, needed)
            settled[rule.id, change] = done
            if isinstance(done, Refusal):
                left.append(Left(rule, done))
            elif done:
                steps.append(Step(rule, done))
        if isinstance(changes, Refusal):
            left.append(Left(rule, changes))
    kept, contradicting = judged(steps)
    planned = tuple(kept)
    for name in {step.rule.after for step in planned if step.rule.after}:
        # What such a step takes away may still be needed to heal what another rule finds.
        rule = rules.by_id(name)
        if not all(_healed(image, Result(rule, verdict_of(rule, image)), planned, settled)):
            kept = [step._replace(waits=True) if step.rule.after == name else step for step in kept]
    matches = [
        Match(result.rule, finding.path, finding.reason, not is_healed)
        for result in found
        for finding, is_healed in zip(result.verdict.findings, _healed(image, result, kept, settled))
    ]
    is_open = tuple(result.rule for result in results if result.outcome in (UNKNOWN, NOT_APPLICABLE))
    return Plan(tuple(kept), (*left, *contradicting), tuple(matches), _starts(image, kept), is_open)


def _changes(result: Result, options: Collection[str]) -> tuple[Change, ...]:
    """What seal would do about a rule's findings. Raises FirstkeyError where that is nothing."""
    rule = result.rule
    if rule.option and rule.option not in options:
        raise FirstkeyError(f"it is done only with --{rule.option}", reason=image_reasons.NOT_ASKED_FOR)
    changes = result.verdict.changes
    if not changes:
        message = f"{rule.title}: that is for a person to bring about"
        raise FirstkeyError(message, reason=image_reasons.FOR_A_PERSON)
    return changes


def _starts(image: Image, steps: Sequence[Step]) -> tuple[str, ...]:
    """The units that systemd turns on by preset at a first boot, where the steps bring one."""
    if all(getattr(step.change, "after", None) != identities.UNSET for step in steps):
        return ()
    waits = (RULE, "first-boot-waits")  # which lists them as well
    image.looking.at(*waits)
    refusal = image.looking.unfinished.get(waits)
    found = attempted("their list", units.newly_enabled, image) if refusal is None else refusal
    return (f"units that cannot be listed: {found.detail}",) if isinstance(found, Refusal) else tuple(found)


def _settled(change: Change, image: Image, earlier: Sequence[Step], needed: frozenset[str]) -> Change | None:
    """The change as it may be believed: no link in its path, and with what is seen there.

    None: there is nothing to be done. Raises FirstkeyError where it may not be done.
    """
    if isinstance(change, Update):
        return change
    if isinstance(change, SetSshd):
        written = [step.change.files for step in earlier if isinstance(step.change, SetSshd)]
        contents = {path: after for files in written for path, _, after in files}
        change = sshd.change(image.tree, sshd.SETTINGS[change.keyword], contents)
        files = ((_file(image, path), before, after) for path, before, after in change.files)
        change = change._replace(files=tuple(files))
    is_of_content = isinstance(change, (Lock, SetSshd)) or (isinstance(change, Write) and not change.link)
    path = (_file if is_of_content else _real)(image, change.path)
    mount = image.mounted_at(path)
    if mount:
        raise mounted(path, mount)
    if isinstance(change, SetSshd):
        return change
    if isinstance(change, (Lock, Write)):
        return change._replace(path=path)
    status = image.status(path)
    known = seen(status) if status else None
    if isinstance(change, Link):
        leads = walk.end_of(image.tree, posixpath.join(posixpath.dirname(path), change.target))
        return change._replace(path=path, leads=leads and leads.path, seen=known)
    if status is None or not isinstance(change, Remove):
        return None
    checked(path, known, needed)
    if whose.leads_elsewhere(image, change.path, path):
        message = f"{change.path} leads to {path}, which is the system's or a user's"
        raise FirstkeyError(message, reason=image_reasons.NEEDED)
    if stat.S_ISDIR(status.st_mode) and in_use.is_used(path, image.used):
        raise FirstkeyError(f"{path} is used by a running program", reason=image_reasons.IN_USE)
    return change._replace(path=path, seen=known)


def _file(image: Image, path: str) -> str:
    """Where the path leads in the end; a file that is not there yet, where it will be."""
    found = walk.follow(image.tree, path)
    return found.path if found else _real(image, path)


def _real(image: Image, path: str) -> str:
    """The path without a link in it, but for the last name: that is what is meant itself."""
    above, name = posixpath.split(posixpath.normpath(path))
    return posixpath.join(_file(image, above), name) if name else above


# --- none of its steps undoes another's ------------------------------------------------------------


def judged(steps: Sequence[Step]) -> tuple[list[Step], list[Left]]:
    """The steps in an order in which none undoes another's, and those that cannot be among them.

    Where one would destroy what another makes, it is the one that destroys that is left.
    """
    steps = _without_doubles(steps)
    made = {above for step in steps for path, _, _ in _writes(step.change) for above in upwards(path)}
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
    last = {above: number for number, step in enumerate(kept) for above in upwards(step.change.path)}

    def turn(number: int) -> tuple[int, int]:
        """What is overwritten or remembered in a directory goes before the whole of it."""
        change = kept[number].change
        return last[change.path] if isinstance(change, Remove) else number, -len(change.path)

    return [kept[number] for number in sorted(range(len(kept)), key=turn)], left


def _without_doubles(steps: Sequence[Step]) -> list[Step]:
    """Of those that take away the same, the most thorough; of those that are the same, the first."""
    kept: dict[object, Step] = {}
    for step in steps:
        key = effect(step.change)
        best, other = sorted((kept.get(key, step), step), key=_rank)
        if isinstance(best.change, Remove):
            links = tuple(dict.fromkeys((*best.change.links, *destroyed(other.change)[1:])))
            wiping = best.change.wiping or getattr(other.change, "wiping", False)
            best = best._replace(change=best.change._replace(links=links, wiping=wiping))
        kept[key] = best
    return list(kept.values())


def effect(change: object) -> object:
    """What is the same for changes of which one is enough."""
    return change.path if isinstance(change, Remove) else (type(change), change)


def _rank(step: Step) -> tuple[bool, ...]:
    """The most thorough first: what is remembered, then what is overwritten, removed, and emptied."""
    change = step.change
    return (change.emptying, not change.blob, not change.wiping) if isinstance(change, Remove) else ()


def _contradiction(
    change: Change, steps: Sequence[Step], made: set[str], contents: dict[str, object]
) -> str | None:
    """What other step the change is at odds with, in words; None where it is with none."""
    for path in destroyed(change):
        if path in made:
            return f"{visible(path)} would be removed, and another step writes there"
    for path, before, _ in _writes(change):
        if path in contents and contents[path] != before:
            return f"{visible(path)} would be written twice, each time as if the other were not"
    if isinstance(change, Link):
        target = os.path.normpath(os.path.join(os.path.dirname(change.path), change.target))
        words = f"{visible(change.path)} would be a link to {visible(target)}, which"
        if any(is_at_or_below(target, path) for step in steps for path in destroyed(step.change)):
            return f"{words} another step removes"
        is_written = any(isinstance(each.change, Write) and each.change.path == target for each in steps)
        if change.path in (target, None if is_written else change.leads):
            return f"{words} leads back to it"
    return None


def destroyed(change: Change) -> tuple[str, ...]:
    """The paths that are gone, or hold nothing, after it."""
    return (change.path, *change.links) if isinstance(change, Remove) else ()


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


# --- what will be found then ----------------------------------------------------------------------


def _healed(image: Image, result: Result, kept: Sequence[Step], settled: Settled) -> Iterator[bool]:
    """Of each finding whether it will be gone: by all of the rule's changes, or taken away by any."""
    changes = [step.change for step in kept if not step.waits]
    effects = set(map(effect, changes))
    taken = {path for change in changes for path in destroyed(change)}
    for finding in result.verdict.findings:
        own = [settled.get((result.rule.id, change), False) for change in finding.changes]
        if own and not finding.remedy and all(done is None or effect(done) in effects for done in own):
            yield True
        else:
            real = attempted(finding.path, _real, image, finding.path)
            yield not taken.isdisjoint(upwards(str(real)))


# --- doing it -------------------------------------------------------------------------------------


def carry_out(
    planned: Plan, context: Context, *, before_histories: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Do each step, one at a time."""
    undone: set[str] = set()
    histories = next((step for step in planned.steps if step.rule.stage == HISTORIES), None)
    for step in (*planned.steps, None):
        if step is histories:  # without any, at the end
            before_histories()
        if step is None:
            return
        after = step.rule.after
        if step.waits or after in undone:
            detail = f"{step.change.path} stays while {after} has findings, which it helps to heal at boot"
            outcome = Outcome(step, LEFT, detail, Refusal(image_reasons.STILL_NEEDED, detail))
        else:
            done = attempted("the step", step.change.apply, context)
            why = done if isinstance(done, Refusal) else None
            outcome = Outcome(step, FAILED, why.detail, why) if why else Outcome(step, DONE, str(done))
        if outcome.result != DONE:
            undone.add(step.rule.id)
        yield outcome
