"""Which key should let the user in: the one that was named, those that the metadata service offers, or those
that firstkey remembers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.boot import launch_keys, ledger
from firstkey.login.context import LaunchKey
from firstkey.login.finding import Finding, note, obstacle, passed, unknown
from firstkey.model import REPORT
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.boot.site import Site
    from firstkey.model import Answer

CHECK = "launch-key"
LIMIT = 4 * 1024 * 1024


class Sought(NamedTuple):
    """The keys to look for, and what is to be said about how they were found."""

    keys: tuple[LaunchKey, ...]
    findings: tuple[Finding, ...]


class Sources:
    """Where launch keys are known from. The metadata service is asked once, for all users."""

    def __init__(self, site: Site, *, named: LaunchKey | None, ask: Callable[[], Answer]) -> None:
        self._site = site
        self._named = named
        self._answer: Answer | None = None
        self._refusal: FirstkeyError | None = None
        if named is None:
            try:
                self._answer = ask()
            except FirstkeyError as error:
                self._refusal = error

    def of(self, user: str) -> Sought:
        """The keys for one user."""
        if self._named:
            return Sought((self._named,), (passed(CHECK, str(self._named)),))
        if self._answer:
            return _offered(self._answer)
        return self._remembered(user)

    def _remembered(self, user: str) -> Sought:
        """What firstkey knows from earlier, since the service does not answer: a note, if it is enough."""
        keys = tuple(_of_ledger(self._site, user)) or tuple(_of_report(self._site))
        refusal = self._refusal.refusal if self._refusal else None
        silent = refusal.detail if refusal else "the metadata service was not asked"
        if keys:
            reason = refusal.reason if refusal else why.KEY_UNKNOWN
            detail = f"{'; '.join(map(str, keys))}. The metadata service gave no usable answer: {silent}"
            return Sought(keys, (note(CHECK, reason, detail),))
        detail = f"the launch key is not known: {silent}; the ledger of firstkey has no readable one"
        reason = refusal.reason if refusal else why.KEY_UNKNOWN
        remedy = f"{reason.remedy} Or name the key: firstkey doctor --key FILE"
        remedy = reason.remedy if reason is why.KEY_UNKNOWN else remedy
        return Sought((), (unknown(CHECK, reason, detail)._replace(remedy=remedy),))


def named(content: bytes, path: str) -> LaunchKey:
    """The key out of that file, `-` for standard input. Raises FirstkeyError(not-a-public-key)."""
    key = public_key.parse_launch_key(content)
    return LaunchKey(key.fingerprint, "standard input" if path == "-" else path, key, key.type, path)


def _offered(answer: Answer) -> Sought:
    good, judged = launch_keys.judge(answer.keys)
    source = f"the metadata service at {answer.endpoint}"
    refused = [key.refusal for key in judged if key.refusal]
    notes = [note(CHECK, refusal.reason, refusal.detail) for refusal in refused]
    if not answer.keys:
        detail = f"{answer.instance_id} was launched without a key pair: no key gives access"
        return Sought((), (obstacle(CHECK, reasons.NO_KEY_PAIR, detail),))
    if not good:
        found = obstacle(CHECK, reasons.NOT_A_PUBLIC_KEY, "; ".join(refusal.detail for refusal in refused))
        return Sought((), (found,))
    keys = tuple(LaunchKey(key.fingerprint, source, key, key.type) for key in good)
    return Sought(keys, (*notes, *(passed(CHECK, str(key)) for key in keys)))


def _of_ledger(site: Site, user: str) -> list[LaunchKey]:
    known = ledger.load(site.tree).ledger
    instance = site.firmware_instance() or known.instance
    types = {key.fingerprint: key.type for key in _of_report(site)}
    return [
        LaunchKey(key.fingerprint, "firstkey's ledger", None, types.get(key.fingerprint))
        for key in known.keys
        if key.user == user and key.instance == instance
    ]


def _of_report(site: Site) -> list[LaunchKey]:
    """The report of the last run is for everybody to read."""
    try:
        found = json.loads(site.tree.read(REPORT, limit=LIMIT) or b"{}")
        return [
            LaunchKey(str(key["fingerprint"]), REPORT, None, str(key["type"]))
            for key in found.get("keys", [])
            if key.get("fingerprint") and not key.get("refused")
        ]
    except (FirstkeyError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def recover(key: LaunchKey, found: public_key.PublicKey | None) -> LaunchKey:
    """The key whole, where a file has it and only its fingerprint was known."""
    if found is None or key.key is not None:
        return key
    return key._replace(key=found, type=found.type)
