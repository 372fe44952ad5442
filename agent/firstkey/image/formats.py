"""An audit for programs: JSON (docs/audit.schema.json), SARIF, JUnit XML, what not to bundle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, __version__
from firstkey.image import baseline, rules
from firstkey.image.changes import Empty, Remove
from firstkey.image.verdict import ERROR, NOT_APPLICABLE, NOTE, WARNING
from firstkey.reasons import FirstkeyError
from firstkey.text import visible

if TYPE_CHECKING:
    from firstkey.image.audit import Audit, Entry, Result
    from firstkey.image.baseline import Known
    from firstkey.image.rule import Rule
    from firstkey.image.subject import Image
    from firstkey.image.verdict import Doubt

HOME = "https://firstkey.example"
VERSION = 1
_LEVELS = {WARNING: "warning", NOTE: "note"}
# As code scanning reads them: from 7.0 high, from 4.0 medium.
_SCORES = {ERROR: "8.0", WARNING: "5.0", NOTE: "2.0"}

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
BASE = "ROOT"


# --- JSON -----------------------------------------------------------------------------------------


def as_json(done: Audit) -> dict[str, Any]:
    """The published form: fields may be added, never removed or renamed."""
    return {
        "version": VERSION,
        "root": visible(done.root),
        "profile": done.profile,
        "fit": done.is_fit,
        "files": done.files,
        "rules": [_result_json(result) for result in done.results],
        "unmatched": list(map(known_json, done.unmatched)),
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
        "findings": [_finding_json(entry) for entry in result.entries],
        "unknown": [_doubt_json(doubt) for doubt in verdict.doubts],
    }


def _finding_json(entry: Entry) -> dict[str, Any]:
    finding, known = entry.finding, entry.known
    return {
        **path_json(finding.path),
        "line": finding.line,
        "severity": entry.severity,
        "reason": visible(finding.reason),
        "remedy": visible(entry.remedy),
        "is_command": bool(entry.command),
        "fingerprint": entry.fingerprint,
        "known": {"reason": visible(known.reason), "owner": visible(known.owner)} if known else None,
    }


def known_json(known: Known) -> dict[str, Any]:
    """An entry of the baseline that fits no finding any more."""
    return {**{field: visible(getattr(known, field)) for field in baseline.FIELDS}, "line": known.line}


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
    """One run (OASIS SARIF 2.1.0), with what code-scanning tools ask for besides."""
    described = rules.of(done.profile)
    index = {rule.id: number for number, rule in enumerate(described)}
    driver = {
        "name": "firstkey",
        "informationUri": HOME,
        "semanticVersion": __version__,
        "rules": [_sarif_rule(rule) for rule in described],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": f"firstkey-audit/{done.profile}/"},
        "originalUriBaseIds": {BASE: {"uri": f"file://{_uri(done.root.rstrip('/'))}/"}},
        "invocations": [{"executionSuccessful": True}],
        "results": [entry for result in done.results for entry in _sarif_results(result, index)],
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    repair = f"To repair it: firstkey seal {rule.chosen}"
    if rule.by_hand:
        repair = "seal does not repair it: each finding says what to do."
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.prose},
        "help": {"text": f"{rule.prose} {repair}"},
        "helpUri": page_of(rule),
        "defaultConfiguration": {"level": _LEVELS.get(rule.severity, "error")},
        "properties": {
            "tags": ["security", rule.guideline],
            "precision": "high",
            "security-severity": _SCORES[rule.severity],
        },
    }


def page_of(rule: Rule) -> str:
    """Where the documentation has the rule: below a heading that is its title."""
    words = "".join(char for char in rule.title.lower() if char.isalnum() or char in " -_")
    return f"{HOME}/docs/guidelines.md#{words.replace(' ', '-')}"


def _sarif_results(result: Result, index: dict[str, int]) -> Iterator[dict[str, Any]]:
    which = {"ruleId": result.rule.id, "ruleIndex": index[result.rule.id]}
    for entry in result.entries:
        finding, known = entry.finding, entry.known
        accepted = {"kind": "external", "status": "accepted", "justification": known and _accepted(known)}
        yield {
            **which,
            "kind": "fail",
            "level": _LEVELS.get(entry.severity, "error"),
            "message": {"text": visible(f"{finding.reason} {entry.advice}")},
            "locations": [_location(finding.path, finding.line)],
            "partialFingerprints": _fingerprints(entry.fingerprint),
            **({"suppressions": [accepted]} if known else {}),
        }
    for doubt in result.verdict.doubts:
        code = doubt.refusal.reason.code
        # 3.27.9: "open" is what could not be decided for want of information.
        yield {
            **which,
            "kind": "open",
            "level": "none",
            "message": {"text": f"Unknown: {visible(doubt.refusal.detail)} ({code})"},
            "locations": [_location(doubt.path, None)],
            "partialFingerprints": _fingerprints(
                baseline.fingerprint(result.rule.id, doubt.path, code, doubt.refusal.detail)
            ),
        }


def _accepted(known: Known) -> str:
    return visible(f"{known.reason} ({known.owner})")


def _fingerprints(mark: str) -> dict[str, str]:
    """Our own, and the one that GitHub's code scanning looks at (its docs: SARIF support)."""
    return {"firstkey/v1": mark, "primaryLocationLineHash": f"{mark}:1"}


