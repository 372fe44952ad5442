"""Host keys: which there should be, what is to be done about each, what ledger and journal get. No I/O."""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.boot.ledger import MadeHostKey
from firstkey.model import FAILED, SKIPPED
from firstkey.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.config import HostKeys as Settings
    from firstkey.model import HostKeyResult
    from firstkey.ssh.public_key import PublicKey

KEY_GROUP = "ssh_keys"
PRIVATE_MODE = 0o600
GROUP_MODE = 0o640

# What a host key is found to be.
GOOD = "good"
MISSING = "missing"
BROKEN = "broken"
MISMATCHED = "mismatched"
TOO_SMALL = "too small for sshd"
ENCRYPTED = "protected by a passphrase"
NO_PUBLIC_HALF = "without its public half"
IN_AGENT = "not there as a private key, and is left to sshd's agent"
UNKNOWN_TYPE = "of a type that this system's OpenSSH does not know"

# What is done about it.
KEEP = "keep"
MAKE = "make"
REPLACE = "replace"
BACK_UP = "back-up"
SKIP = "skip"
FAIL = "fail"

_CASES = {
    IN_AGENT: (SKIP, reasons.HOST_KEY_IN_AGENT),
    ENCRYPTED: (SKIP, reasons.HOST_KEY_ENCRYPTED),
    UNKNOWN_TYPE: (SKIP, reasons.HOST_KEY_TYPE_UNKNOWN),
    MISSING: (MAKE, None),
    BROKEN: (BACK_UP, reasons.HOST_KEY_BROKEN),
    MISMATCHED: (BACK_UP, reasons.HOST_KEY_BROKEN),
    TOO_SMALL: (BACK_UP, reasons.HOST_KEY_TOO_SMALL),
}
"""All that can be the matter with a key itself: what is done, and why. A key that sshd can load is not here:
whose it is decides.
"""

_CONVENTIONAL = re.compile(r"ssh_host_([A-Za-z0-9][A-Za-z0-9_-]*)_key")
_WORD = re.compile(r"(?<![a-z])(rsa|ecdsa|ed25519|dsa)(?![a-z])", re.IGNORECASE)


class Wanted(NamedTuple):
    """A host key that there should be; `kind` is None where the file's name does not tell the type.

    `optional`: Types= does not name it, so it is not made; but sshd would show it if it is there, so
    another instance's is replaced all the same.
    """

    file: str
    kind: str | None
    optional: bool = False


class Found(NamedTuple):
    """What is there in place of a wanted host key. `place` is where its links lead."""

    wanted: Wanted
    condition: str
    place: str = ""
    public: PublicKey | None = None
    digest: str = ""
    """Of the pair as it is, or as it will be once its mode is repaired and its public half is there."""
    remembered: MadeHostKey | None = None
    is_loose: bool = False
    """Others than root can get at the private half, or its mode makes sshd ignore it."""
    modified_ns: int = 0


class Now(NamedTuple):
    """Which instance and boot this is, each None while that is not known.

    `is_known`: the ledger has been on this instance before, or nothing says that it has not.
    `cloud_init_began`: when cloud-init went to work in this boot, in ns; None where it did not.
    """

    instance: str | None
    boot: str | None
    is_known: bool
    cloud_init_began: int | None = None


class Action(NamedTuple):
    """What is to be done about one host key, and why."""

    found: Found
    kind: str
    reason: Reason | None = None
    detail: str = ""

    @property
    def file(self) -> str:
        """The file of the private half, as sshd names it."""
        return self.found.wanted.file

    @property
    def type(self) -> str | None:
        """The type of key that belongs there, as the file's name has it."""
        return self.found.wanted.kind

    @property
    def makes_a_key(self) -> bool:
        """Whether ssh-keygen has to make a key for it."""
        return self.kind in (MAKE, REPLACE, BACK_UP)

    @property
    def keeps_the_key(self) -> bool:
        """Whether the host shows the same key afterwards."""
        return self.kind == KEEP

    @property
    def changes(self) -> tuple[str, ...]:
        """What of the host key is another one afterwards (model.HostKeyResult)."""
        if self.makes_a_key:
            return ("key",)
        parts = {"mode": self.found.is_loose, "public-half": self.found.condition == NO_PUBLIC_HALF}
        return tuple(part for part, changes in parts.items() if changes and self.keeps_the_key)

    @property
    def refusal(self) -> Refusal | None:
        """The reason, with the file it is about."""
        if self.reason is None:
            return None
        return Refusal(self.reason, self.detail or f"{self.file} is {self.found.condition}")


