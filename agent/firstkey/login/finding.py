"""A finding of a check: three answers, and for two of them the reason and the way out."""

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
        return {
            "check": self.check,
            "status": self.status,
            "reason": self.reason.code if self.reason else None,
            "path": self.path,
            "detail": self.detail,
            "remedy": self.remedy,
            "is_command": self.is_command,
            "line": self.line,
        }


def passed(check: str, detail: str, *, path: str | None = None) -> Finding:
    """Nothing in the way here."""
    return Finding(check, OK, detail, path)


def note(check: str, reason: Reason, detail: str, *, path: str | None = None, command: str = "") -> Finding:
    """No obstacle, but worth knowing."""
    return obstacle(check, reason, detail, path=path, command=command)._replace(status=OK)


def obstacle(
    check: str,
    reason: Reason,
    detail: str,
    *,
    path: str | None = None,
    command: str = "",
    line: str | None = None,
) -> Finding:
    """This keeps the key from the shell. `command` removes it when it is pasted; without one the remedy is
    the reason's own, and a person decides.
    """
    remedy, shown = command or reason.remedy, line and line.strip()[:200]
    return Finding(check, OBSTACLE, detail, path, reason, remedy, bool(command), shown)


def unknown(
    check: str,
    reason: Reason,
    detail: str,
    *,
    path: str | None = None,
    command: str = "",
    line: str | None = None,
) -> Finding:
    """It is not known, and why."""
    found = obstacle(check, reason, detail, path=path, command=command, line=line)
    return found._replace(status=UNKNOWN)


def unanswered(check: str, error: FirstkeyError, *, path: str | None = None) -> Finding:
    """It is not known, because looking failed."""
    if error.reason is reasons.PERMISSION_DENIED and os.geteuid() != 0:
        return unknown(check, reasons.NEEDS_ROOT, error.message, path=path)
    return Finding(check, UNKNOWN, error.message, path, error.reason, error.hint)
