"""Host keys: which there should be, what is to be done, what ledger, report and journal get. No I/O."""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.boot.ledger import MadeHostKey
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.config import HostKeys as Settings
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Process
    from firstkey.system.files import Looks

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

# What is done about it; what is not made comes to what the report calls so.
KEEP = UNCHANGED
SKIP = SKIPPED
MAKE = "make"

_CASES = {
    IN_AGENT: (SKIP, reasons.HOST_KEY_IN_AGENT),
    ENCRYPTED: (SKIP, reasons.HOST_KEY_ENCRYPTED),
    UNKNOWN_TYPE: (SKIP, reasons.HOST_KEY_TYPE_UNKNOWN),
    MISSING: (MAKE, None),
    BROKEN: (MAKE, reasons.HOST_KEY_BROKEN),
    MISMATCHED: (MAKE, reasons.HOST_KEY_BROKEN),
    TOO_SMALL: (MAKE, reasons.HOST_KEY_TOO_SMALL),
}
"""All that can be the matter with a key itself: what is done, and why. A key that sshd can load is not here:
whose it is decides.
"""


class HostKey:
    """A host key that there should be: what is in its place, what is to be done about it, how far that is."""

    condition = "unknown"
    place = ""
    """Where the file's links lead."""
    public: PublicKey | None = None
    digest = ""
    """Of the pair as it is, or as it will be once its mode is repaired and its public half is there."""
    remembered: MadeHostKey | None = None
    """What the ledger knows of it; of a new one, what it is to know, but for instance and boot."""
    is_loose = False
    """Others than root can get at the private half, or its mode makes sshd ignore it."""
    modified_ns = 0

    action = ""
    """Empty until it is decided, by `decide`."""
    why: Refusal | None = None

    process: Process | None = None
    """What makes it, under `name` in the workshop."""
    name = ""
    is_later = False
    """It is being made, and sshd does not wait for that."""
    made: PublicKey | None = None
    """The new key, as soon as ssh-keygen has made it."""
    pair: tuple[bytes, bytes, Looks] | None = None
    """A new pair that is not in place yet: private half, public line, how the private half is to be."""
    failure: Refusal | None = None
    is_news = True
    """It is still to be dealt with or reported."""
    backup: str | None = None
    """Where the old private half is now."""

    def __init__(self, file: str) -> None:
        """`file`: of the private half, as sshd names it."""
        self.file = file

    @property
    def type(self) -> str | None:
        """The type of key that belongs there, by the file's name or else by the key that is there."""
        return kind_of(self.file) or (self.public.short_type if self.public else None)

    @property
    def is_anothers(self) -> bool:
        """Whether the key is to go for being another instance's; then sshd would take it."""
        return self.why is not None and self.why.reason is reasons.HOST_KEY_CLONED

    @property
    def shown(self) -> PublicKey | None:
        """The key that sshd will have at that place, as far as that is known."""
        return self.made if self.action == MAKE else self.public

    @property
    def changes(self) -> tuple[str, ...]:
        """What of the host key is another one afterwards (model.HostKeyResult)."""
        if self.action == MAKE:
            return ("key",)
        parts = {"mode": self.is_loose, "public-half": self.condition == NO_PUBLIC_HALF}
        return tuple(part for part, changes in parts.items() if changes and self.action == KEEP)

    def result(self, *may_lack: Reason) -> HostKeyResult:
        """What became of it so far; of a dry run, what would. For these reasons there need be no such key."""
        shown, changes, why = self.shown, self.changes, self.why
        result = CHANGED if changes else self.action
        if self.failure:
            result = SKIPPED if self.failure.reason in may_lack else FAILED
            changes, why = (), self.failure
        known = (shown.fingerprint, shown.line, shown.bits) if shown else ()
        return HostKeyResult(self.type or "unknown", self.file, result, why, changes, *known)

    def entries(self, result: HostKeyResult) -> list[events.Entry]:
        """The events of a host key that is not simply as it was, by what became of it."""
        why, old = result.refusal, self.public.fingerprint if self.public else None
        about: dict[str, object] = {"type": result.type, "file": result.file}
        if why and result.result in (FAILED, SKIPPED):
            event = events.HOST_KEY_FAILED if result.result == FAILED else events.HOST_KEY_SKIPPED
            event = events.HOST_KEY_PENDING if why.reason is reasons.HOST_KEY_PENDING else event
            return [event(**about, **why.fields)]
        reason, new = why and why.reason, result.fingerprint or "none"
        known = {"reason": reason and reason.code, "old": old, "backup": self.backup}
        about |= {"fingerprint": new, "new": new, **{name: each for name, each in known.items() if each}}
        happened = {
            events.HOST_KEY_SET_ASIDE: self.backup,
            events.HOST_KEY_REPLACED if old else events.HOST_KEY_MADE: "key" in self.changes,
            events.HOST_KEY_PUBLIC_DERIVED: "public-half" in self.changes,
            events.HOST_KEY_MODE_REPAIRED: "mode" in self.changes,
            events.HOST_KEY_FOREIGN: reason is reasons.HOST_KEY_FOREIGN,
        }
        return [event(**about) for event, has_happened in happened.items() if has_happened]


class Now(NamedTuple):
    """Which instance and boot this is, each None while that is not known.

    `is_known`: the ledger has been on this instance before, or nothing says that it has not.
    `firmware`: what the firmware calls the instance, as it does in each of its boots.
    `cloud_init_began`: when cloud-init went to work in this boot, in ns; None where it did not.
    """

    instance: str | None
    boot: str | None
    is_known: bool
    firmware: str | None = None
    cloud_init_began: int | None = None


