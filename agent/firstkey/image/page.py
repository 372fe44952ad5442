"""An audit as one page for a browser: it loads nothing, and can be read without its script.

What others wrote is text in it, whatever it looks like; the policy in its head lets no other script or style
in, should that fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from firstkey import __version__
from firstkey.display import DECIDE
from firstkey.image import rules
from firstkey.image.audit import KNOWN
from firstkey.image.verdict import ERROR, NOT_APPLICABLE, NOTE, PASS, UNKNOWN, WARNING
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.audit import Audit, Entry, Result

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
article[hidden] { display: none; }
.kind { color: var(--kind); font-weight: bold; margin-right: .5em; }
.id { color: #777; font-weight: normal; }
li { margin: .5rem 0; overflow-wrap: anywhere; }
pre { margin: .2rem 0; padding: .4rem .6rem; background: #8882; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
fieldset { border: 1px solid var(--line); border-radius: 4px; }
label { margin-right: 1em; white-space: nowrap; }
""" + "".join(f".{kind} {{ --kind: var(--{kind}); }}\n" for kind in KINDS)
SCRIPT = """
const filters = document.querySelector("fieldset");
filters.hidden = false;
filters.addEventListener("change", () => {
  const wanted = new Set([...filters.querySelectorAll("input:checked")].map(box => box.value));
  for (const rule of document.querySelectorAll("article")) rule.hidden = !wanted.has(rule.dataset.kind);
});
"""


def as_html(done: Audit, summary: str) -> str:
    """The page; `summary` is the verdict in words. In ASCII, so that any encoding of a file will do."""
    lines = "\n".join((*_head(done), *_body(done, summary)))
    return f"{lines}\n".encode("ascii", "xmlcharrefreplace").decode("ascii")


def _head(done: Audit) -> Iterator[str]:
    policy = (
        f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Audit of {_text(done.root)}</title>"
    yield f"<style>{STYLE}</style>\n</head>"


def _source(text: str) -> str:
    """What the policy calls this very text (CSP level 3: hash-source)."""
    import hashlib
    from base64 import b64encode

    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _body(done: Audit, summary: str) -> Iterator[str]:
    kind = PASS if done.is_fit else ERROR
    yield f"<body>\n<h1>Audit of <code>{_text(done.root)}</code></h1>"
    yield f'<p class="verdict {kind}"><span class="kind">{_text(summary)}</span></p>'
    yield f"<p>Profile {_text(done.profile)}, firstkey {__version__}.</p>"
    yield from _filters(done)
    for guideline, title in rules.GUIDELINES.items():
        results = [result for result in done.results if result.rule.guideline == guideline]
        if results:
            yield f"<h2>{_text(title if guideline == 'beyond' else f'{guideline}: {title}')}</h2>"
        for result in results:
            yield from _result(result)
    yield from _unmatched(done)
    yield f"<script>{SCRIPT}</script>\n</body>\n</html>"


def _filters(done: Audit) -> Iterator[str]:
    """Hidden until the script, which they are for, is there."""
    counts = {kind: sum(result.kind == kind for result in done.results) for kind in KINDS}
    yield "<fieldset hidden>\n<legend>Rules shown</legend>"
    for kind, number in counts.items():
        if number:
            box = f'<input type="checkbox" value="{kind}" checked>'
            yield f'<label class="{kind}">{box} {kind} ({number})</label>'
    yield "</fieldset>"


def _result(result: Result) -> Iterator[str]:
    rule, verdict = result.rule, result.verdict
    yield f'<article class="{result.kind}" data-kind="{result.kind}" id="{rule.id}">'
    name = f'{_text(rule.title)} <span class="id">{rule.id}</span>'
    yield f'<h3><span class="kind">{result.kind}</span>{name}</h3>'
    if result.kind == NOT_APPLICABLE:
        yield f"<p>Does not apply: {_text(verdict.not_applicable or '')}.</p>"
    if result.entries or verdict.doubts:
        yield "<ul>"
    for entry in result.entries:
        yield _entry(entry)
    for doubt in verdict.doubts:
        detail, reason = _text(doubt.refusal.detail), doubt.refusal.reason
        yield f"<li>Unknown: <code>{_text(doubt.path)}</code>: {detail} ({reason.code})"
        yield f"<br>{DECIDE}{_text(reason.remedy)}</li>"
    if result.entries or verdict.doubts:
        yield "</ul>"
    if verdict.remark:
        yield f"<p>{_text(verdict.remark)}</p>"
    yield f"<details><summary>Why, and what seal does</summary><p>{_text(rule.prose)}</p></details>"
    yield "</article>"


def _entry(entry: Entry) -> str:
    finding, known = entry.finding, entry.known
    line = f", line {finding.line}" if finding.line else ""
    said = f"<li>{entry.severity}: <code>{_text(finding.path)}</code>{line}: {_text(finding.reason)}"
    if known:
        return f"{said}<br>Known: {_text(known.reason)} ({_text(known.owner)})</li>"
    if entry.command:
        return f"{said}<br>What to do:<pre>{_text(entry.command)}</pre></li>"
    return f"{said}<br>{_text(entry.advice)}</li>"


def _unmatched(done: Audit) -> Iterator[str]:
    if done.unmatched:
        yield "<h2>In the baseline, and not found any more</h2>\n<ul>"
        for known in done.unmatched:
            words = f"{_text(known.reason)} ({_text(known.owner)})"
            yield f"<li>Line {known.line}: <code>{_text(known.path)}</code>, {known.rule}: {words}</li>"
        yield "</ul>"


def _text(text: str) -> str:
    return escape(visible(text))
