"""An audit for people, as text and as a page: by guideline, each finding with its remedy, one verdict.

So is sealing, as text and as JSON: the plan, what became of its steps, and what the audit afterwards finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from firstkey import __version__
from firstkey.colours import BLUE, BOLD, GREEN, PLAIN, RED, YELLOW, Coloured, Line, plain
from firstkey.display import DECIDE
from firstkey.image import rules, seal
from firstkey.image.audit import KNOWN, Audit, Result, by_advice
from firstkey.image.door import WIPED
from firstkey.image.formats import as_json, path_json
from firstkey.image.rule import Rule
from firstkey.image.seal import Left, Outcome, Plan, Sealing, Step
from firstkey.image.verdict import ERROR, NOT_APPLICABLE, NOTE, PASS, UNKNOWN, WARNING
from firstkey.image_reasons import FOR_A_PERSON
from firstkey.reasons import Refusal
from firstkey.system import mounts
from firstkey.text import REMEDY, visible

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

OVERWRITING = """\
Files were overwritten where they are now. That is no promise that nothing is left of them: journals,
copy-on-write file systems, snapshots, RAID, flash disks and caches can keep older copies, and what was
removed without being overwritten stays in free blocks, which a snapshot of a volume takes along. A copy of
the files to a fresh volume has none of that."""
WAITS = "-wait-online"
"""In the name of a unit that holds network-online.target until there is a network, or two minutes."""
_COLOURS = {seal.DONE: GREEN, seal.FAILED: RED, seal.LEFT: YELLOW}


def lines(
    done: Audit, *, everything: bool = False, quiet: bool = False, passing: bool = True
) -> Iterator[Line]:
    """The whole report, or without the rules that pass.

    `quiet`: only what is worse than a note, or unknown, and nothing if there is none.
    """
    shown = [result for result in done.results if not quiet or result.verdict.unknowns or not result.is_fit]
    shown = [result for result in shown if passing or result.entries or result.verdict.unknowns]
    if quiet and not (shown or done.unmatched):
        return
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in shown if result.rule.guideline == guideline]
        if results:
            yield ""
            yield Coloured(BOLD, title if guideline == "beyond" else f"{guideline}  {title}")
        for result in results:
            yield from _result(result, everything=everything, quiet=quiet)
    if done.unmatched:
        yield ""
        yield "In the baseline, and not found any more: remove these entries from it."
    for known in done.unmatched:
        yield f"  line {known.line}: {known.path} [{known.rule}], {known.reason} ({known.owner})"
    yield ""
    yield from summary(done, quiet=quiet)


def heading(what: str, root: str, wanted: Sequence[Rule], profile: str | None = None) -> Line:
    """What is looked at, for the start: a large tree takes a while."""
    left_out, by = len(mounts.foreign(root)), f", profile {profile}" if profile else ""
    but = f"; left out: {_counted(left_out, 'mount')} from elsewhere" if left_out else ""
    return Coloured(BOLD, f"{what} of {root}", after=f": {_counted(len(wanted), 'rule')}{by}{but}")


def _result(result: Result, *, everything: bool, quiet: bool) -> Iterator[Line]:
    entries = [entry for entry in result.entries if not (quiet and entry.is_harmless)]
    verdict = result.verdict
    mark, colour = _MARKS[UNKNOWN if quiet and not entries else result.kind]
    yield Coloured(
        colour, mark, before="  ", after=f"{' ' * (6 - len(mark))}{result.rule.title} [{result.rule.id}]"
    )
    if verdict.not_applicable and result.outcome == NOT_APPLICABLE:
        yield f"        does not apply: {verdict.not_applicable}"
    most = len(entries) + len(verdict.unknowns) if everything else MOST_SHOWN
    for advice, alike in by_advice(entries[:most]).items():
        yield from (f"        {entry.place}: {entry.finding.reason}" for entry in alike)
        yield f"            {advice}"
    yield from _more(entries[most:])
    for unknown in verdict.unknowns[:most]:
        yield from _refusal(unknown.refusal, "        unknown: ", "            ")
    yield from _more(verdict.unknowns[most:])
    if verdict.remark:
        yield f"        {verdict.remark}"


def _more(left: Sequence[object]) -> Iterator[str]:
    if left:
        yield f"        ... and {len(left)} more; -v and --json list all"


def summary(done: Audit, *, quiet: bool = False) -> Iterator[Line]:
    """The verdict: on the image where all rules were asked, else on these rules alone."""
    whole = len(done.results) == len(rules.ALL)
    good = "Fit to share" if whole else "These rules pass"
    verdict, colour = (good, GREEN) if done.is_fit else ("NOT fit to share", RED)
    entries = [entry for result in done.results for entry in result.entries]
    kinds = Counter(KNOWN if entry.known else entry.severity for entry in entries)
    outcomes = Counter(result.outcome for result in done.results)
    counts = [_counted(kinds[severity], severity) for severity in (ERROR, WARNING, NOTE)]
    counts += [f"{outcomes[UNKNOWN]} unknown", *([f"{kinds[KNOWN]} known"] if kinds[KNOWN] else [])]
    rest = f" {outcomes[PASS]} rules pass, {outcomes[NOT_APPLICABLE]} do not apply."
    files = f" {done.files:,} files were checked." if done.files is not None else ""
    yield Coloured(colour, verdict, after=f": {', '.join(counts)}.{'' if quiet else rest + files}")
    if done.is_fit and whole and not quiet:
        yield "No list of guidelines is complete: think of what only you know is in the image."
    elif not done.is_fit:
        yield f"To repair what can be repaired: {done.results[0].seal} --dry-run"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- a page for a browser --------------------------------------------------------------------------

# It loads nothing, and has no script; its filters are a matter of style. What others wrote is text in it,
# whatever it looks like; the policy in its head lets no script and no other style in, should that fail.
KINDS = (ERROR, WARNING, NOTE, UNKNOWN, KNOWN, PASS, NOT_APPLICABLE)
STYLE = """
:root { color-scheme: light dark; --line: #8885; --error: #c62828; --warning: #b26a00; --note: #1565c0;
  --unknown: #6a1b9a; --known: #1565c0; --pass: #2e7d32; --not-applicable: #777; }
@media (prefers-color-scheme: dark) { :root { --error: #ef9a9a; --warning: #ffb74d; --note: #90caf9;
  --unknown: #ce93d8; --known: #90caf9; --pass: #a5d6a7; --not-applicable: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0; }
article { border: 1px solid var(--line); border-left: 4px solid var(--kind); border-radius: 4px;
  padding: .6rem 1rem; margin: .5rem 0; }
.kind { color: var(--kind); font-weight: bold; margin-right: .5em; }
.id { color: #777; font-weight: normal; }
li { margin: .5rem 0; overflow-wrap: anywhere; }
pre { margin: .2rem 0; padding: .4rem .6rem; background: #8882; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
fieldset { border: 1px solid var(--line); border-radius: 4px; }
label { margin-right: 1em; white-space: nowrap; }
""" + "".join(
    f".{kind} {{ --kind: var(--{kind}); }}\n"
    f"body:has(input.{kind}:not(:checked)) article.{kind} {{ display: none; }}\n"
    for kind in KINDS
)


def as_html(done: Audit) -> str:
    """The page. In ASCII, so that any encoding of a file will do."""
    return "".join(f"{line}\n" for line in _html(done)).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _html(done: Audit) -> Iterator[str]:
    import hashlib
    from base64 import b64encode

    # What the policy calls this very text (CSP level 3: hash-source).
    style = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Audit of {_text(done.root)}</title>\n<style>{STYLE}</style>\n</head>"
    yield f"<body>\n<h1>Audit of <code>{_text(done.root)}</code></h1>"
    words = _text(plain(next(summary(done))))
    yield f'<p class="verdict {PASS if done.is_fit else ERROR}"><span class="kind">{words}</span></p>'
    yield f"<p>Profile {_text(done.profile)}, firstkey {__version__}.</p>"
    yield "<fieldset>\n<legend>Rules shown</legend>"
    numbers = Counter(result.kind for result in done.results)
    for kind in filter(numbers.get, KINDS):
        box = f'<input type="checkbox" class="{kind}" checked>'
        yield f'<label class="{kind}">{box} {kind} ({numbers[kind]})</label>'
    yield "</fieldset>"
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in done.results if result.rule.guideline == guideline]
        if results:
            yield f"<h2>{_text(title if guideline == 'beyond' else f'{guideline}: {title}')}</h2>"
        for result in results:
            yield from _article(result)
    if done.unmatched:
        yield "<h2>In the baseline, and not found any more</h2>\n<ul>"
        for known in done.unmatched:
            words = f"{_text(known.reason)} ({_text(known.owner)})"
            yield f"<li>Line {known.line}: <code>{_text(known.path)}</code>, {known.rule}: {words}</li>"
        yield "</ul>"
    yield "</body>\n</html>"


def _article(result: Result) -> Iterator[str]:
    rule, verdict = result.rule, result.verdict
    yield f'<article class="{result.kind}" id="{rule.id}">'
    name = f'{_text(rule.title)} <span class="id">{rule.id}</span>'
    yield f'<h3><span class="kind">{result.kind}</span>{name}</h3>'
    if result.kind == NOT_APPLICABLE:
        yield f"<p>Does not apply: {_text(verdict.not_applicable or '')}.</p>"
    for advice, alike in by_advice(result.entries).items():
        command = next((entry.command for entry in alike if not entry.known), "")
        repair = f"{REMEDY}<pre>{_text(command)}</pre>" if command else _text(advice)
        yield "<ul>"
        for severity, finding in ((entry.severity, entry.finding) for entry in alike):
            line = f", line {finding.line}" if finding.line else ""
            yield f"<li>{severity}: <code>{_text(finding.path)}</code>{line}: {_text(finding.reason)}</li>"
        yield f"<li>{repair}</li>\n</ul>"
    for unknown in verdict.unknowns:
        detail, reason = _text(unknown.refusal.detail), unknown.refusal.reason
        yield f"<p>Unknown: <code>{_text(unknown.path)}</code>: {detail} ({reason.code})"
        yield f"<br>{DECIDE}{_text(reason.remedy)}</p>"
    if verdict.remark:
        yield f"<p>{_text(verdict.remark)}</p>"
    yield f"<details><summary>Why, and what seal does</summary><p>{_text(rule.prose)}</p></details>"
    yield "</article>"


def _text(text: str) -> str:
    return escape(visible(text))


# --- sealing --------------------------------------------------------------------------------------


def plan(planned: Plan, *, diffs: bool) -> Iterator[str]:
    """What is to be done, in order, and what is not; with `diffs`, what becomes of each file."""
    is_clean = not (planned.steps or planned.left or planned.stays)
    nothing = "; there is nothing to do." if is_clean else "; what is left is for a person."
    yield f"Plan: {_counted(len(planned.steps), 'step')}{':' if planned.steps else nothing}"
    rule = None
    for step in planned.steps:
        if step.rule is not rule:
            rule = step.rule
            yield f"  {rule.title} [{rule.id}]"
        first, *others = step.change.describe().removesuffix("\n").split("\n")
        yield f"    - {first}"
        yield from (f"        {line}" for line in others if diffs)
    # What is for a person stands below, finding by finding.
    left = tuple(entry for entry in planned.left if entry.refusal.reason is not FOR_A_PERSON)
    yield from _left("Left as it is:", left)
    if planned.stays:
        yield "Will still be found afterwards; firstkey audit says what a person can do about it:"
    for match in planned.stays:
        yield f"  {visible(match.path)}: {match.reason} [{match.rule.id}]"
    if planned.starts:
        yield "The first boot will turn on by preset (mask what the image shall not start):"
    for unit in planned.starts:
        yield f"  {visible(unit)}{', which holds what waits for a network' if WAITS in unit else ''}"


def _left(title: str, left: tuple[Left, ...]) -> Iterator[str]:
    if left:
        yield title
    for entry in left:
        yield f"  {entry.rule.title} [{entry.rule.id}]"
        yield from _refusal(entry.refusal, "      ", "      ")


def _refusal(refusal: Refusal, before: str, indent: str) -> Iterator[str]:
    yield f"{before}{refusal.detail} ({refusal.reason.code})"
    yield f"{indent}{DECIDE}{refusal.reason.remedy}"


def outcome(done: Outcome) -> Iterator[Line]:
    """What became of one step."""
    detail = "" if done.refusal else f": {done.detail}"
    first = done.step.change.describe().partition("\n")[0]
    yield Coloured(_COLOURS[done.result], f"{done.result:6}", before="  ", after=f"  {first}{detail}")
    if done.refusal:
        yield from _refusal(done.refusal, "        ", "        ")


def sealing(done: Sealing, *, everything: bool, quiet: bool) -> Iterator[Line]:
    """How it ended, what overwriting cannot promise where there was any, and the audit against the plan."""
    yield ""
    if any(outcome.detail == WIPED for outcome in done.outcomes):
        yield from (*OVERWRITING.split("\n"), "")
    if done.unpredicted:
        yield from (*_left("Not as predicted:", done.unpredicted), "")
    results = Counter(outcome.result for outcome in done.outcomes)
    rest = f"{results[seal.FAILED]} failed, {results[seal.LEFT]} left"
    yield f"{_counted(results[seal.DONE], 'step')} done, {rest}."
    before = Counter(match.rule.id for match in done.plan.found)
    gone = [
        (rule, number)
        for rule, verdict, *_ in done.after.results
        if (number := before[rule.id] - len(verdict.findings)) > 0
    ]
    yield f"The rules were asked again.{' Gone since:' if gone else ''}"
    for rule, number in gone:
        counted = f"   {rule.title} [{rule.id}]: {number} of {before[rule.id]}"
        yield Coloured(GREEN, "gone", before="  ", after=counted)
    yield from lines(done.after, everything=everything, quiet=quiet, passing=False)


def one_line(done: Sealing) -> str:
    """The same for the journal."""
    results = Counter(outcome.result for outcome in done.outcomes)
    fit = "fit to share" if done.is_fit else "not fit to share"
    return f"{_counted(results[seal.DONE], 'step')} done, {results[seal.FAILED]} failed; {fit}"


# --- for programs ---------------------------------------------------------------------------------


def plan_json(planned: Plan) -> dict[str, Any]:
    """What `seal --dry-run --json` prints."""
    return {
        "version": 1,
        "dry_run": True,
        "steps": [_step_json(step) for step in planned.steps],
        "left": [_left_json(entry) for entry in planned.left],
        "stays": [{"rule": match.rule.id, **path_json(match.path)} for match in planned.stays],
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
        "left": [_left_json(entry) for entry in done.plan.left],
        "unpredicted": [_left_json(entry) for entry in done.unpredicted],
        "audit": as_json(done.after),
    }


def _step_json(step: Step) -> dict[str, Any]:
    first, _, diff = step.change.describe().partition("\n")
    return {"rule": step.rule.id, **path_json(step.change.path), "change": first, "diff": diff}


def _left_json(entry: Left) -> dict[str, Any]:
    why = entry.refusal
    return {"rule": entry.rule.id, "reason": why.reason.code, "detail": visible(why.detail)}