def wanted(settings: Settings, sshd_files: Sequence[str]) -> list[Wanted]:
    """The host keys that sshd's HostKey settings ask for, or those of the configured types."""
    asked = [Wanted(file, kind_of(file)) for file in dict.fromkeys(sshd_files)]
    if tuple(settings.types) == ("auto",):
        return asked
    by_kind = {want.kind: want for want in reversed(asked)}
    chosen = [by_kind.get(kind, Wanted(f"/etc/ssh/ssh_host_{kind}_key", kind)) for kind in settings.types]
    return chosen + [want._replace(optional=True) for want in asked if want not in chosen]


def kind_of(file: str) -> str | None:
    """The type that the file's name promises: the conventional name, or one with the type as a word in it.

    A conventional name may tell a type that is not known here: `ssh_host_mldsa44_ed25519_key`.
    """
    name = file.rsplit("/", 1)[-1]
    conventional = _CONVENTIONAL.fullmatch(name)
    if conventional:
        return conventional[1]
    match = _WORD.search(name)
    return match[1].lower() if match else None


# --- what is to be done ---------------------------------------------------------------------------


def decide(found: Found, settings: Settings, now: Now) -> Action:
    """What to do about one host key."""
    if found.condition in _CASES:
        kind, reason = _CASES[found.condition]
        if kind != SKIP and settings.regenerate == "never":
            return Action(found, SKIP, reasons.REGENERATION_OFF)
        return Action(found, kind, reason) if kind == SKIP else _made(found, kind, reason)
    if _is_to_go(found, settings, now):
        return _made(found, REPLACE, reasons.HOST_KEY_CLONED, _origin(found))
    return Action(found, KEEP, *_doubt(found, now))


def _made(found: Found, kind: str, reason: Reason | None, detail: str = "") -> Action:
    """The action that makes a key, where it is known of which type."""
    named = found.wanted.kind or (found.public.short_type if found.public else None)
    if named is None or named == "dsa":
        return Action(found, SKIP, reasons.HOST_KEY_TYPE_OBSOLETE if named else reasons.HOST_KEY_TYPE_UNKNOWN)
    return Action(found._replace(wanted=found.wanted._replace(kind=named)), kind, reason, detail)


def _is_to_go(found: Found, settings: Settings, now: Now) -> bool:
    """Whether a good key is to be replaced on this instance."""
    key = found.remembered
    if now.instance is None or settings.regenerate not in ("clones", "new-instance"):
        return False
    if _is_anothers(key, now):
        return True
    is_own = key and (key.instance == now.instance or (key.made and key.boot == now.boot))
    is_new_here = not is_own and not _is_cloud_inits(found, now)
    return settings.regenerate == "new-instance" and is_new_here and not now.is_known


def _is_cloud_inits(found: Found, now: Now) -> bool:
    """Whether cloud-init, which goes first, made it in this very boot: then it is this instance's alone."""
    return now.cloud_init_began is not None and found.modified_ns >= now.cloud_init_began


def _is_anothers(key: MadeHostKey | None, now: Now) -> bool:
    """Whether firstkey made the key, and positively not on this instance."""
    if key is None or not key.made or now.instance is None:
        return False
    if key.instance is None:
        # Made in a tree that was not running: an image, which any number of instances start from.
        return key.boot is None and now.boot is not None
    return key.instance != now.instance


def _doubt(found: Found, now: Now) -> tuple[Reason | None, str]:
    """Why a key that stays is perhaps not this instance's alone."""
    key, file = found.remembered, found.wanted.file
    if _is_anothers(key, now):
        return reasons.REGENERATION_OFF, _origin(found)
    is_news = key is None or (not key.made and now.instance and key.instance not in (None, now.instance))
    if is_news and not now.is_known and not _is_cloud_inits(found, now):
        return reasons.HOST_KEY_FOREIGN, f"{file} was there before firstkey; the key stays"
    return None, ""


