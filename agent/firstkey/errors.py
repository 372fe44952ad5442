"""What can go wrong, as exceptions: raised anywhere, printed in `cli` alone.

Third parties' exceptions are translated into these at their door.
"""

from __future__ import annotations

from firstkey import reasons
from firstkey.reasons import Reason, Refusal


class FirstkeyError(Exception):
    """Something could not be done.

    `message` says what was being done to what, and why it failed; `reason` is the published
    code; `hint` is what to do next (by default the reason's own remedy).
    """

    exit_status = 1

    def __init__(self, message: str, *, reason: Reason, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint or reason.remedy

    @property
    def refusal(self) -> Refusal:
        """The same as a value, for results that stand beside others that went well."""
        return Refusal(self.reason, self.message)


class UsageError(FirstkeyError):
    """The command line asks for something that cannot be."""

    exit_status = 2

    def __init__(self, message: str, *, hint: str = "See: firstkey --help") -> None:
        super().__init__(message, reason=reasons.BAD_USAGE, hint=hint)


class Unreachable(FirstkeyError):  # noqa: N818 - an answer to "when": not now
    """The metadata service gave no answer in time (sysexits.h: EX_TEMPFAIL)."""

    exit_status = 75


class NeedsRoot(FirstkeyError):  # noqa: N818 - what is missing, as the reason code has it
    """Only root may do this (sysexits.h: EX_NOPERM)."""

    exit_status = 77

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=reasons.NEEDS_ROOT)


class ConfigError(FirstkeyError):
    """The configuration is wrong and was asked to be right (sysexits.h: EX_CONFIG)."""

    exit_status = 78

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, reason=reasons.CONFIG_INVALID, hint=hint)
