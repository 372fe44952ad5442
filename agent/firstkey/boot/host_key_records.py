"""What the ledger and the journal get to know about host keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import host_keys
from firstkey.boot.ledger import MadeHostKey
from firstkey.model import FAILED, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_key_files import Pair
    from firstkey.boot.host_key_making import Making
    from firstkey.boot.host_keys import Action
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.model import HostKeyResult


def remembered(
    ledger: Ledger, actions: Sequence[Action], pairs: Sequence[Pair], mark: tuple[str | None, str | None]
) -> Ledger:
    """The ledger with the new pairs as firstkey's own, the good ones as seen. `mark`: instance, boot id."""
    instance, boot = mark
    for pair in pairs:
        ledger = ledger.with_host_key(
            MadeHostKey(pair.action.file, pair.public.fingerprint, pair.digest, instance, boot, made=True)
        )
    for action in actions:
        record = _record(ledger, action, mark) if action.keeps_the_key else None
        if record and record != ledger.host_key_at(action.file):
            ledger = ledger.with_host_key(record)
    return ledger


def _record(ledger: Ledger, action: Action, mark: tuple[str | None, str | None]) -> MadeHostKey | None:
    """What is known from now on of a key that stays."""
    instance, boot = mark
    found = action.found
    if found.public is None:
        return None
    key = found.remembered
    if key is None:
        # Seen for the first time, and this may turn out to be another instance: then it is news again.
        is_clear = instance is not None or ledger.instance is None
        fresh = MadeHostKey(action.file, found.public.fingerprint, found.digest, instance, boot, made=False)
        return fresh if is_clear else None
    # Whose instance a key of firstkey's is does not change with the settings that let it stay.
    owner = instance if instance and (key.instance is None or not key.made) else key.instance
    return key._replace(file=action.file, digest=found.digest, instance=owner)


def bound(ledger: Ledger, instance: str, boot: str | None) -> Ledger:
    """The ledger with the keys made earlier in this boot tied to the instance, now that it is known."""
    keys = tuple(
        key._replace(instance=instance) if key.made and key.instance is None and key.boot == boot else key
        for key in ledger.host_keys
    )
    return ledger._replace(host_keys=keys)


def announce(site: Site, results: Sequence[HostKeyResult], making: Making) -> None:
    """Say in the journal what happened to each host key that is not simply as it was."""
    for result, action in zip(results, making.actions):
        for entry in _entries(result, action, making.asides.get(action.file)):
            site.say(entry)


def _entries(result: HostKeyResult, action: Action, aside: str | None) -> list[events.Entry]:
    names = {"type": result.type, "file": result.file}
    if result.result in (FAILED, SKIPPED) and result.refusal:
        why = {"reason": result.refusal.reason.code, "detail": result.refusal.detail}
        event = events.HOST_KEY_FAILED if result.result == FAILED else events.HOST_KEY_SKIPPED
        return [event(**names, **why)]
    shown = {**names, "fingerprint": result.fingerprint or "none"}
    if action.makes_a_key:
        return _news_of_a_new_key(action, shown, aside)
    entries = []
    if action.kind == host_keys.DERIVE:
        entries.append(events.HOST_KEY_PUBLIC_DERIVED(**shown))
    if action.found.is_loose:
        entries.append(events.HOST_KEY_MODE_MENDED(**shown))
    if action.reason is reasons.HOST_KEY_FOREIGN:
        entries.append(events.HOST_KEY_FOREIGN(**shown, reason=action.reason.code))
    return entries


def _news_of_a_new_key(action: Action, shown: dict[str, str], aside: str | None) -> list[events.Entry]:
    entries = []
    code = action.reason.code if action.reason else ""
    if aside:
        entries.append(events.HOST_KEY_SET_ASIDE(**shown, aside=aside, reason=code))
    old = action.found.public
    if old is None:
        return [*entries, events.HOST_KEY_MADE(**shown)]
    names = {"type": shown["type"], "file": shown["file"]}
    new = shown["fingerprint"]
    return [*entries, events.HOST_KEY_REPLACED(**names, reason=code, old=old.fingerprint, new=new)]
