"""What a rule says of an image. Values only: nothing here reads or writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.image.changes import Change

ERROR = "error"
"""Not fit to share: others could get in, or get at somebody's secrets."""
WARNING = "warning"
"""It gives its maker away, or its copies will disturb each other."""
NOTE = "note"
"""Good to do; it does not make an image unfit."""

LOOK = "Check it, and remove traces by hand"

PASS = "pass"  # noqa: S105 - an outcome
FINDING = "finding"
UNKNOWN = "unknown"
NOT_APPLICABLE = "not-applicable"


class Finding(NamedTuple):
    """Something that is not as it should be."""

    path: str
    reason: str
    """A sentence that says what is wrong there. Never a secret itself."""
    remedy: str = ""
    """What a person is to decide here, in words. Empty: seal repairs it."""
    line: int | None = None
    severity: str | None = None
    """Where it is not the rule's own."""
    changes: tuple[Change, ...] = ()
    """What seal does about it. It stays where it was decided: an audit has no use for it."""


class Doubt(NamedTuple):
    """Something that could not be known, and why not."""

    path: str
    refusal: Refusal


class Verdict(NamedTuple):
    """What a rule found out. `remark` says in one sentence what else a reader should know."""

    findings: tuple[Finding, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    not_applicable: str | None = None
    remark: str = ""

    @property
    def outcome(self) -> str:
        """One of pass, finding, unknown and not-applicable; a finding outweighs a doubt."""
        if self.findings:
            return FINDING
        if self.doubts:
            return UNKNOWN
        return NOT_APPLICABLE if self.not_applicable else PASS


def not_applicable(why: str) -> Verdict:
    """The verdict where there is nothing to check."""
    return Verdict(not_applicable=why)
