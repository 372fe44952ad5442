"""The report of a run: how long each phase took, what the outcome is, and where programs read it."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.model import CHANGED, FAILED, NO_KEY, OK, PARTIAL, REFUSED, SKIPPED, UNREACHABLE, Phase
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.model import Report
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
    content = json.dumps(report.as_json(), indent=1) + "\n"
    with tree.ensure(DIRECTORY, mode=0o755) as directory:
        directory.replace("report.json", content.encode(), Looks(0o644, durable=False))


def outcome(report: Report) -> str:
    """The one word for the whole run (DESIGN: Report)."""
    trouble = _trouble(report)
    if report.refusal and report.refusal.reason is not reasons.NO_KEY_PAIR:
        return UNREACHABLE if report.outcome == UNREACHABLE else FAILED
    if not trouble:
        return NO_KEY if report.refusal else OK
    return PARTIAL if _something_works(report) else FAILED


def _trouble(report: Report) -> bool:
    users = any(user.result in (REFUSED, FAILED) or user.refusal for user in report.users)
    keys = any(key.refusal for key in report.keys)
    accounts = any(account.result in (REFUSED, FAILED) for account in report.accounts)
    return users or keys or accounts or _host_key_trouble(report)


def _host_key_trouble(report: Report) -> bool:
    """At least one host key must be there, unless somebody else is to have it in hand."""
    missing = [key for key in report.host_keys if not (key.refusal and key.refusal.reason in _MEANT)]
    nothing = bool(missing) and all(key.result == SKIPPED for key in report.host_keys)
    return nothing or any(key.result == FAILED for key in report.host_keys)


def _something_works(report: Report) -> bool:
    no_good_key = bool(report.keys) and all(key.refusal for key in report.keys)
    nobody = bool(report.users) and all(user.result in (REFUSED, FAILED) for user in report.users)
    only_host_keys = not (report.keys or report.users)
    no_host_key = only_host_keys and all(key.result in (FAILED, SKIPPED) for key in report.host_keys)
    return not (no_good_key or nobody or no_host_key)


def summary(report: Report) -> str:
    """What was done, in a few words."""
    added = sum(len(user.added) for user in report.users)
    revoked = sum(len(user.revoked) for user in report.users)
    made = sum(key.result == CHANGED for key in report.host_keys)
    refused = sum(user.result in (REFUSED, FAILED) for user in report.users)
    accounts = len({each.name for each in report.accounts if each.result in (REFUSED, FAILED)})
    counts = [
        _count(added, "launch key added", "launch keys added"),
        _count(revoked, "launch key revoked", "launch keys revoked"),
        _count(made, "host key made or mended", "host keys made or mended"),
        _count(refused, "user not served", "users not served"),
        _count(accounts, "account not set up", "accounts not set up"),
    ]
    return ", ".join(count for count in counts if count) or "nothing to change"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""
