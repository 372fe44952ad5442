"""What a rule says of an image. Values only: nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from firstkey import NamedTuple, image_reasons
from firstkey.image.changes import Change
from firstkey.reasons import Refusal

ERROR = "error"
"""Not fit to share: others could get in, or get at secrets."""
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


class Unknown(NamedTuple):
    """Something that could not be known, and why not."""

    path: str
    refusal: Refusal


class Verdict(NamedTuple):
    """What a rule found out. `remark` says in one sentence what else a reader should know."""

    findings: tuple[Finding, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    not_applicable: str | None = None
    remark: str = ""

    @property
    def outcome(self) -> str:
        """One of pass, finding, unknown and not-applicable; a finding outweighs an unknown."""
        if self.findings:
            return FINDING
        if self.unknowns:
            return UNKNOWN
        return NOT_APPLICABLE if self.not_applicable else PASS

    @property
    def changes(self) -> tuple[Change, ...]:
        """What seal does about the findings."""
        return tuple(change for finding in self.findings for change in finding.changes)


Part = Union[Finding, Unknown, Verdict]
"""What a check yields; a verdict where it has a remark, has asked another check, or does not apply."""


def joined(parts: Iterable[Part]) -> Verdict:
    """One verdict of them all, each unknown once."""
    verdicts = list(map(_verdict, parts))
    return Verdict(
        tuple(finding for one in verdicts for finding in one.findings),
        tuple(dict.fromkeys(unknown for one in verdicts for unknown in one.unknowns)),
        next((one.not_applicable for one in verdicts if one.not_applicable), None),
        " ".join(one.remark for one in verdicts if one.remark),
    )


def _verdict(part: Part) -> Verdict:
    if isinstance(part, Finding):
        return Verdict((part,))
    return Verdict(unknowns=(part,)) if isinstance(part, Unknown) else part


def not_applicable(why: str) -> Verdict:
    """The verdict where there is nothing to check."""
    return Verdict(not_applicable=why)


NO_SERVER = not_applicable("no SSH server is installed")


def not_looked_at(path: str, why: str) -> Unknown:
    """The unknown about what no rule can judge."""
    return Unknown(path, Refusal(image_reasons.NOT_LOOKED_AT, why))
