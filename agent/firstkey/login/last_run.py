"""The report of the last run, which every user may read. What stands in it is not taken on trust."""

from __future__ import annotations

import json
from typing import Any

from firstkey.login_reasons import NO_REPORT
from firstkey.model import REPORT
from firstkey.reasons import FirstkeyError
from firstkey.system.tree import Tree

LIMIT = 4 * 1024 * 1024


def report(tree: Tree) -> dict[str, Any] | None:
    """The report, None where there is none. Raises FirstkeyError where what is there cannot be read."""
    content = tree.read(REPORT, limit=LIMIT)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("outcome"), str):
        return found
    raise FirstkeyError(f"{REPORT} does not hold what firstkey wrote there", reason=NO_REPORT)


def parts(last: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """What the report lists there: keys, users, host_keys."""
    listed = (last or {}).get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def part(last: dict[str, Any] | None, name: str, /, **named: str) -> dict[str, Any]:
    """What it reports of that user or host key; empty where that is nothing."""
    return next((each for each in parts(last, name) if named.items() <= each.items()), {})
