"""A finding of a check: passed, an obstacle or unknown, with the reason and the remedy."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from firstkey import NamedTuple, reasons
from firstkey.reasons import FirstkeyError, Reason

OK = "ok"
OBSTACLE = "obstacle"
UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One answer. With a reason, `ok` is a note: it stops no login, but is worth knowing.

    A remedy `is_command` where it can be pasted as it stands; else a person has to decide, and `line` is what
    that person has to look at, if it is a line of the file at `path`.
    """

    check: str
    status: str
    detail: str
    path: str | None = None
    reason: Reason | None = None
    remedy: str | None = None
    is_command: bool = False
    line: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The published form (`doctor --json`): fields may be added, never removed or renamed."""
        return {**self._asdict(), "reason": self.reason.code if self.reason else None}


def passed(check: str, detail: str, *, path: str | None = None) -> Finding:
    """Nothing in the way here."""
    return Finding(check, OK, detail, path)


def _finding(  # noqa: PLR0913 - as many as a finding has parts
    status: str,
    check: str,
    reason: Reason,
    detail: str,
    *,
    path: str | None = None,
    command: str = "",
    line: str | None = None,
) -> Finding:
    """`command` removes it when pasted. Without one, the remedy is the reason's own, and a person decides."""
    remedy, shown = command or reason.remedy, line and line.strip()[:200]
    return Finding(check, status, detail, path, reason, remedy, bool(command), shown)


note = partial(_finding, OK)
"""No obstacle, but worth knowing."""
obstacle = partial(_finding, OBSTACLE)
"""This keeps the key from the shell."""
unknown = partial(_finding, UNKNOWN)
"""The check has no answer, and why."""


def unanswered(check: str, error: FirstkeyError, *, path: str | None = None) -> Finding:
    """The check has no answer, because looking failed."""
    if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
        return unknown(check, reasons.NEEDS_ROOT, error.message, path=path)
    return Finding(check, UNKNOWN, error.message, path, error.reason, error.hint)
