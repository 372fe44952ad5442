"""An audit as text for people: grouped by guideline, each finding with its remedy, one verdict at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from firstkey.events import visibly
from firstkey.image import rules
from firstkey.image.changes import shown
from firstkey.image.verdict import ERROR, FINDING, NOT_APPLICABLE, NOTE, PASS, UNKNOWN, WARNING

if TYPE_CHECKING:
    from firstkey.image.audit import Audit, Result
    from firstkey.image.verdict import Finding

MOST_SHOWN = 10
"""Findings of one rule that are shown unless all are asked for."""

RED, YELLOW, GREEN, BLUE, BOLD, PLAIN = "31", "33", "32", "36", "1", ""
_MARKS = {
    PASS: ("ok  ", GREEN),
    NOT_APPLICABLE: ("--  ", PLAIN),
    UNKNOWN: ("??  ", YELLOW),
    ERROR: ("FAIL", RED),
    WARNING: ("warn", YELLOW),
    NOTE: ("note", BLUE),
}


class Painter:
    """Colours, or none (no-color.org)."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def paint(self, text: str, colour: str) -> str:
        """The text in that colour (ECMA-48, SGR)."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour else text


def text(done: Audit, *, colours: bool = False, everything: bool = False) -> str:
    """The whole report."""
    painter = Painter(colours=colours)
    return "".join(f"{line}\n" for line in _lines(done, painter, everything=everything))


def _lines(done: Audit, painter: Painter, *, everything: bool) -> Iterator[str]:
    yield painter.paint(f"Audit of {shown(done.root)}", BOLD)
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in done.results if result.rule.guideline == guideline]
        if results:
            yield ""
            name = title if guideline == "beyond" else f"{guideline}  {title}"
            yield painter.paint(name, BOLD)
        for result in results:
            yield from _result(result, painter, everything=everything)
    yield ""
    yield from _summary(done, painter)


def _result(result: Result, painter: Painter, *, everything: bool) -> Iterator[str]:
    kind = _worst(result) if result.outcome == FINDING else result.outcome
    mark, colour = _MARKS[kind]
    verdict = result.verdict
    yield f"  {painter.paint(mark, colour)}  {result.rule.title} [{result.rule.id}]"
    if verdict.not_applicable and result.outcome == NOT_APPLICABLE:
        yield f"        does not apply: {visibly(verdict.not_applicable)}"
    limit = len(verdict.findings) if everything else MOST_SHOWN
    for finding in verdict.findings[:limit]:
        yield from _finding(finding)
    if len(verdict.findings) > limit:
        yield f"        ... and {len(verdict.findings) - limit} more; -v and --json tell all"
    for doubt in verdict.doubts[: len(verdict.doubts) if everything else MOST_SHOWN]:
        yield f"        unknown: {visibly(doubt.refusal.detail)} ({doubt.refusal.reason.code})"
        yield f"            What to do: {doubt.refusal.reason.remedy}"
    if len(verdict.doubts) > MOST_SHOWN and not everything:
        yield f"        ... and {len(verdict.doubts) - MOST_SHOWN} more; -v and --json tell all"
    if verdict.remark:
        yield f"        {visibly(verdict.remark)}"


def _worst(result: Result) -> str:
    severities = [result.severity_of(finding) for finding in result.verdict.findings]
    return next(severity for severity in (ERROR, WARNING, NOTE) if severity in severities)


def _finding(finding: Finding) -> Iterator[str]:
    line = f":{finding.line}" if finding.line else ""
    yield f"        {shown(finding.path)}{line}: {visibly(finding.reason)}"
    yield f"            What to do: {visibly(finding.remedy)}"


def _summary(done: Audit, painter: Painter) -> Iterator[str]:
    counts = [_counted(_findings(done, severity), severity) for severity in (ERROR, WARNING, NOTE)]
    counts.append(f"{done.count(UNKNOWN)} unknown")
    rest = f"{done.count(PASS)} rules pass, {done.count(NOT_APPLICABLE)} do not apply."
    files = f" {done.files:,} files were looked at." if done.files is not None else ""
    verdict, colour = ("Fit to share", GREEN) if done.is_fit else ("NOT fit to share", RED)
    yield f"{painter.paint(verdict, colour)}: {', '.join(counts)}. {rest}{files}"
    if done.is_fit:
        yield "No list of guidelines is complete: think of what only you know is in the image."
    else:
        yield f"To mend what can be mended: firstkey seal{_root(done.root)} --dry-run"


def _root(root: str) -> str:
    return "" if root == "/" else f" --root {shown(root)}"


def _findings(done: Audit, severity: str) -> int:
    return sum(
        result.severity_of(finding) == severity
        for result in done.results
        for finding in result.verdict.findings
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listing() -> str:
    """Every rule, for `--list`."""
    rows: Sequence[tuple[str, str, str, str]] = [
        (rule.guideline, rule.severity, rule.id, rule.title) for rule in rules.ALL
    ]
    return "".join(
        f"{guideline:7} {severity:8} {name:22} {title}\n" for guideline, severity, name, title in rows
    )
