"""The report of a run: how long each phase took, what the outcome is, and where programs read it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.model import (
    CHANGED,
    FAILED,
    NO_KEY,
    OK,
    PARTIAL,
    REFUSED,
    SKIPPED,
    UNCHANGED,
    UNREACHABLE,
    Phase,
)
from firstkey.named_tuple import NamedTuple
from firstkey.system.files import Looks
from firstkey.text import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.model import HostKeyResult, Report, UserResult
    from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey"
PATH = f"{DIRECTORY}/report.json"

_MEANT = (reasons.HOST_KEY_IN_AGENT, reasons.REGENERATION_OFF)
"""Why a host key is not made that is no trouble: the settings say that it is not firstkey's to make."""


class Timeline:
    """The phases of a run, in the order in which they ended."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._phases: list[Phase] = []

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What was measured so far."""
        return tuple(self._phases)

    @contextmanager
    def phase(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """Measure what is done inside, and what other processes did for it `since` then (time.monotonic)."""
        start = self._at(since or time.monotonic())
        try:
            yield
        finally:
            self._phases.append(Phase(name, start, self._at(time.monotonic())))

    def _at(self, moment: float) -> int:
        return round((moment - self._start) * 1000)


def save(tree: Tree, report: Report) -> None:
    """Leave the report for programs: world-readable, no secrets in it; in /run, so it need not be durable."""
    content = as_json(report.as_json()) + "\n"
    with tree.ensure(DIRECTORY, mode=0o755) as directory:
        directory.replace("report.json", content.encode(), Looks(0o644, durable=False))


class _Count(NamedTuple):
    """So many things to which the same happened: `verb` is a participle, as in `2 launch keys added`."""

    number: int
    noun: str
    verb: str

    def words(self, *, dry_run: bool) -> str:
        """It in words; of a dry run, what would have happened."""
        noun = self.noun if self.number == 1 else f"{self.noun}s"
        negation = "not " if self.verb.startswith("not ") else ""
        verb = f"would {negation}be {self.verb[len(negation) :]}" if dry_run else self.verb
        return f"{self.number} {noun} {verb}"


def joined(earlier: Sequence[UserResult], later: Sequence[UserResult]) -> tuple[UserResult, ...]:
    """One entry a user and file, where the same run came to it twice: its first visit only took keys away."""
    before = {(user.name, user.file): user for user in earlier}
    merged = []
    for user in later:
        first = before.pop((user.name, user.file), None)
        merged.append(_both(first, user) if first else user)
    names = {user.name for user in before.values()}
    return (*before.values(), *(user for user in merged if user.file or user.name not in names))


def _both(first: UserResult, then: UserResult) -> UserResult:
    is_changed = CHANGED if first.result == CHANGED and then.result == UNCHANGED else then.result
    return then._replace(result=is_changed, revoked=(*first.revoked, *then.revoked))


def outcome(report: Report) -> str:
    """The one word for the whole run (DESIGN: Report)."""
    if _has_no_answer(report):
        return UNREACHABLE if report.outcome == UNREACHABLE else FAILED
    if not any(count.number for count in _troubles(report)):
        return NO_KEY if report.refusal else OK
    return PARTIAL if _something_works(report) else FAILED


def summary(report: Report) -> str:
    """What was done and what was not, in a few words."""
    counts = [count for count in (*_changes(report), *_troubles(report)) if count.number]
    told = [count.words(dry_run=report.dry_run) for count in counts]
    if _has_no_answer(report):
        told.append("no usable answer of the metadata service")
    return ", ".join(told) or "nothing to change"


def _has_no_answer(report: Report) -> bool:
    return bool(report.refusal and report.refusal.reason is not reasons.NO_KEY_PAIR)


def _changes(report: Report) -> list[_Count]:
    mended = [user for user in report.users if user.result == CHANGED and not (user.added or user.revoked)]
    accounts = {each.name for each in report.accounts if each.result == CHANGED}
    return [
        _Count(sum(len(user.added) for user in report.users), "launch key", "added"),
        _Count(sum(len(user.revoked) for user in report.users), "launch key", "revoked"),
        _Count(len(mended), "key file", "mended"),
        _Count(sum(key.result == CHANGED for key in report.host_keys), "host key", "made or mended"),
        _Count(len(accounts), "account", "set up"),
    ]


def _troubles(report: Report) -> list[_Count]:
    """What makes the outcome another one than `ok`, so that the summary never lacks its cause."""
    unserved = [user for user in report.users if user.result in (REFUSED, FAILED)]
    kept_out = [user for user in report.users if user.refusal and user not in unserved]
    accounts = {each.name for each in report.accounts if each.result in (REFUSED, FAILED)}
    return [
        _Count(sum(bool(key.refusal) for key in report.keys), "launch key", "refused"),
        _Count(len(unserved), "user", "not served"),
        _Count(len(kept_out), "user", "kept out by sshd"),
        _Count(len(accounts), "account", "not set up"),
        _Count(len(_lacking_host_keys(report)), "host key", "not made or mended"),
    ]


def _lacking_host_keys(report: Report) -> list[HostKeyResult]:
    """At least one host key must be there, unless somebody else is to have it in hand."""
    needed = [key for key in report.host_keys if not (key.refusal and key.refusal.reason in _MEANT)]
    if all(key.result == SKIPPED for key in needed):
        return needed
    return [key for key in report.host_keys if key.result == FAILED]


def _something_works(report: Report) -> bool:
    no_good_key = bool(report.keys) and all(key.refusal for key in report.keys)
    nobody = bool(report.users) and all(user.result in (REFUSED, FAILED) for user in report.users)
    only_host_keys = not (report.keys or report.users)
    no_host_key = only_host_keys and all(key.result in (FAILED, SKIPPED) for key in report.host_keys)
    return not (no_good_key or nobody or no_host_key)
