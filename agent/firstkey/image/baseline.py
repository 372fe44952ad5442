"""Findings that are known and accepted: what identifies one, and the file that lists them.

A finding is identified by its rule, its path and its reason, not by its line: it is the same after lines
above it have come or gone. There are no patterns, and what could not be looked at cannot be accepted: an
entry stands for one finding that a person has read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from firstkey import NamedTuple
from firstkey.image.verdict import Finding
from firstkey.reasons import UsageError

VERSION = 1
LIMIT = 16 * 1024 * 1024
"""Bytes of a file: what is larger is something else."""
FIELDS = ("fingerprint", "rule", "path", "reason", "owner")
HINT = "The form is described in baseline.schema.json; docs/guidelines.md shows how to make one"
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_ENTRIES = re.compile(r'"known"\s*:\s*\[\s*')
_NEXT = re.compile(r"\s*,\s*")


class Known(NamedTuple):
    """One entry: the finding, why it is accepted, and by whom. `line`: where the entry is in its file."""

    fingerprint: str
    rule: str
    path: str
    """As `audit --json` prints it."""
    reason: str
    owner: str
    line: int


def fingerprints(rule: str, findings: Iterable[Finding]) -> list[str]:
    """What identifies each of the rule's findings; those that are alike are counted.

    So a second key in a file is a new finding, though it does not show which of the two is new.
    """
    seen: dict[tuple[str, str], int] = {}
    made = []
    for finding in findings:
        number = None if finding.line is None else str(finding.line)
        words = ("#" if word.strip(".,:;()") == number else word for word in finding.reason.split(" "))
        alike = (finding.path, " ".join(words))
        seen[alike] = seen.get(alike, 0) + 1
        made.append(fingerprint(rule, *alike, str(seen[alike])))
    return made


def fingerprint(*parts: str) -> str:
    """128 bits of the parts' digest, in hexadecimal digits."""
    import hashlib

    content = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()[:32]


def parse(name: str, content: bytes, rules: Iterable[str]) -> tuple[Known, ...]:
    """The entries of a file called `name`. Raises UsageError with the line of what is wrong."""
    import json

    known_rules = set(rules)
    if len(content) > LIMIT:
        raise UsageError(f"--baseline {name}: this has more than {LIMIT} bytes")
    try:
        text = content.decode("utf-8-sig")
        whole = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise _wrong(name, error.lineno, error.msg) from error
    except (ValueError, RecursionError) as error:
        raise _wrong(name, 1, str(error)) from error
    if not isinstance(whole, dict) or whole.keys() != {"version", "known"} or whole["version"] != VERSION:
        raise _wrong(name, 1, f'this is no object of "version": {VERSION} and "known" alone')
    start = _ENTRIES.search(text)
    if start is None or not isinstance(whole["known"], list):
        raise _wrong(name, 1, '"known" is no list')
    found: dict[str, Known] = {}
    # Where each entry is. In a string, a quote has a backslash before it: the pattern fits none.
    place, decoder = start.end(), json.JSONDecoder()
    for entry in whole["known"]:
        line = text.count("\n", 0, place) + 1
        _, end = decoder.raw_decode(text, place)
        comma = _NEXT.match(text, end)
        place = comma.end() if comma else end
        mistake = _mistake(entry, known_rules)
        if mistake:
            raise _wrong(name, line, mistake)
        known = Known(**{field: entry[field] for field in FIELDS}, line=line)
        first = found.setdefault(known.fingerprint, known)
        if first is not known:
            raise _wrong(name, line, f"this is the finding of line {first.line}")
    return tuple(found.values())


def _wrong(name: str, line: int, what: str) -> UsageError:
    return UsageError(f"--baseline {name}, line {line}: {what}", hint=HINT)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object. A name that is there twice would mean one thing to a reader and another to this program."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise ValueError(f"{twice!a} is there twice in one object")
    return made


def _mistake(entry: Any, rules: set[str]) -> str | None:  # noqa: ANN401 - whatever JSON has
    """What is wrong with an entry, or None."""
    if not isinstance(entry, dict):
        return "an entry is an object"
    for field in FIELDS:
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            return f'an entry needs a "{field}" that is a text and not empty'
    unknown = entry.keys() - {*FIELDS, "finding"}
    if unknown:
        return f"there is no such field of an entry: {min(unknown)!a}"
    if entry["rule"] not in rules:
        return f"there is no rule {entry['rule']!a}"
    if not _FINGERPRINT.fullmatch(entry["fingerprint"]):
        return "a fingerprint has 32 hexadecimal digits; there are no patterns"
    return None
