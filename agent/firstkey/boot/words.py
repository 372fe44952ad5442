"""What a worker tells the supervisor: one word a line, in JSON, over the pipe between them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Union

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.model import UNREACHABLE
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from firstkey.model import Report

_TRIED_AGAIN = frozenset({
    reasons.BAD_ANSWER.code, reasons.ANSWER_TOO_LARGE.code, reasons.REDIRECT_REFUSED.code,
    reasons.TOKEN_REJECTED.code, reasons.ALREADY_RUNNING.code, reasons.INTERNAL_ERROR.code,
})  # fmt: skip
"""Not an answer of the metadata service, whoever gave it; so the daemon goes on asking."""
_HEALED_BY_TIME = (reasons.HOME_MISSING, reasons.READ_ONLY, reasons.NO_SUCH_USER)
"""A home may be made or mounted later than this, a file system become writable, a service know an account."""


class Plan(NamedTuple):
    """The settings of the daemon itself, in seconds: told first, as soon as the configuration is read.

    `is_held` is told again where the boot has nothing to wait for: no metadata service is expected here.
    """

    boot_timeout: float
    is_held: bool = True


class Off(NamedTuple):
    """firstkey is switched off here, and what does that."""

    detail: str


class Refused(NamedTuple):
    """The work could not even be begun, and why: what a FirstkeyError says."""

    message: str
    code: str
    hint: str
    exit_status: int

    @classmethod
    def by(cls, error: FirstkeyError) -> Refused:
        """The word for this error."""
        return cls(error.message, error.reason.code, error.hint, error.exit_status)

    def error(self) -> FirstkeyError:
        """The error again, in the other process."""
        error = FirstkeyError(self.message, reason=reasons.ALL[self.code], hint=self.hint)
        error.exit_status = self.exit_status
        return error


class Result(NamedTuple):
    """How a run ended: the outcome of its report, and the reason where there is one."""

    outcome: str
    reason: str | None
    late: str = ""
    """The names of users whose home, account, or a file system that can be written, may come later."""
    pending: str = ""
    """The types of host keys that are still being made: another result follows when they are in place."""

    @classmethod
    def of(cls, report: Report) -> Result:
        """The word for this report."""
        pending = (
            key.type
            for key in report.host_keys
            if key.refusal and key.refusal.reason is reasons.HOST_KEY_PENDING
        )
        late = (user.name for user in report.users if user.refusal and user.refusal.reason in _HEALED_BY_TIME)
        reason = report.refusal.reason.code if report.refusal else None
        return cls(report.outcome, reason, " ".join(late), " ".join(pending))

    @property
    def is_final(self) -> bool:
        """Whether there was an answer, so that there is nothing to try again."""
        return self.outcome != UNREACHABLE and self.reason not in _TRIED_AGAIN


Word = Union[Plan, Off, Refused, Result]

_KINDS: dict[str, type[Word]] = {kind.__name__: kind for kind in (Plan, Off, Refused, Result)}


def line(word: Word) -> bytes:
    """The word as it goes over the pipe."""
    return json.dumps([type(word).__name__, *word]).encode() + b"\n"


def word(said: bytes) -> Word:
    """The word that the line holds."""
    kind, *fields = json.loads(said)
    return _KINDS[kind](*fields)