def _location(path: str, line: int | None) -> dict[str, Any]:
    """The place. Code scanning takes no result without a line: the first stands for the whole file."""
    uri = _uri(path.lstrip("/")) or "."
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri, "uriBaseId": BASE},
            "region": {"startLine": line or 1},
        }
    }


def _uri(path: str) -> str:
    """Percent-encoded, byte for byte (RFC 3986)."""
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(os.fsencode(path))


# --- JUnit ----------------------------------------------------------------------------------------


def as_junit(done: Audit) -> str:
    """A test suite with a case for each rule, as CI systems read it.

    It has a failure or an error exactly where the image is not fit to share: notes, accepted findings and
    what is unknown of a rule that matters less are told within a case that passes or is skipped.
    """
    from xml.etree import ElementTree as ET

    top = ET.Element("testsuites")
    suite = ET.SubElement(top, "testsuite", name="firstkey audit", tests=str(len(done.results)))
    properties = ET.SubElement(suite, "properties")
    for name, value in {"root": done.root, "profile": done.profile, "version": __version__}.items():
        ET.SubElement(properties, "property", name=name, value=visible(value))
    for result in done.results:
        names = {"classname": f"firstkey.{result.rule.guideline}", "name": result.rule.id}
        case = ET.SubElement(suite, "testcase", names)
        for tag, attributes, text in _outcome(result):
            # XML 1.0 has no form for control characters: they are shown as escapes.
            told = {key: visible(value) for key, value in attributes.items()}
            ET.SubElement(case, tag, told).text = "\n".join(map(visible, text)) or None
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(plural, str(len(suite.findall(f"testcase/{tag}"))))
    # In ASCII: standard output may be in any encoding.
    text = ET.tostring(top, encoding="us-ascii").decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _outcome(result: Result) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """What is in a case: an element, its attributes, and its text line by line."""
    verdict, told = result.verdict, [*_told(result.entries), *_doubted(result.verdict.doubts)]
    bad = [entry for entry in result.entries if not entry.is_harmless]
    if not result.is_fit and bad:
        message = f"{bad[0].finding.path}: {bad[0].finding.reason}"
        yield "failure", {"message": message, "type": bad[0].severity}, told
    elif not result.is_fit:
        code = verdict.doubts[0].refusal.reason.code
        yield "error", {"message": next(_doubted(verdict.doubts)), "type": code}, told
    elif result.outcome == NOT_APPLICABLE:
        yield "skipped", {"message": f"does not apply: {verdict.not_applicable}"}, []
    elif verdict.doubts:
        yield "skipped", {"message": "; ".join(_doubted(verdict.doubts))}, []
    elif told:
        yield "system-out", {}, told


def _told(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        finding = entry.finding
        line = f":{finding.line}" if finding.line else ""
        yield f"{entry.severity}: {finding.path}{line}: {finding.reason}"
        yield f"  Known: {_accepted(entry.known)}" if entry.known else f"  {entry.advice}"


def _doubted(doubts: Iterable[Doubt]) -> Iterator[str]:
    for doubt in doubts:
        yield f"unknown: {doubt.path}: {doubt.refusal.detail} ({doubt.refusal.reason.code})"


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
            change.path
            for change in rule.changes(image, rule.verdict(image))
            if isinstance(change, (Remove, Empty))
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
