"""The values that the rooms hand to each other; no I/O.

The names of the report's fields are a published format (`run --json`): fields may be added,
never removed or renamed.
"""

from __future__ import annotations

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from firstkey.reasons import Reason

REPORT = "/run/firstkey/report.json"
"""Where programs read the report of the last run; in /run, so that it is of this boot."""

CHANGED = "changed"
UNCHANGED = "unchanged"
REFUSED = "refused"
FAILED = "failed"
SKIPPED = "skipped"

OK = "ok"
NO_KEY = "no-key"
PARTIAL = "partial"
UNREACHABLE = "unreachable"
DISABLED = "disabled"

_FAILURES = (REFUSED, FAILED)
_MEANT = (reasons.HOST_KEY_IN_AGENT, reasons.REGENERATION_OFF)
"""Why a host key is not made that is no trouble: the settings say that it is not firstkey's to make."""


class Account(NamedTuple):
    """One line of passwd(5), as far as SSH access needs it."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class AccountResult(NamedTuple):
    """What became of one change to an account; `change` says what it is, as one would type it."""

    name: str
    change: str
    result: str
    refusal: Refusal | None = None
    diff: str = ""


class OfferedKey(NamedTuple):
    """One launch key that the metadata service offers: its bytes as they came, and what they are found to be.

    `refusal` says why it could not be had (then `text` is empty), or why it is none; then there is no type.
    """

    number: str
    """The key's index in `public-keys/`."""
    name: str
    text: bytes
    refusal: Refusal | None = None
    type: str | None = None
    fingerprint: str | None = None


class Answer(NamedTuple):
    """What the metadata service says. No keys: the instance was launched without a key pair, or the service
    answered with the instance-id, and no more.

    `version` is the one that was spoken, 1 or 2; `fallback_reason` says why it is 1 where "auto" was asked.
    """

    instance_id: str
    endpoint: str
    version: int
    fallback_reason: Reason | None
    keys: tuple[OfferedKey, ...] = ()


class UserResult(NamedTuple):
    """What became of one user's file of keys."""

    name: str
    file: str | None
    result: str
    added: Sequence[str] = ()
    revoked: Sequence[str] = ()
    refusal: Refusal | None = None
    diff: str = ""
    left: Sequence[str] = ()
    """Another instance's launch keys that still stand there, in lines that are not firstkey's."""
    is_used: bool = True
    """Whether sshd lets the user in with the file; where not, there is a warning."""

    @property
    def is_well(self) -> bool:
        """Whether the user has the keys and nothing is known that would keep the user out."""
        return self.result in (CHANGED, UNCHANGED) and self.refusal is None and self.is_used


class HostKeyResult(NamedTuple):
    """What became of one host key."""

    type: str
    file: str
    result: str
    refusal: Refusal | None
    changes: tuple[str, ...]
    """What of it is new, or would be: `key`, or `mode` (and owner) and `public-half` of one that stays."""
    fingerprint: str | None = None
    public: str | None = None
    bits: int = 0

    @property
    def comment(self) -> str:
        """The comment of the public key, as `ssh-keygen -l` shows it."""
        parts = (self.public or "").split(" ", 2)
        return parts[2] if len(parts) > 2 else "no comment"


class Phase(NamedTuple):
    """One stretch of the run, in milliseconds since its start (monotonic clock)."""

    phase: str
    start_ms: int
    end_ms: int


