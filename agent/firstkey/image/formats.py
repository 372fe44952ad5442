"""An audit for programs: JSON (docs/audit.schema.json), SARIF, JUnit XML, what not to bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from firstkey import __version__
from firstkey.image import baseline, rules
from firstkey.image.audit import Audit, Entry, Result, by_advice, verdict_of
from firstkey.image.changes import Remove
from firstkey.image.rule import Rule
from firstkey.image.subject import Image
from firstkey.image.verdict import ERROR, NOT_APPLICABLE, NOTE, WARNING, Unknown
from firstkey.system.mounts import upwards
from firstkey.text import visible

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
        # Entries of the baseline that fit no finding any more.
        "unmatched": [
            {**{field: visible(getattr(known, field)) for field in baseline.FIELDS}, "line": known.line}
            for known in done.unmatched
        ],
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
        "unknown": [
            {
                **path_json(unknown.path),
                "reason": unknown.refusal.reason.code,
                "detail": visible(unknown.refusal.detail),
                "remedy": unknown.refusal.reason.remedy,
            }
            for unknown in verdict.unknowns
        ],
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
    # Where the documentation has the rule: below a heading that is its title.
    words = "".join(char for char in rule.title.lower() if char.isalnum() or char in " -_")
    repair = f"To repair it: firstkey seal {rule.chosen}"
    if rule.by_hand:
        repair = "seal does not repair it: each finding says what to do."
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.prose},
        "help": {"text": f"{rule.prose} {repair}"},
        "helpUri": f"{HOME}/docs/guidelines.md#{words.replace(' ', '-')}",
        "defaultConfiguration": {"level": _LEVELS.get(rule.severity, "error")},
        "properties": {
            "tags": ["security", rule.guideline],
            "precision": "high",
            "security-severity": _SCORES[rule.severity],
        },
    }


def _sarif_results(result: Result, index: dict[str, int]) -> Iterator[dict[str, Any]]:
    rule = result.rule.id

    def entry(kind: str, level: str, text: str, path: str, line: int | None, mark: str) -> dict[str, Any]:
        place = {"uri": _uri(path.lstrip("/")) or ".", "uriBaseId": BASE}
        # Code scanning takes no result without a line: the first stands for the whole file.
        location = {"artifactLocation": place, "region": {"startLine": line or 1}}
        return {
            "ruleId": rule,
            "ruleIndex": index[rule],
            "kind": kind,
            "level": level,
            "message": {"text": visible(text)},
            "locations": [{"physicalLocation": location}],
            # Our own, and the one that GitHub's code scanning looks at (its docs: SARIF support).
            "partialFingerprints": {"firstkey/v1": mark, "primaryLocationLineHash": f"{mark}:1"},
        }

    for found in result.entries:
        finding, known = found.finding, found.known
        level, text = _LEVELS.get(found.severity, "error"), f"{finding.reason} {found.advice}"
        failed = entry("fail", level, text, finding.path, finding.line, found.fingerprint)
        if known:
            why = visible(f"{known.reason} ({known.owner})")
            failed["suppressions"] = [{"kind": "external", "status": "accepted", "justification": why}]
        yield failed
    for unknown in result.verdict.unknowns:
        code, detail = unknown.refusal.reason.code, unknown.refusal.detail
        mark = baseline.fingerprint(rule, unknown.path, code, detail)
        # 3.27.9: "open" is what could not be decided for want of information.
        yield entry("open", "none", f"Unknown: {detail} ({code})", unknown.path, None, mark)


def _uri(path: str) -> str:
    """Percent-encoded, byte for byte (RFC 3986)."""
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(os.fsencode(path))


# --- JUnit ----------------------------------------------------------------------------------------


def as_junit(done: Audit) -> str:
    """A test suite with a case for each rule, as CI systems read it.

    It has a failure or an error exactly where the image is not fit to share: notes, accepted findings and
    what is unknown of a rule that matters less stand within a case that passes or is skipped.
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
            shown = {key: visible(value) for key, value in attributes.items()}
            ET.SubElement(case, tag, shown).text = "\n".join(map(visible, text)) or None
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(plural, str(len(suite.findall(f"testcase/{tag}"))))
    # In ASCII: standard output may be in any encoding.
    text = ET.tostring(top, encoding="us-ascii").decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _outcome(result: Result) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """What is in a case: an element, its attributes, and its text line by line."""
    verdict, lines = result.verdict, []
    for advice, alike in by_advice(result.entries).items():
        lines += [f"{entry.severity}: {entry.place}: {entry.finding.reason}" for entry in alike]
        lines.append(f"  {advice}")
    unknown = [
        f"unknown: {unknown.path}: {unknown.refusal.detail} ({unknown.refusal.reason.code})"
        for unknown in verdict.unknowns
    ]
    lines += unknown
    bad = [entry for entry in result.entries if not entry.is_harmless]
    if not result.is_fit and bad:
        message = f"{bad[0].finding.path}: {bad[0].finding.reason}"
        yield "failure", {"message": message, "type": bad[0].severity}, lines
    elif not result.is_fit:
        yield "error", {"message": unknown[0], "type": verdict.unknowns[0].refusal.reason.code}, lines
    elif result.outcome == NOT_APPLICABLE:
        yield "skipped", {"message": f"does not apply: {verdict.not_applicable}"}, []
    elif unknown:
        yield "skipped", {"message": "; ".join(unknown)}, []
    elif lines:
        yield "system-out", {}, lines


