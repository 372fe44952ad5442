"""What became of one user's file of keys: as entries of the journal, and as a result for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons, text
from firstkey.boot.keys_file import Elsewhere
from firstkey.boot.upkeep import Look
from firstkey.model import CHANGED, UNCHANGED, UserResult
from firstkey.reasons import Refusal
from firstkey.ssh import access

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
    for there in _there(task, outcome):
        place = {"user": task.name, "file": there.path}
        site.say(_present(place, there, names.get(there.fingerprint, "unnamed")))
    for fingerprint in outcome.revoked:
        site.say(events.KEY_REVOKED(**where, fingerprint=fingerprint, instance=owners.get(fingerprint)))
    for fingerprint in outcome.left:
        owner = owners.get(fingerprint)
        why = reasons.KEY_LEFT_IN_PLACE.code
        site.say(events.KEY_LEFT_IN_PLACE(**where, fingerprint=fingerprint, instance=owner, reason=why))
    for entry in _look(task, outcome).entries(task.name):
        site.say(entry)


def _there(task: Task, outcome: Outcome) -> list[Elsewhere]:
    """Where each of the wanted keys is that was there already."""
    others = {each.fingerprint: each for each in task.assignment.elsewhere} if task.assignment else {}
    return [
        Elsewhere(fingerprint, task.path or "", options) if options is not None else others[fingerprint]
        for fingerprint, options in outcome.present
    ]


def _present(where: dict[str, str], there: Elsewhere, name: str) -> events.Entry:
    named = {**where, "fingerprint": there.fingerprint, "key_name": name}
    useless = _useless(there.options)
    if useless:
        return events.KEY_LINE_IGNORED(**named, options=useless, reason=reasons.KEY_LINE_IGNORED.code)
    if there.options:
        return events.KEY_RESTRICTED(**named, options=there.options)
    return events.KEY_PRESENT(**named)


def result(task: Task, outcome: Outcome) -> UserResult:
    """The same for the report."""
    return UserResult(
        task.name,
        file_of(task, outcome),
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


def file_of(task: Task, outcome: Outcome) -> str | None:
    """The file that lets the user in: the one where all of the keys are, where that is another one."""
    there = _there(task, outcome)
    paths = {each.path for each in there}
    is_another = len(paths) == 1 and not (outcome.changed or outcome.own)
    return there[0].path if is_another else task.path


def _look(task: Task, outcome: Outcome) -> Look:
    """At the file itself, and at others that have keys."""
    others = (flaw for each in _there(task, outcome) for flaw in each.flaws)
    return Look(tuple(outcome.mended), tuple(dict.fromkeys([*outcome.ignored_by_sshd, *others])))


def _why_no_login(task: Task, outcome: Outcome) -> Refusal | None:
    """What keeps the user out although the keys are where they belong."""
    look = _look(task, outcome)
    if look.refusal:
        return look.refusal
    for there in _there(task, outcome):
        useless = _useless(there.options)
        if useless:
            detail = (
                f"{there.path} has {there.fingerprint} behind options with which sshd takes no key: {useless}"
            )
            return Refusal(reasons.KEY_LINE_IGNORED, detail)
    return None


def _useless(options: str) -> str | None:
    return access.useless(options.encode("utf-8", "surrogateescape"))


def planned(assignment: Assignment) -> UserResult:
    """In a dry run, for an account that would be made: all its lines would be new."""
    content = b"".join(line.text for line in assignment.add)
    return UserResult(
        assignment.account.name,
        assignment.path,
        CHANGED,
        tuple(line.key.fingerprint for line in assignment.add),
        diff=text.diff(assignment.path, None, content),
    )
