"""An audit as text for people: grouped by guideline, each finding with its remedy, one verdict at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.colours import BLUE, BOLD, GREEN, PLAIN, RED, YELLOW, Coloured
from firstkey.image import rules
from firstkey.image.changes import quoted
from firstkey.image.verdict import ERROR, FINDING, NOT_APPLICABLE, NOTE, PASS, UNKNOWN, WARNING
from firstkey.text import REMEDY

if TYPE_CHECKING:
    from firstkey.colours import Line
    from firstkey.image.audit import Audit, Result
    from firstkey.image.verdict import Finding

MOST_SHOWN = 10
"""Findings of one rule that are shown unless all are asked for."""

_MARKS = {
    PASS: ("ok  ", GREEN),
    NOT_APPLICABLE: ("--  ", PLAIN),
    UNKNOWN: ("??  ", YELLOW),
    ERROR: ("FAIL", RED),
    WARNING: ("warn", YELLOW),
    NOTE: ("note", BLUE),
}


def lines(done: Audit, *, everything: bool = False, quiet: bool = False) -> Iterator[Line]:
    """The whole report; `quiet`: only what is worse than a note, or unknown, and nothing if there is none."""
    whole = len(done.results) == len(rules.ALL)
    if quiet:
        loud = map(_without_notes, done.results)
        done = done._replace(results=tuple(each for each in loud if each.outcome in (FINDING, UNKNOWN)))
        if not done.results:
            return
    yield Coloured(BOLD, f"Audit of {done.root}")
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in done.results if result.rule.guideline == guideline]
        if results:
            yield ""
            yield Coloured(BOLD, title if guideline == "beyond" else f"{guideline}  {title}")
        for result in results:
            yield from _result(result, everything=everything)
    yield ""
    yield from _summary(done, whole=whole, quiet=quiet)


def _without_notes(result: Result) -> Result:
    findings = tuple(each for each in result.verdict.findings if result.severity_of(each) != NOTE)
    return result._replace(verdict=result.verdict._replace(findings=findings))


def _result(result: Result, *, everything: bool) -> Iterator[Line]:
    kind = _worst(result) if result.outcome == FINDING else result.outcome
    mark, colour = _MARKS[kind]
    verdict = result.verdict
    yield Coloured(colour, mark, before="  ", after=f"  {result.rule.title} [{result.rule.id}]")
    if verdict.not_applicable and result.outcome == NOT_APPLICABLE:
        yield f"        does not apply: {verdict.not_applicable}"
    limit = len(verdict.findings) if everything else MOST_SHOWN
    for finding in verdict.findings[:limit]:
        yield from _finding(finding)
    if len(verdict.findings) > limit:
        yield f"        ... and {len(verdict.findings) - limit} more; -v and --json tell all"
    for doubt in verdict.doubts[: len(verdict.doubts) if everything else MOST_SHOWN]:
        yield f"        unknown: {doubt.refusal.detail} ({doubt.refusal.reason.code})"
        yield f"            {REMEDY}{doubt.refusal.reason.remedy}"
    if len(verdict.doubts) > MOST_SHOWN and not everything:
        yield f"        ... and {len(verdict.doubts) - MOST_SHOWN} more; -v and --json tell all"
    if verdict.remark:
        yield f"        {verdict.remark}"


def _worst(result: Result) -> str:
    severities = [result.severity_of(finding) for finding in result.verdict.findings]
    return next(severity for severity in (ERROR, WARNING, NOTE) if severity in severities)


def _finding(finding: Finding) -> Iterator[str]:
    line = f":{finding.line}" if finding.line else ""
    yield f"        {finding.path}{line}: {finding.reason}"
    yield f"            {REMEDY}{finding.remedy}"


def _summary(done: Audit, *, whole: bool, quiet: bool) -> Iterator[Line]:
    """`whole`: all rules were asked, so that the verdict is on the image and not on these rules alone."""
    good = "Fit to share" if whole else "These rules pass"
    verdict, colour = (good, GREEN) if done.is_fit else ("NOT fit to share", RED)
    counts = [_counted(_findings(done, severity), severity) for severity in (ERROR, WARNING, NOTE)]
    counts.append(f"{done.count(UNKNOWN)} unknown")
    rest = f"{done.count(PASS)} rules pass, {done.count(NOT_APPLICABLE)} do not apply."
    files = f" {done.files:,} files were looked at." if done.files is not None else ""
    told = ", ".join(counts)
    yield Coloured(colour, verdict, after=f": {told}." if quiet else f": {told}. {rest}{files}")
    if done.is_fit and whole and not quiet:
        yield "No list of guidelines is complete: think of what only you know is in the image."
    elif not done.is_fit:
        yield f"To repair what can be repaired: firstkey seal{_root(done.root)} --dry-run"


def _root(root: str) -> str:
    return "" if root == "/" else f" --root {quoted(root)}"


def _findings(done: Audit, severity: str) -> int:
    return sum(
        result.severity_of(finding) == severity
        for result in done.results
        for finding in result.verdict.findings
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing() -> Iterator[str]:
    """Every rule, for `--list`."""
    for rule in rules.ALL:
        yield f"{rule.guideline:7} {rule.severity:8} {rule.id:22} {rule.title}"
