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
from firstkey.system.files import Looks
from firstkey.text import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.model import Report, UserResult
    from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey"
PATH = f"{DIRECTORY}/report.json"

_FAILURES = (REFUSED, FAILED)
_MEANT = (reasons.HOST_KEY_IN_AGENT, reasons.REGENERATION_OFF)
"""Why a host key is not made that is no trouble: the settings say that it is not firstkey's to make."""


class Timeline:
    """The phases of a run, in the order in which they ended."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.phases: tuple[Phase, ...] = ()

    @contextmanager
    def phase(self, name: str, *, since: float | None = None) -> Iterator[None]:
        """Measure what is done inside, and what other processes did for it `since` then (time.monotonic)."""
        start = self._at(since or time.monotonic())
        try:
            yield
        finally:
            self.phases = (*self.phases, Phase(name, start, self._at(time.monotonic())))

    def _at(self, moment: float) -> int:
        return round((moment - self._start) * 1000)


def save(tree: Tree, report: Report) -> None:
    """Leave the report for programs: world-readable, no secrets in it; in /run, so it need not be durable."""
    content = as_json(report.as_json()) + "\n"
    with tree.ensure(DIRECTORY, mode=0o755) as directory:
        directory.replace("report.json", content.encode(), Looks(0o644, durable=False))


def joined(earlier: Sequence[UserResult], later: Sequence[UserResult]) -> tuple[UserResult, ...]:
    """One entry a user and file, where the same run came to it twice: its first visit only took keys away."""
    before = {(user.name, user.file): user for user in earlier}
    merged = []
    for user in later:
        first = before.pop((user.name, user.file), user._replace(revoked=()))
        result = CHANGED if first.result == CHANGED and user.result == UNCHANGED else user.result
        merged.append(user._replace(result=result, revoked=(*first.revoked, *user.revoked)))
    names = {user.name for user in before.values()}
    return (*before.values(), *(user for user in merged if user.file or user.name not in names))


def outcome(report: Report) -> str:
    """The one word for the whole run (DESIGN: Report)."""
    if _has_no_answer(report):
        return UNREACHABLE if report.outcome == UNREACHABLE else FAILED
    if not any(number for number, _, _ in _failures(report)):
        return NO_KEY if report.refusal else OK
    good_key = not report.keys or any(key.refusal is None for key in report.keys)
    user = not report.users or any(user.result not in _FAILURES for user in report.users)
    is_for_host_keys = not (report.keys or report.users)
    host_key = not is_for_host_keys or any(key.result not in (FAILED, SKIPPED) for key in report.host_keys)
    return PARTIAL if good_key and user and host_key else FAILED


def summary(report: Report) -> str:
    """What was done and what was not, in a few words; of a dry run, what would have been."""
    parts = []
    for number, noun, verb in (*_changes(report), *_failures(report)):
        negation, participle = ("not ", verb[4:]) if verb.startswith("not ") else ("", verb)
        auxiliary = f"would {negation}be " if report.dry_run else negation
        if number:
            parts.append(f"{number} {noun}{'' if number == 1 else 's'} {auxiliary}{participle}")
    if _has_no_answer(report):
        parts.append("no usable answer of the metadata service")
    return ", ".join(parts) or "nothing to change"


def _has_no_answer(report: Report) -> bool:
    return bool(report.refusal and report.refusal.reason is not reasons.NO_KEY_PAIR)


def _changes(report: Report) -> Sequence[tuple[int, str, str]]:
    repaired = [user for user in report.users if user.result == CHANGED and not (user.added or user.revoked)]
    return (
        (sum(len(user.added) for user in report.users), "launch key", "added"),
        (sum(len(user.revoked) for user in report.users), "launch key", "revoked"),
        (len(repaired), "key file", "repaired"),
        (sum(key.result == CHANGED for key in report.host_keys), "host key", "made or repaired"),
        (len({each.name for each in report.accounts if each.result == CHANGED}), "account", "set up"),
    )


def _failures(report: Report) -> Sequence[tuple[int, str, str]]:
    """What makes the outcome another one than `ok`, so that the summary never lacks its cause."""
    unserved = [user for user in report.users if user.result in _FAILURES]
    kept_out = [user for user in report.users if user.refusal and user not in unserved]
    # At least one host key must be there, unless the settings leave it to another program.
    needed = [key for key in report.host_keys if not (key.refusal and key.refusal.reason in _MEANT)]
    if any(key.result != SKIPPED for key in needed):
        needed = [key for key in report.host_keys if key.result == FAILED]
    return (
        (sum(bool(key.refusal) for key in report.keys), "launch key", "refused"),
        (len(unserved), "user", "not served"),
        (len(kept_out), "user", "kept out by sshd"),
        (len({each.name for each in report.accounts if each.result in _FAILURES}), "account", "not set up"),
        (len(needed), "host key", "not made or repaired"),
    )
