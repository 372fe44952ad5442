"""An audit as text for people: grouped by guideline, each finding with its remedy, one verdict at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from firstkey.colours import BLUE, BOLD, GREEN, PLAIN, RED, YELLOW, Coloured
from firstkey.display import DECIDE
from firstkey.image import rules
from firstkey.image.audit import KNOWN
from firstkey.image.verdict import ERROR, NOT_APPLICABLE, NOTE, PASS, UNKNOWN, WARNING
from firstkey.system import mounts

if TYPE_CHECKING:
    from firstkey.colours import Line
    from firstkey.image.audit import Audit, Entry, Result
    from firstkey.image.rule import Rule

MOST_SHOWN = 10
"""Findings of one rule that are shown unless all are asked for."""

_MARKS = {
    PASS: ("ok", GREEN),
    NOT_APPLICABLE: ("--", PLAIN),
    UNKNOWN: ("??", YELLOW),
    KNOWN: ("known", BLUE),
    ERROR: ("FAIL", RED),
    WARNING: ("warn", YELLOW),
    NOTE: ("note", BLUE),
}


def lines(
    done: Audit, *, everything: bool = False, quiet: bool = False, passing: bool = True
) -> Iterator[Line]:
    """The whole report, or without the rules that pass.

    `quiet`: only what is worse than a note, or unknown, and nothing if there is none.
    """
    shown = [result for result in done.results if not quiet or result.verdict.doubts or not result.is_fit]
    shown = [result for result in shown if passing or result.entries or result.verdict.doubts]
    if quiet and not shown and not done.unmatched:
        return
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in shown if result.rule.guideline == guideline]
        if results:
            yield ""
            yield Coloured(BOLD, title if guideline == "beyond" else f"{guideline}  {title}")
        for result in results:
            yield from _result(result, everything=everything, quiet=quiet)
    yield from _unmatched(done)
    yield ""
    yield from summary(done, quiet=quiet)


def heading(what: str, root: str, wanted: Sequence[Rule], profile: str | None = None) -> Line:
    """What is looked at, for the start: a large tree takes a while."""
    left_out = len(mounts.foreign(root))
    but = f"; left out: {_counted(left_out, 'mount')} from elsewhere" if left_out else ""
    by = f", profile {profile}" if profile else ""
    told = f": {_counted(len(wanted), 'rule')}{by}{but}"
    return Coloured(BOLD, f"{what} of {root}", after=told)


def _result(result: Result, *, everything: bool, quiet: bool) -> Iterator[Line]:
    entries = [entry for entry in result.entries if not (quiet and entry.is_harmless)]
    verdict = result.verdict
    mark, colour = _MARKS[UNKNOWN if quiet and not entries else result.kind]
    yield Coloured(
        colour, mark, before="  ", after=f"{' ' * (6 - len(mark))}{result.rule.title} [{result.rule.id}]"
    )
    if verdict.not_applicable and result.outcome == NOT_APPLICABLE:
        yield f"        does not apply: {verdict.not_applicable}"
    limit = len(entries) if everything else MOST_SHOWN
    for entry in entries[:limit]:
        yield from _entry(entry)
    if len(entries) > limit:
        yield f"        ... and {len(entries) - limit} more; -v and --json tell all"
    for doubt in verdict.doubts[: len(verdict.doubts) if everything else MOST_SHOWN]:
        yield f"        unknown: {doubt.refusal.detail} ({doubt.refusal.reason.code})"
        yield f"            {DECIDE}{doubt.refusal.reason.remedy}"
    if len(verdict.doubts) > MOST_SHOWN and not everything:
        yield f"        ... and {len(verdict.doubts) - MOST_SHOWN} more; -v and --json tell all"
    if verdict.remark:
        yield f"        {verdict.remark}"


def _entry(entry: Entry) -> Iterator[str]:
    finding = entry.finding
    line = f":{finding.line}" if finding.line else ""
    yield f"        {finding.path}{line}: {finding.reason}"
    if entry.known:
        yield f"            Known: {entry.known.reason} ({entry.known.owner})"
    else:
        yield f"            {entry.advice}"


def _unmatched(done: Audit) -> Iterator[str]:
    if done.unmatched:
        yield ""
        yield "In the baseline, and not found any more: remove these entries from it."
    for known in done.unmatched:
        yield f"  line {known.line}: {known.path} [{known.rule}], {known.reason} ({known.owner})"


def summary(done: Audit, *, quiet: bool = False) -> Iterator[Line]:
    """The verdict: on the image where all rules were asked, else on these rules alone."""
    whole = len(done.results) == len(rules.ALL)
    good = "Fit to share" if whole else "These rules pass"
    verdict, colour = (good, GREEN) if done.is_fit else ("NOT fit to share", RED)
    entries = [entry for result in done.results for entry in result.entries]
    kinds = [KNOWN if entry.known else entry.severity for entry in entries]
    counts = [_counted(kinds.count(severity), severity) for severity in (ERROR, WARNING, NOTE)]
    counts.append(f"{done.count(UNKNOWN)} unknown")
    counts += [f"{kinds.count(KNOWN)} known"] if KNOWN in kinds else []
    rest = f"{done.count(PASS)} rules pass, {done.count(NOT_APPLICABLE)} do not apply."
    files = f" {done.files:,} files were checked." if done.files is not None else ""
    told = ", ".join(counts)
    yield Coloured(colour, verdict, after=f": {told}." if quiet else f": {told}. {rest}{files}")
    if done.is_fit and whole and not quiet:
        yield "No list of guidelines is complete: think of what only you know is in the image."
    elif not done.is_fit:
        yield f"To repair what can be repaired: {done.results[0].seal} --dry-run"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing() -> Iterator[str]:
    """Every rule, for `--list`."""
    for rule in rules.ALL:
        yield f"{rule.guideline:7} {rule.severity:8} {rule.id:22} {rule.title}"