class Report(NamedTuple):
    """The result of one run."""

    outcome: str
    instance_id: str | None = None
    imds: Answer | None = None
    keys: tuple[OfferedKey, ...] = ()
    users: tuple[UserResult, ...] = ()
    host_keys: tuple[HostKeyResult, ...] = ()
    accounts: tuple[AccountResult, ...] = ()
    started: str | None = None
    """When the run began, by the system's clock in UTC, as in ISO 8601."""
    timeline: tuple[Phase, ...] = ()
    warnings: tuple[Refusal, ...] = ()
    dry_run: bool = False
    refusal: Refusal | None = None

    def as_json(self) -> dict[str, Any]:
        """The published form of the report (DESIGN: Report)."""
        asked = self.imds
        return {
            "version": 1,
            "outcome": self.outcome,
            "instance_id": self.instance_id,
            "imds": {
                "endpoint": asked.endpoint if asked else None,
                "version": asked.version if asked else None,
                "fallback_reason": asked.fallback_reason.code if asked and asked.fallback_reason else None,
            },
            "keys": [
                {
                    "index": key.number,
                    **_plain(key, "name type fingerprint", code="refused"),
                }
                for key in self.keys
            ],
            "users": [_plain(user, "name file result added revoked left") for user in self.users],
            "host_keys": [_plain(key, "type file result fingerprint changes") for key in self.host_keys],
            "accounts": [_plain(account, "name change result") for account in self.accounts],
            "started": self.started,
            "timeline": [phase._asdict() for phase in self.timeline],
            "warnings": [{**_why(why), "remedy": why.reason.remedy} for why in self.warnings],
            "dry_run": self.dry_run,
            **_why(self.refusal),
        }

    # --- what it comes to ------------------------------------------------------------------------

    def judged(self) -> Report:
        """The same with the one word for the whole run (DESIGN: Report)."""
        if self._has_no_answer():
            outcome = UNREACHABLE if self.outcome == UNREACHABLE else FAILED
        elif not any(number for number, _, _ in self._failures()):
            outcome = NO_KEY if self.refusal else OK
        else:
            key = not self.keys or any(key.refusal is None for key in self.keys)
            user = not self.users or any(user.result not in _FAILURES for user in self.users)
            is_for_host_keys = not (self.keys or self.users)
            made = not is_for_host_keys or any(key.result not in (FAILED, SKIPPED) for key in self.host_keys)
            outcome = PARTIAL if key and user and made else FAILED
        return self._replace(outcome=outcome)

    @property
    def summary(self) -> str:
        """What was done and what was not, in a few words; of a dry run, what would have been."""
        parts = []
        for number, noun, verb in (*self._changes(), *self._failures()):
            negation, participle = ("not ", verb[4:]) if verb.startswith("not ") else ("", verb)
            auxiliary = f"would {negation}be " if self.dry_run else negation
            if number:
                parts.append(f"{number} {noun}{'' if number == 1 else 's'} {auxiliary}{participle}")
        if self._has_no_answer():
            parts.append("no usable answer of the metadata service")
        return ", ".join(parts) or "nothing to change"

    def _has_no_answer(self) -> bool:
        return bool(self.refusal and self.refusal.reason is not reasons.NO_KEY_PAIR)

    def _changes(self) -> Sequence[tuple[int, str, str]]:
        repaired = [
            user for user in self.users if user.result == CHANGED and not (user.added or user.revoked)
        ]
        return (
            (sum(len(user.added) for user in self.users), "launch key", "added"),
            (sum(len(user.revoked) for user in self.users), "launch key", "revoked"),
            (len(repaired), "key file", "repaired"),
            (sum(key.result == CHANGED for key in self.host_keys), "host key", "generated or repaired"),
            (len({each.name for each in self.accounts if each.result == CHANGED}), "account", "set up"),
        )

    def _failures(self) -> Sequence[tuple[int, str, str]]:
        """What makes the outcome another one than `ok`, so that the summary never lacks its cause."""
        unserved = [user for user in self.users if user.result in _FAILURES]
        kept_out = [user for user in self.users if user.refusal and user not in unserved]
        # At least one host key must be there, unless the settings leave it to another program.
        needed = [key for key in self.host_keys if not (key.refusal and key.refusal.reason in _MEANT)]
        if any(key.result != SKIPPED for key in needed):
            needed = [key for key in self.host_keys if key.result == FAILED]
        return (
            (sum(bool(key.refusal) for key in self.keys), "launch key", "refused"),
            (len(unserved), "user", "not served"),
            (len(kept_out), "user", "kept out by sshd"),
            (len({each.name for each in self.accounts if each.result in _FAILURES}), "account", "not set up"),
            (len(needed), "host key", "not generated or repaired"),
        )


def _why(refusal: Refusal | None, code: str = "reason") -> dict[str, str | None]:
    return {
        code: refusal.reason.code if refusal else None,
        "detail": refusal.detail if refusal else None,
    }


def _plain(part: Any, fields: str, code: str = "reason") -> dict[str, Any]:  # noqa: ANN401 - any of the parts
    """Those fields, and why it is so."""
    return {**{name: getattr(part, name) for name in fields.split()}, **_why(part.refusal, code)}