# --- what not to bundle ---------------------------------------------------------------------------


def exclude_list(image: Image, wanted: list[Rule]) -> tuple[list[bytes], list[str]]:
    """What bundling tools should leave out: all that seal would remove or empty, and every home's .ssh.

    Patterns, one a line, and sentences on what they leave out too much or too little.
    """
    unknowns: list[str] = []
    paths = set(filter(image.is_directory, (home.join(".ssh") for home in image.homes)))
    seen = ["everything-seen"] if any(rule.watched for rule in wanted) else []
    unseen: dict[Unknown, None] = {}
    for rule in map(rules.by_id, dict.fromkeys((*(rule.id for rule in wanted), *seen))):
        verdict = verdict_of(rule, image)
        if rule.watched or rule.places or rule.finds_files:
            unseen.update(dict.fromkeys(verdict.unknowns))
        paths.update(change.path for change in verdict.changes if isinstance(change, Remove))
    for path, why in unseen:
        if paths.isdisjoint(upwards(path)):
            unknowns.append(f"files may be missing in the list: {why.detail} ({why.reason.code})")
    kept = sorted(path for path in paths if paths.isdisjoint(upwards(os.path.dirname(path))))
    twins = {twin: path for path in kept for twin in _twins(image, path) if twin not in paths}
    unknowns += [f"{twin} is left out too: no list can tell it from {path}" for twin, path in twins.items()]
    return list(dict.fromkeys(map(_pattern, kept))), unknowns


def _twins(image: Image, path: str) -> Iterator[str]:
    """Other paths that the pattern of this one may fit."""
    for place in upwards(path):
        directory, name = os.path.split(place)
        if re.search(r"[\0-\x1f\x7f,]", name):
            names = (each for each in image.tree.names(directory) if each != name)
            yield from (os.path.join(directory, each) for each in names if _is_alike(name, each))


def _is_alike(name: str, other: str) -> bool:
    """Whether the pattern of the name may fit the other one, in some locale.

    In it, a control character stands for any other, and a comma for whatever is no letter to that locale.
    """
    raw, others = (re.sub(rb"[\0-\x1f\x7f]", b"\n", os.fsencode(each)) for each in (name, other))
    letters = rb"[,\x80-\xff]+" if b"," in raw else rb"(?!)"
    return re.sub(letters, b",", raw) == re.sub(letters, b",", others)


_SPECIAL = re.compile(rb"[\0-\x1f\x7f*?[\\,]| \Z")
_QUOTED = {
    **dict.fromkeys(map(bytes, zip((*range(32), 127))), b"[[:cntrl:]]"),
    b"\\": b"[\\\\]",
    # All that it is not: the bundling tools of EC2 take lists with commas between the patterns.
    b",": b"[^][:alnum:][:space:][:cntrl:]!\"#$%&'()*+./:;<=>?@[\\\\^_`{|}~-]",
}


def _pattern(path: str) -> bytes:
    """What fits this path alone, byte for byte, to tar (--exclude-from, wildcards as by default) and rsync.

    Both take patterns of glob(7). A character in brackets means the same to both, which a backslash before
    it does not (to rsync it is itself where there is no wildcard). tar cuts blanks off the end of a line.
    """
    return _SPECIAL.sub(lambda match: _QUOTED.get(match[0], b"[%b]" % match[0]), os.fsencode(path))
