"""What became of one user's file of keys: as entries of the journal, and as a result for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import difference
from firstkey.boot.upkeep import Look
from firstkey.model import CHANGED, UNCHANGED, UserResult
from firstkey.reasons import Refusal
from firstkey.ssh import key_options

if TYPE_CHECKING:
    from firstkey.boot.keys_file import Assignment, Outcome
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.boot.tasks import Task


def announce(site: Site, task: Task, outcome: Outcome, instance: str, before: Ledger) -> None:
    """Say in the journal what was done. `before` is the ledger from before: whose the revoked keys were."""
    if task.assignment is None:
        return
    where = {"user": task.name, "file": task.assignment.path}
    names = {line.key.fingerprint: line.key.comment or "unnamed" for line in task.assignment.add}
    redirected = {line.key.fingerprint for line in task.assignment.add if line.options}
    owners = {key.fingerprint: key.instance for key in before.in_file(task.name, task.assignment.path)}
    for fingerprint in outcome.added:
        named = {"fingerprint": fingerprint, "key_name": names.get(fingerprint, "unnamed")}
        added = events.KEY_REDIRECTS if fingerprint in redirected else events.KEY_ADDED
        site.say(added(**where, **named, instance_id=instance))
    for fingerprint, options in outcome.present:
        site.say(_present(where, fingerprint, names.get(fingerprint, "unnamed"), options))
    for fingerprint in outcome.revoked:
        site.say(events.KEY_REVOKED(**where, fingerprint=fingerprint, instance=owners.get(fingerprint)))
    for fingerprint in outcome.left:
        owner = owners.get(fingerprint)
        why = reasons.KEY_LEFT_IN_PLACE.code
        site.say(events.KEY_LEFT_IN_PLACE(**where, fingerprint=fingerprint, instance=owner, reason=why))
    for entry in _look(outcome).entries(task.name):
        site.say(entry)


def _present(where: dict[str, str], fingerprint: str, name: str, options: str | None) -> events.Entry:
    named = {**where, "fingerprint": fingerprint, "key_name": name}
    unknown = _unknown(options)
    if unknown:
        return events.KEY_LINE_IGNORED(**named, options=unknown, reason=reasons.KEY_LINE_IGNORED.code)
    if options:
        return events.KEY_RESTRICTED(**named, options=options)
    return events.KEY_PRESENT(**named)


def result(task: Task, outcome: Outcome) -> UserResult:
    """The same for the report."""
    return UserResult(
        task.name,
        task.path,
        CHANGED if outcome.changed else UNCHANGED,
        tuple(outcome.added),
        tuple(outcome.revoked),
        _why_no_login(task, outcome),
        outcome.diff,
        tuple(outcome.left),
    )


def failure(task: Task, refusal: Refusal) -> events.Entry:
    """What could not be done for the user, for the journal."""
    why = {"user": task.name, "reason": refusal.reason.code, "detail": refusal.detail}
    if task.assignment and task.assignment.revoke and not task.assignment.add:
        return events.REVOKE_FAILED(**why, file=task.assignment.path)
    return events.USER_FAILED(**why)


def left_in_place(task: Task, outcome: Outcome) -> list[Refusal]:
    """Other instances' launch keys that still let in."""
    return [
        Refusal(reasons.KEY_LEFT_IN_PLACE, f"{fingerprint} stays in {task.path} of {task.name}")
        for fingerprint in outcome.left
    ]


def _look(outcome: Outcome) -> Look:
    return Look(tuple(outcome.mended), tuple(outcome.ignored_by_sshd))


def _why_no_login(task: Task, outcome: Outcome) -> Refusal | None:
    """What keeps the user out although the keys are where they belong."""
    if outcome.ignored_by_sshd:
        return _look(outcome).refusal
    for fingerprint, options in outcome.present:
        unknown = _unknown(options)
        if unknown:
            detail = f"{task.path} has {fingerprint} behind options that sshd does not know: {unknown}"
            return Refusal(reasons.KEY_LINE_IGNORED, detail)
    return None


def _unknown(options: str | None) -> str | None:
    return key_options.unknown(options.encode("utf-8", "surrogateescape")) if options else None


def planned(assignment: Assignment) -> UserResult:
    """In a dry run, for an account that would be made: all its lines would be new."""
    content = b"".join(line.text for line in assignment.add)
    return UserResult(
        assignment.account.name,
        assignment.path,
        CHANGED,
        tuple(line.key.fingerprint for line in assignment.add),
        diff=difference.unified(assignment.path, None, content),
    )
