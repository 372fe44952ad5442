"""What a check found out: three answers, and for two of them the reason and the way out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, reasons

if TYPE_CHECKING:
    from firstkey.reasons import FirstkeyError, Reason

OK = "ok"
OBSTACLE = "obstacle"
UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One answer. With a reason, `ok` is a note: it stops no login, but is worth knowing."""

    check: str
    status: str
    detail: str
    path: str | None = None
    reason: Reason | None = None
    remedy: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The published form (`doctor --json`): fields may be added, never removed or renamed."""
        return {
            "check": self.check,
            "status": self.status,
            "reason": self.reason.code if self.reason else None,
            "path": self.path,
            "detail": self.detail,
            "remedy": self.remedy,
        }


def passed(check: str, detail: str, *, path: str | None = None) -> Finding:
    """Nothing in the way here."""
    return Finding(check, OK, detail, path)


def note(check: str, reason: Reason, detail: str, *, path: str | None = None, remedy: str = "") -> Finding:
    """No obstacle, but worth knowing."""
    return Finding(check, OK, detail, path, reason, remedy or reason.remedy)


def obstacle(
    check: str, reason: Reason, detail: str, *, path: str | None = None, remedy: str = ""
) -> Finding:
    """This keeps the key from the shell. `remedy` is what to do exactly; else it is the reason's own."""
    return Finding(check, OBSTACLE, detail, path, reason, remedy or reason.remedy)


def unknown(check: str, reason: Reason, detail: str, *, path: str | None = None, remedy: str = "") -> Finding:
    """It cannot be said, and why."""
    return Finding(check, UNKNOWN, detail, path, reason, remedy or reason.remedy)


def unanswered(check: str, error: FirstkeyError, *, path: str | None = None) -> Finding:
    """It cannot be said, because looking failed."""
    if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
        return unknown(check, reasons.NEEDS_ROOT, error.message, path=path)
    return Finding(check, UNKNOWN, error.message, path, error.reason, error.hint)
