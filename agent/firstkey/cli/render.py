"""Results as text for people: short lines, the reason and the remedy where something is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from firstkey import reasons, text
from firstkey.cli import streams
from firstkey.display import width_of
from firstkey.model import DISABLED, AccountResult, HostKeyResult, OfferedKey, Report, UserResult
from firstkey.reasons import Refusal

OUTCOMES = {
    "ok": "done",
    "no-key": "done; there is no launch key to install",
    "partial": "done in part; see what is marked with !",
    "failed": "see what is marked with !",
    "unreachable": "the metadata service gave no usable answer in time",
}

REMEDY = f"    {text.REMEDY}"
_CHANGES = {"key": "a new key", "mode": "its mode or owner", "public-half": "its public half"}


def show(args: argparse.Namespace, done: Report) -> None:
    """Print what came of a run, in the form that the options ask for."""
    if args.verbose and done.timeline:
        from firstkey.cli import timeline

        streams.complain(*timeline.text(timeline.bars(done.as_json()), width=width_of(2) or 80))
    if args.json:
        streams.show_json(done.as_json())
    elif done.outcome == DISABLED and done.refusal:
        # A person who runs it by hand does not read the journal, and would take silence for success.
        streams.show(f"Switched off: {done.refusal.detail}. Nothing was done.")
    else:
        streams.show(*report(done))


def report(done: Report) -> Iterator[str]:
    """The lines of a run, as `firstkey run` prints them: each remedy once, whatever has it."""
    shown: set[str] = set()
    for line in _report(done):
        if not line.startswith(REMEDY) or line not in shown:
            yield line
        shown.add(line)


def _report(done: Report) -> Iterator[str]:
    yield from instance(done)
    sections = {
        "Accounts": [_account(account, dry_run=done.dry_run) for account in done.accounts],
        "Launch keys offered": [_offer(done)],
        "Users": [_user(user, dry_run=done.dry_run) for user in done.users],
        "Host keys": [host_key(key, dry_run=done.dry_run) for key in done.host_keys],
        "Warnings": [refusal(warning) for warning in done.warnings],
    }
    for title, entries in sections.items():
        lines = [line for entry in entries for line in entry]
        yield from [f"{title}:", *lines] if lines else ()
    words = "a dry run: nothing was changed" if done.dry_run else OUTCOMES[done.outcome]
    yield f"Outcome: {done.outcome} ({words})"


def instance(done: Report) -> Iterator[str]:
    """Which instance this is, and who said so."""
    if done.imds:
        why = done.imds.fallback_reason
        fallback = f", because: {why.code}" if why else ""
        yield f"Instance {done.instance_id}, says {done.imds.endpoint} (IMDSv{done.imds.version}{fallback})"
    elif done.instance_id:
        yield f"Instance {done.instance_id}, says the firmware"


def _offer(done: Report) -> Iterator[str]:
    """The launch keys; where there is none, why."""
    for key in done.keys:
        yield from offered_key(key)
    if done.refusal:
        yield "  none" if done.refusal.reason is reasons.NO_KEY_PAIR else "! unknown"
        yield from refusal(done.refusal)


def offered_key(key: OfferedKey) -> Iterator[str]:
    """One key that the metadata service offers."""
    if key.refusal:
        yield f"! {key.number} {key.name}: refused"
        yield from refusal(key.refusal)
    else:
        yield f"  {key.number} {key.name}  {key.type}  {key.fingerprint}"


def host_key(key: HostKeyResult, *, dry_run: bool = False) -> Iterator[str]:
    """One host key."""
    changes = f" ({', '.join(_CHANGES[change] for change in key.changes)})" if key.changes else ""
    shown = f"  {key.fingerprint}" if key.fingerprint else ""
    mark = "!" if key.result == "failed" else " "
    yield f"{mark} {key.type:8} {key.file}  {_would(key.result, dry_run=dry_run)}{changes}{shown}"
    yield from refusal(key.refusal) if key.refusal else ()


def refusal(why: Refusal) -> Iterator[str]:
    """A reason, on two lines: what, and what to do about it."""
    yield f"    {why.detail} ({why.reason.code})"
    yield f"{REMEDY}{why.reason.remedy}"


def _account(account: AccountResult, *, dry_run: bool) -> Iterator[str]:
    mark = "!" if account.result in ("refused", "failed") else " "
    yield f"{mark} {account.name:8} {account.change}  {_would(account.result, dry_run=dry_run)}"
    yield from refusal(account.refusal) if account.refusal else ()
    yield from _diff(account.diff)


def _user(user: UserResult, *, dry_run: bool) -> Iterator[str]:
    mark = "!" if user.refusal else " "
    yield f"{mark} {user.name:8} {user.file or '(no file)'}  {_would(user.result, dry_run=dry_run)}"
    yield from (f"    + {fingerprint}" for fingerprint in user.added)
    yield from (f"    - {fingerprint} (another instance's)" for fingerprint in user.revoked)
    yield from (f"    = {fingerprint} (another instance's, in a person's line)" for fingerprint in user.left)
    yield from refusal(user.refusal) if user.refusal else ()
    yield from _diff(user.diff)


def _diff(diff: str) -> Iterator[str]:
    yield from (f"    {line}" for line in diff.removesuffix("\n").split("\n") if diff)


def _would(result: str, *, dry_run: bool) -> str:
    return "would change" if dry_run and result == "changed" else result
