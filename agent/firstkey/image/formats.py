"""An audit for programs: JSON (docs/audit.schema.json), SARIF 2.1.0, and a list of what not to bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from firstkey import __version__
from firstkey.errors import FirstkeyError
from firstkey.image import rules
from firstkey.image.changes import Empty, Remove, RemoveHostKey
from firstkey.image.verdict import NOTE, WARNING
from firstkey.named_tuple import NamedTuple
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


class ExcludeList(NamedTuple):
    """Patterns, one a line, and sentences on what they leave out too much or too little."""

    patterns: tuple[bytes, ...]
    doubts: tuple[str, ...]


def exclude_list(image: Image, wanted: list[Rule]) -> ExcludeList:
    """What bundling tools should leave out: all that seal would remove or empty, and every home's .ssh."""
    doubts: list[str] = []
    paths = {path for rule in wanted for path in _removed(rule, image, doubts)}
    paths.update(path for home in image.homes for path in [home.join(".ssh")] if image.is_directory(path))
    kept = sorted(path for path in paths if not any(above in paths for above in _above(path)))
    for path in kept:
        twins = (twin for twin in _twins(image, path) if twin not in paths)
        doubts += [f"{twin} is left out too: no list can tell it from {path}" for twin in twins]
    return ExcludeList(tuple(map(_pattern, kept)), tuple(doubts))


def _removed(rule: Rule, image: Image, doubts: list[str]) -> list[str]:
    try:
        return [
            change.path for change in rule.remedy(image) if isinstance(change, (Remove, Empty, RemoveHostKey))
        ]
    except FirstkeyError as error:
        doubts.append(f"nothing is left out for {rule.id}: {error.message} ({error.reason.code})")
        return []


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _twins(image: Image, path: str) -> Iterator[str]:
    """Other paths that the pattern of this one fits: in it, a control character stands for any other."""
    for place in (path, *_above(path)):
        directory, name = os.path.split(place)
        if any(char < " " or char == "\x7f" for char in name):
            pattern = _pattern(name)
            names = (each for each in image.tree.names(directory) if each != name)
            yield from (os.path.join(directory, each) for each in names if _pattern(each) == pattern)


_CONTROL = b"[[:cntrl:]]"
_COMMA = b"[^][:alnum:][:space:][:cntrl:]!\"#$%&'()*+./:;<=>?@[\\\\^_`{|}~-]"
"""All that it is not: the bundling tools of EC2 take lists with commas between the patterns."""


def _pattern(path: str) -> bytes:
    """What fits this path alone, byte for byte, to tar (--exclude-from, wildcards as by default) and rsync.

    Both take patterns of glob(7). A character in brackets means the same to both, which a backslash before
    it does not (to rsync it is itself where there is no wildcard). tar cuts blanks off the end of a line.
    """
    raw = os.fsencode(path)
    return b"".join(map(_quoted, raw[:-1])) + (b"[ ]" if raw.endswith(b" ") else _quoted(*raw[-1:]))


def _quoted(byte: int) -> bytes:
    char = bytes([byte])
    if byte < 32 or byte == 127:
        return _CONTROL
    if char == b",":
        return _COMMA
    return b"[\\\\]" if char == b"\\" else b"[%s]" % char if char in b"*?[" else char