def _origin(found: Found) -> str:
    key, file = found.remembered, found.wanted.file
    return f"{file} was made on {key.instance}" if key and key.instance else f"{file} came with the image"


def for_later(actions: Sequence[Action], settings: Settings) -> frozenset[str]:
    """The files of the keys that sshd need not wait for: those of Background=, if there is another one."""
    later = {
        action.file
        for action in actions
        # Of two halves that do not belong together, sshd would show the private one, whosever it is.
        if action.makes_a_key and action.type in settings.background and action.found.condition != MISMATCHED
    }
    others = (action for action in actions if action.file not in later)
    return frozenset(later) if any(each.makes_a_key or each.keeps_the_key for each in others) else frozenset()


# --- what the ledger gets -------------------------------------------------------------------------


def remembered(
    ledger: Ledger,
    actions: Sequence[Action],
    made: Sequence[MadeHostKey],
    mark: tuple[str | None, str | None],
) -> Ledger:
    """The ledger with the new keys as firstkey's own, the good ones as seen. `mark`: instance, boot id."""
    for key in made:
        ledger = ledger.with_host_key(key)
    for action in actions:
        record = _record(ledger, action, mark)
        if record and record != ledger.host_key_at(action.file):
            ledger = ledger.with_host_key(record)
    return ledger


def _record(ledger: Ledger, action: Action, mark: tuple[str | None, str | None]) -> MadeHostKey | None:
    """What is known from now on of a key that stays, or that sshd takes no longer."""
    instance, boot = mark
    found = action.found
    key = found.remembered
    if found.public is None or not action.keeps_the_key:
        return None
    if key is None:
        # Seen for the first time, and this may turn out to be another instance: then it is news again.
        is_clear = instance is not None or ledger.instance is None
        fresh = MadeHostKey(action.file, found.public.fingerprint, found.digest, instance, boot, made=False)
        return fresh if is_clear else None
    # A key that firstkey made stays the key of the instance where it was made, whatever lets it stay here.
    owner = instance if instance and (key.instance is None or not key.made) else key.instance
    return key._replace(file=action.file, digest=found.digest, instance=owner)


# --- what the journal gets ------------------------------------------------------------------------


def entries(result: HostKeyResult, action: Action, backup: str | None) -> list[events.Entry]:
    """The events of a host key that is not simply as it was. `backup`: of the old private half."""
    names = {"type": result.type, "file": result.file}
    if result.refusal and result.refusal.reason is reasons.HOST_KEY_PENDING:
        return [events.HOST_KEY_PENDING(**names, reason=result.refusal.reason.code)]
    if result.result in (FAILED, SKIPPED) and result.refusal:
        why = {"reason": result.refusal.reason.code, "detail": result.refusal.detail}
        event = events.HOST_KEY_FAILED if result.result == FAILED else events.HOST_KEY_SKIPPED
        return [event(**names, **why)]
    code = action.reason.code if action.reason else ""
    shown = {**names, "fingerprint": result.fingerprint or "none"}
    told = []
    if backup:
        told.append(events.HOST_KEY_SET_ASIDE(**shown, aside=backup, reason=code))
    if action.makes_a_key and action.found.public is None:
        told.append(events.HOST_KEY_MADE(**shown))
    elif action.makes_a_key and action.found.public:
        old, new = action.found.public.fingerprint, shown["fingerprint"]
        told.append(events.HOST_KEY_REPLACED(**names, reason=code, old=old, new=new))
    if "public-half" in action.changes:
        told.append(events.HOST_KEY_PUBLIC_DERIVED(**shown))
    if "mode" in action.changes:
        told.append(events.HOST_KEY_MODE_REPAIRED(**shown))
    if action.keeps_the_key and action.reason is reasons.HOST_KEY_FOREIGN:
        told.append(events.HOST_KEY_FOREIGN(**shown, reason=code))
    return told