def wanted(settings: Settings, sshd_files: Sequence[str]) -> dict[str, bool]:
    """The files of all host keys: those that sshd's HostKey settings ask for, or of the configured types.

    False: Types= does not name it, so it is not made; but sshd would show it if it is there, so another
    instance's is replaced all the same.
    """
    if tuple(settings.types) == ("auto",):
        return dict.fromkeys(sshd_files, True)
    by_kind = {kind_of(file): file for file in reversed(sshd_files)}
    named = {by_kind.get(kind, f"/etc/ssh/ssh_host_{kind}_key"): True for kind in settings.types}
    return {**named, **{file: False for file in sshd_files if file not in named}}


def kind_of(file: str) -> str | None:
    """The type that the file's name promises: the conventional name, or one with the type as a word in it.

    A conventional name may tell a type that is not known here: `ssh_host_mldsa44_ed25519_key`.
    """
    name = file.rsplit("/", 1)[-1]
    if conventional := re.fullmatch(r"ssh_host_([A-Za-z0-9][A-Za-z0-9_-]*)_key", name):
        return conventional[1]
    match = re.search("(?i)(?<![a-z])(rsa|ecdsa|ed25519|dsa)(?![a-z])", name)
    return match[1].lower() if match else None


# --- what is to be done ---------------------------------------------------------------------------


def decide(key: HostKey, settings: Settings, now: Now) -> None:
    """Say of the key what is to be done about it and why."""
    case = _CASES.get(key.condition)
    action, reason, detail = (*case, "") if case else _by_its_owner(key, settings, now)
    is_anothers = reason is reasons.HOST_KEY_CLONED
    is_off = settings.regenerate == "never" or (is_anothers and settings.regenerate == "missing")
    if action == MAKE and is_off:
        action, reason = KEEP if is_anothers else SKIP, reasons.REGENERATION_OFF
    elif action == MAKE and key.type in (None, "dsa"):
        action, detail = SKIP, ""
        reason = reasons.HOST_KEY_TYPE_OBSOLETE if key.type else reasons.HOST_KEY_TYPE_UNKNOWN
    key.action = action
    key.why = Refusal(reason, detail or f"{key.file} is {key.condition}") if reason else None


def _by_its_owner(key: HostKey, settings: Settings, now: Now) -> tuple[str, Reason | None, str]:
    """What is to be done about a key that sshd can load, by the instance that it belongs to."""
    known = key.remembered
    instance = known.instance if known else None
    origin = f"{key.file} was made on {instance}" if instance else f"{key.file} came with the image"
    is_from_elsewhere = now.instance is not None and instance not in (None, now.instance)
    is_of_this_boot = known is not None and known.boot == now.boot
    is_own = known and (instance == now.instance or (known.made and is_of_this_boot))
    # Made in a tree that was not running, or by a boot in which no firmware named the instance, as it does in
    # each boot of this one: in an image, or a virtual machine that became one, and many instances have it.
    is_nameless = known is not None and (known.boot is None or (now.firmware and not now.is_known))
    is_an_images = is_nameless and not instance and not is_of_this_boot
    is_anothers = known and known.made and (is_from_elsewhere or (is_an_images and now.instance and now.boot))
    # cloud-init goes first, and what it made in this very boot is this instance's alone.
    is_cloud_inits = now.cloud_init_began is not None and key.modified_ns >= now.cloud_init_began
    is_new_here = not (now.is_known or is_cloud_inits)
    is_for_all = settings.regenerate == "new-instance" and now.instance and is_new_here and not is_own
    if is_anothers or is_for_all:
        return MAKE, reasons.HOST_KEY_CLONED, origin
    if is_new_here and not is_own and (is_from_elsewhere or not (instance or is_of_this_boot)):
        return KEEP, reasons.HOST_KEY_FOREIGN, f"{key.file} may be older than this instance; the key stays"
    return KEEP, None, ""


def for_later(keys: Collection[HostKey], background: Collection[str]) -> set[str]:
    """The files of the keys that sshd need not wait for: those of these types, if there is another one."""
    later = {
        key.file
        for key in keys
        # Of two halves that do not belong together, sshd would show the private one, whosever it is.
        if key.action == MAKE and key.type in background and key.condition != MISMATCHED
    }
    return later if any(key.action in (MAKE, KEEP) and key.file not in later for key in keys) else set()


# --- what the ledger gets -------------------------------------------------------------------------


def remembered(ledger: Ledger, keys: Sequence[HostKey], now: Now) -> Ledger:
    """The ledger with the keys that stay as seen on this instance."""
    for key in keys:
        known = key.remembered
        # Seen for the first time, and this may turn out to be another instance: then it is news again.
        may_be_news = known is None and now.instance is None and ledger.instance is not None
        if key.public is None or key.action != KEEP or may_be_news:
            continue
        found = (key.file, key.public.fingerprint, key.digest)
        known = known or MadeHostKey(*found, now.instance, now.boot, made=False)
        if now.instance and (known.instance is None or not known.made):
            # Not of a key that firstkey made elsewhere: it stays that instance's, whatever lets it stay here.
            known = known._replace(instance=now.instance)
        known = known._replace(file=key.file, digest=key.digest)
        if known != ledger.host_key_at(key.file):
            ledger = ledger.with_host_key(known)
    return ledger
