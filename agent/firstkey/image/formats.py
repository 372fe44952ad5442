"""An audit for programs: JSON (docs/audit.schema.json), SARIF 2.1.0, and a list of what not to bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from firstkey import __version__
from firstkey.errors import FirstkeyError
from firstkey.image import rules
from firstkey.image.changes import Empty, Remove
from firstkey.image.rules.host_keys import RemoveHostKey
from firstkey.image.verdict import NOTE, WARNING
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.audit import Audit, Result
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image
    from firstkey.image.verdict import Doubt, Finding

VERSION = 1
_LEVELS = {WARNING: "warning", NOTE: "note"}

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
BASE = "ROOT"


# --- JSON -----------------------------------------------------------------------------------------


def as_json(done: Audit) -> dict[str, Any]:
    """The published form: fields may be added, never removed or renamed."""
    return {
        "version": VERSION,
        "root": visible(done.root),
        "fit": done.is_fit,
        "files": done.files,
        "rules": [_result_json(result) for result in done.results],
    }


def _result_json(result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "id": result.rule.id,
        "title": result.rule.title,
        "guideline": result.rule.guideline,
        "severity": result.rule.severity,
        "outcome": result.outcome,
        "fit": result.is_fit,
        "not_applicable": verdict.not_applicable and visible(verdict.not_applicable),
        "remark": visible(verdict.remark) or None,
        "findings": [_finding_json(finding, result) for finding in verdict.findings],
        "unknown": [_doubt_json(doubt) for doubt in verdict.doubts],
    }


def _finding_json(finding: Finding, result: Result) -> dict[str, Any]:
    return {
        **path_json(finding.path),
        "line": finding.line,
        "severity": result.severity_of(finding),
        "reason": visible(finding.reason),
        "remedy": visible(finding.remedy),
    }


def _doubt_json(doubt: Doubt) -> dict[str, Any]:
    return {
        **path_json(doubt.path),
        "reason": doubt.refusal.reason.code,
        "detail": visible(doubt.refusal.detail),
        "remedy": doubt.refusal.reason.remedy,
    }


def path_json(path: str) -> dict[str, Any]:
    """The path as text; a name that is no UTF-8 has its very bytes beside it."""
    plain: dict[str, Any] = {"path": visible(path)}
    if not path.isprintable():
        import base64

        plain["path_base64"] = base64.b64encode(os.fsencode(path)).decode()
    return plain


# --- SARIF ----------------------------------------------------------------------------------------


def as_sarif(done: Audit) -> dict[str, Any]:
    """One run (OASIS SARIF 2.1.0), as code-scanning tools take it."""
    index = {rule.id: number for number, rule in enumerate(rules.ALL)}
    driver = {
        "name": "firstkey",
        "semanticVersion": __version__,
        "rules": [_sarif_rule(rule) for rule in rules.ALL],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {BASE: {"uri": f"file://{_uri(done.root.rstrip('/'))}/"}},
        "invocations": [{"executionSuccessful": True}],
        "results": [entry for result in done.results for entry in _sarif_results(result, index)],
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.prose},
        "help": {"text": f"{rule.prose} To mend it: firstkey seal --rule {rule.id}"},
        "defaultConfiguration": {"level": _LEVELS.get(rule.severity, "error")},
        "properties": {"tags": ["security", rule.guideline]},
    }


def _sarif_results(result: Result, index: dict[str, int]) -> Iterator[dict[str, Any]]:
    which = {"ruleId": result.rule.id, "ruleIndex": index[result.rule.id]}
    for finding in result.verdict.findings:
        yield {
            **which,
            "kind": "fail",
            "level": _LEVELS.get(result.severity_of(finding), "error"),
            "message": {"text": visible(f"{finding.reason} What to do: {finding.remedy}")},
            "locations": [_location(finding.path, finding.line)],
        }
    for doubt in result.verdict.doubts:
        # 3.27.9: "open" is what could not be decided for want of information.
        yield {
            **which,
            "kind": "open",
            "level": "none",
            "message": {"text": f"Unknown: {visible(doubt.refusal.detail)} ({doubt.refusal.reason.code})"},
            "locations": [_location(doubt.path, None)],
        }


def _location(path: str, line: int | None) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(path.lstrip("/")) or ".", "uriBaseId": BASE}}
    if line is not None:
        place["region"] = {"startLine": line}
    return {"physicalLocation": place}


def _uri(path: str) -> str:
    """Percent-encoded, byte for byte (RFC 3986)."""
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(os.fsencode(path))


# --- what not to bundle ---------------------------------------------------------------------------


def exclude_list(image: Image, wanted: list[Rule]) -> list[str]:
    """What bundling tools should leave out: all that seal would remove or empty, and every home's .ssh."""
    paths = {path for rule in wanted for path in _removed(rule, image)}
    paths.update(path for home in image.homes for path in [home.join(".ssh")] if image.is_directory(path))
    kept: list[str] = []
    for path in sorted(map(_on_one_line, paths)):
        if not (kept and (path == kept[-1] or path.startswith(f"{kept[-1]}/"))):
            kept.append(path)
    return kept


def _removed(rule: Rule, image: Image) -> list[str]:
    try:
        return [
            change.path for change in rule.remedy(image) if isinstance(change, (Remove, Empty, RemoveHostKey))
        ]
    except FirstkeyError:
        return []


def _on_one_line(path: str) -> str:
    """A list with a path a line has no way to say a name with a line in it; its directory is said instead."""
    return path.partition("\n")[0].rpartition("/")[0] if "\n" in path else path
