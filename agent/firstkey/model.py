"""The values that the rooms hand to each other; no I/O.

The names of the report's fields are a published format (`run --json`): fields may be added,
never removed or renamed.
"""

from __future__ import annotations

from typing import Any

from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal

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


class UserResult(NamedTuple):
    """What became of one user's file of keys."""

    name: str
    file: str | None
    result: str
    added: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    refusal: Refusal | None = None
    diff: str = ""
    left: tuple[str, ...] = ()
    """Another instance's launch keys that still stand there, in lines that are not firstkey's."""

    @property
    def is_well(self) -> bool:
        """Whether the user has the keys and nothing is known that would keep the user out."""
        return self.result in (CHANGED, UNCHANGED) and self.refusal is None


class HostKeyResult(NamedTuple):
    """What became of one host key."""

    type: str
    file: str
    result: str
    fingerprint: str | None
    refusal: Refusal | None = None
    public: str | None = None
    bits: int = 0
    changes: tuple[str, ...] = ()
    """What of it is new, or would be: `key`, or `mode` (and owner) and `public-half` of one that stays."""

    @property
    def comment(self) -> str:
        """The comment of the public key, as `ssh-keygen -l` shows it."""
        parts = (self.public or "").split(" ", 2)
        return parts[2] if len(parts) > 2 else "no comment"


class Imds(NamedTuple):
    """How the metadata service was reached."""

    endpoint: str
    version: int
    fallback: Refusal | None


class Phase(NamedTuple):
    """One stretch of the run, in milliseconds since its start (monotonic clock)."""

    phase: str
    start_ms: int
    end_ms: int


class Report(NamedTuple):
    """The result of one run."""

    outcome: str
    instance_id: str | None = None
    imds: Imds | None = None
    keys: tuple[OfferedKey, ...] = ()
    users: tuple[UserResult, ...] = ()
    host_keys: tuple[HostKeyResult, ...] = ()
    accounts: tuple[AccountResult, ...] = ()
    timeline: tuple[Phase, ...] = ()
    warnings: tuple[Refusal, ...] = ()
    dry_run: bool = False
    refusal: Refusal | None = None

    def as_json(self) -> dict[str, Any]:
        """The published form of the report (DESIGN: Report)."""
        return {
            "version": 1,
            "outcome": self.outcome,
            "instance_id": self.instance_id,
            "imds": _imds_json(self.imds),
            "keys": [_key_json(key) for key in self.keys],
            "users": [_user_json(user) for user in self.users],
            "host_keys": [_host_key_json(key) for key in self.host_keys],
            "accounts": [_account_json(account) for account in self.accounts],
            "timeline": [phase._asdict() for phase in self.timeline],
            "warnings": [_refusal_json(warning) for warning in self.warnings],
            "dry_run": self.dry_run,
            "reason": _code(self.refusal),
            "detail": self.refusal.detail if self.refusal else None,
        }


def _code(refusal: Refusal | None) -> str | None:
    return refusal.reason.code if refusal else None


def _refusal_json(refusal: Refusal) -> dict[str, str]:
    return {
        "reason": refusal.reason.code,
        "detail": refusal.detail,
        "remedy": refusal.reason.remedy,
    }


def _imds_json(imds: Imds | None) -> dict[str, Any]:
    if imds is None:
        return {"endpoint": None, "version": None, "fallback_reason": None}
    return {
        "endpoint": imds.endpoint,
        "version": imds.version,
        "fallback_reason": _code(imds.fallback),
    }


def _key_json(key: OfferedKey) -> dict[str, Any]:
    return {
        "index": key.number,
        "name": key.name,
        "type": key.type,
        "fingerprint": key.fingerprint,
        "refused": _code(key.refusal),
        "detail": key.refusal.detail if key.refusal else None,
    }


def _account_json(account: AccountResult) -> dict[str, Any]:
    return {
        "name": account.name,
        "change": account.change,
        "result": account.result,
        "reason": _code(account.refusal),
        "detail": account.refusal.detail if account.refusal else None,
    }


def _user_json(user: UserResult) -> dict[str, Any]:
    return {
        "name": user.name,
        "file": user.file,
        "result": user.result,
        "added": list(user.added),
        "revoked": list(user.revoked),
        "left": list(user.left),
        "reason": _code(user.refusal),
        "detail": user.refusal.detail if user.refusal else None,
    }


def _host_key_json(key: HostKeyResult) -> dict[str, Any]:
    return {
        "type": key.type,
        "file": key.file,
        "result": key.result,
        "fingerprint": key.fingerprint,
        "changes": list(key.changes),
        "reason": _code(key.refusal),
        "detail": key.refusal.detail if key.refusal else None,
    }
