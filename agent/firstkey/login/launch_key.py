"""Which key should let the user in: the one that was named, those that the metadata service offers, or those
that firstkey remembers.
"""

from __future__ import annotations

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.boot import launch_keys, ledger
from firstkey.boot.target import Target
from firstkey.login import last_run
from firstkey.login.context import LaunchKey
from firstkey.login.finding import Finding, note, obstacle, passed, unknown
from firstkey.model import REPORT, Answer
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import public_key

CHECK = "launch-key"
NONE = LaunchKey("no key", "no source")
"""In place of a launch key that is not known."""


class Sought(NamedTuple):
    """The keys to look for, and what is to be said about how they were found."""

    keys: tuple[LaunchKey, ...]
    findings: tuple[Finding, ...]


def of_user(target: Target, user: str, source: LaunchKey | Answer | Refusal) -> Sought:
    """The keys for one user: the one that was named, or the service offers, or else earlier ones."""
    if isinstance(source, LaunchKey):
        return Sought((source,), (passed(CHECK, str(source)),))
    if not isinstance(source, Refusal):
        return _offered(source)
    # What firstkey knows from earlier is a note, if it is enough.
    keys = tuple(_of_ledger(target, user)) or tuple(_of_report(target))
    reason, silent = source
    if keys:
        detail = f"{'; '.join(map(str, keys))}. The metadata service gave no usable answer: {silent}"
        return Sought(keys, (note(CHECK, reason, detail),))
    detail = f"the launch key is not known: {silent}; the ledger of firstkey has no readable one"
    named = "" if reason is why.KEY_UNKNOWN else " Or name the key: firstkey doctor --key FILE"
    return Sought((), (unknown(CHECK, reason, detail)._replace(remedy=f"{reason.remedy}{named}"),))


def named(content: bytes, path: str) -> LaunchKey:
    """The key out of that file, `-` for standard input. Raises FirstkeyError(not-a-public-key)."""
    name = "standard input" if path == "-" else path
    try:
        key = public_key.parse_launch_key(content)
    except FirstkeyError as error:
        hint = "Give --key the file of a public key, such as id_ed25519.pub."
        message = f"{name} is no public key: {error.message}"
        raise FirstkeyError(message, reason=error.reason, hint=hint) from error
    return LaunchKey(key.fingerprint, name, key, key.type, path)


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


def _of_ledger(target: Target, user: str) -> list[LaunchKey]:
    known, _ = ledger.load(target.tree)
    instance = target.firmware_instance() or known.instance
    types = {key.fingerprint: key.type for key in _of_report(target)}
    return [
        LaunchKey(key.fingerprint, "firstkey's ledger", None, types.get(key.fingerprint))
        for key in known.keys
        if key.user == user and key.instance == instance
    ]


def _of_report(target: Target) -> list[LaunchKey]:
    try:
        keys = last_run.parts(last_run.report(target.tree), "keys")
    except FirstkeyError:
        return []
    return [
        LaunchKey(str(key["fingerprint"]), REPORT, None, str(key["type"]))
        for key in keys
        if key.get("fingerprint") and key.get("type") and not key.get("refused")
    ]
