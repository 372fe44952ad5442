"""Host keys: which there should be, what is to be done, what ledger, report and journal get. No I/O."""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, NamedTuple, events, reasons
from firstkey.boot.ledger import MadeHostKey
from firstkey.model import CHANGED, FAILED, SKIPPED, UNCHANGED, HostKeyResult
from firstkey.reasons import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.ledger import Ledger
    from firstkey.config import HostKeys as Settings
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.command import Process
    from firstkey.system.files import Looks

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
SKIP = "skip"
FAIL = "fail"

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

_CONVENTIONAL = re.compile(r"ssh_host_([A-Za-z0-9][A-Za-z0-9_-]*)_key")
_WORD = re.compile(r"(?<![a-z])(rsa|ecdsa|ed25519|dsa)(?![a-z])", re.IGNORECASE)


class HostKey(NamedTuple):
    """A host key that there should be: what is there in its place, and then what is to be done about it.

    `place` is where the file's links lead. `action` is empty until it is decided, by `decide`.
    """

    file: str
    """The file of the private half, as sshd names it."""
    condition: str
    place: str = ""
    public: PublicKey | None = None
    digest: str = ""
    """Of the pair as it is, or as it will be once its mode is repaired and its public half is there."""
    remembered: MadeHostKey | None = None
    is_loose: bool = False
    """Others than root can get at the private half, or its mode makes sshd ignore it."""
    modified_ns: int = 0
    action: str = ""
    reason: Reason | None = None
    detail: str = ""

    @property
    def type(self) -> str | None:
        """The type of key that belongs there, by the file's name or else by the key that is there."""
        return kind_of(self.file) or (self.public.short_type if self.public else None)

    @property
    def is_anothers(self) -> bool:
        """Whether the key is to go for being another instance's; then sshd would take it."""
        return self.reason is reasons.HOST_KEY_CLONED

    @property
    def changes(self) -> tuple[str, ...]:
        """What of the host key is another one afterwards (model.HostKeyResult)."""
        if self.action == MAKE:
            return ("key",)
        parts = {"mode": self.is_loose, "public-half": self.condition == NO_PUBLIC_HALF}
        return tuple(part for part, changes in parts.items() if changes and self.action == KEEP)

    @property
    def refusal(self) -> Refusal | None:
        """The reason, with the file it is about."""
        return self.reason and Refusal(self.reason, self.detail or f"{self.file} is {self.condition}")


class Now(NamedTuple):
    """Which instance and boot this is, each None while that is not known.

    `is_known`: the ledger has been on this instance before, or nothing says that it has not.
    `cloud_init_began`: when cloud-init went to work in this boot, in ns; None where it did not.
    """

    instance: str | None
    boot: str | None
    is_known: bool
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
    conventional = _CONVENTIONAL.fullmatch(name)
    if conventional:
        return conventional[1]
    match = _WORD.search(name)
    return match[1].lower() if match else None


# --- what is to be done ---------------------------------------------------------------------------


def decide(key: HostKey, settings: Settings, now: Now) -> HostKey:
    """The same, with what is to be done about it and why."""
    detail = ""
    if key.condition not in _CASES:
        action, reason, detail = _by_its_owner(key, settings, now)
    else:
        action, reason = _CASES[key.condition]
        if action == MAKE and settings.regenerate == "never":
            action, reason = SKIP, reasons.REGENERATION_OFF
    if action == MAKE and key.type in (None, "dsa"):
        unknown, obsolete = reasons.HOST_KEY_TYPE_UNKNOWN, reasons.HOST_KEY_TYPE_OBSOLETE
        action, reason, detail = SKIP, obsolete if key.type else unknown, ""
    return key._replace(action=action, reason=reason, detail=detail)


def _by_its_owner(key: HostKey, settings: Settings, now: Now) -> tuple[str, Reason | None, str]:
    """What is to be done about a key that sshd can load, by the instance that it belongs to."""
    known = key.remembered
    instance = known.instance if known else None
    origin = f"{key.file} was made on {instance}" if instance else f"{key.file} came with the image"
    is_from_elsewhere = now.instance is not None and instance not in (None, now.instance)
    is_own = known and (instance == now.instance or (known.made and known.boot == now.boot))
    # Made in a tree that was not running: an image, which any number of instances start from.
    is_from_an_image = instance is None and known and known.boot is None and now.instance and now.boot
    is_anothers = known and known.made and (is_from_elsewhere or is_from_an_image)
    # cloud-init goes first, and what it made in this very boot is this instance's alone.
    is_cloud_inits = now.cloud_init_began is not None and key.modified_ns >= now.cloud_init_began
    is_new_here = not (now.is_known or is_cloud_inits)
    is_for_all = settings.regenerate == "new-instance" and now.instance and is_new_here and not is_own
    if is_anothers or is_for_all:
        if settings.regenerate not in ("clones", "new-instance"):
            return KEEP, reasons.REGENERATION_OFF, origin
        return MAKE, reasons.HOST_KEY_CLONED, origin
    if is_new_here and (known is None or (is_from_elsewhere and not known.made)):
        return KEEP, reasons.HOST_KEY_FOREIGN, f"{key.file} was there before firstkey; the key stays"
    return KEEP, None, ""


def for_later(keys: Sequence[HostKey], settings: Settings) -> frozenset[str]:
    """The files of the keys that sshd need not wait for: those of Background=, if there is another one."""
    later = {
        key.file
        for key in keys
        # Of two halves that do not belong together, sshd would show the private one, whosever it is.
        if key.action == MAKE and key.type in settings.background and key.condition != MISMATCHED
    }
    others = (key for key in keys if key.file not in later)
    return frozenset(later) if any(key.action in (MAKE, KEEP) for key in others) else frozenset()


# --- what the ledger gets -------------------------------------------------------------------------


def remembered(ledger: Ledger, keys: Sequence[HostKey], now: Now) -> Ledger:
    """The ledger with the keys that stay as seen on this instance."""
    for key in keys:
        known = key.remembered
        # Seen for the first time, and this may turn out to be another instance: then it is news again.
        may_be_news = known is None and now.instance is None and ledger.instance is not None
        if key.public is None or key.action != KEEP or may_be_news:
            continue
        if known is None:
            found = (key.file, key.public.fingerprint, key.digest, now.instance, now.boot)
            known = MadeHostKey(*found, made=False)
        elif now.instance and (known.instance is None or not known.made):
            # Not of a key that firstkey made elsewhere: it stays that instance's, whatever lets it stay here.
            known = known._replace(instance=now.instance)
        known = known._replace(file=key.file, digest=key.digest)
        if known != ledger.host_key_at(key.file):
            ledger = ledger.with_host_key(known)
    return ledger


# --- how far the work on it is, and what report and journal get ------------------------------------


class KeyPair(NamedTuple):
    """A new key pair that is not in place yet. `looks`: how the private half is to be.

    `known`: what the ledger is to know of it once it is in place, but for instance and boot.
    """

    private: bytes
    public_line: bytes
    public: PublicKey
    looks: Looks
    known: MadeHostKey


class Attempt:
    """One host key while the run lasts: what is to be done about it, and how far that is.

    `process` makes it under `name` in the workshop; `is_later`: sshd does not wait for that. `pair` is a new
    one that is not in place yet. `shown` is the key that sshd has at that place, as far as that is known.
    `is_news`: it is still to be dealt with or reported. `backup`: where the old private half is now.
    """

    def __init__(self, key: HostKey) -> None:
        self.key = key
        self.name = ""
        self.process: Process | None = None
        self.is_later = False
        self.pair: KeyPair | None = None
        self.shown = None if key.action == MAKE else key.public
        self.failure: Refusal | None = None
        self.is_news = True
        self.backup: str | None = None

    def result(self, *, may_be_refused: bool = True) -> HostKeyResult:
        """What became of it so far; of a dry run, what would.

        `may_be_refused`: whether sshd does without a key of a type that ssh-keygen refuses.
        """
        key, failure, shown = self.key, self.failure, self.shown
        if self.is_later and not failure:
            failure = Refusal(reasons.HOST_KEY_PENDING, f"{key.file} is being generated in the background")
        if failure:
            is_refused = may_be_refused and failure.reason is reasons.KEYGEN_REFUSED
            result = SKIPPED if is_refused or failure.reason is reasons.HOST_KEY_PENDING else FAILED
        else:
            others = {SKIP: SKIPPED, FAIL: FAILED}
            result = others.get(key.action, CHANGED if key.changes else UNCHANGED)
        return HostKeyResult(
            key.type or "unknown",
            key.file,
            result,
            shown.fingerprint if shown else None,
            failure or key.refusal,
            shown.line if shown else None,
            shown.bits if shown else 0,
            () if failure else key.changes,
        )

    def entries(self, result: HostKeyResult) -> list[events.Entry]:
        """The events of a host key that is not simply as it was, by what became of it."""
        key, why = self.key, result.refusal
        names = {"type": result.type, "file": result.file}
        code = why.reason.code if why else ""
        if why and why.reason is reasons.HOST_KEY_PENDING:
            return [events.HOST_KEY_PENDING(**names, reason=code)]
        if why and result.result in (FAILED, SKIPPED):
            event = events.HOST_KEY_FAILED if result.result == FAILED else events.HOST_KEY_SKIPPED
            return [event(**names, reason=code, detail=why.detail)]
        shown = {**names, "fingerprint": result.fingerprint or "none"}
        found = []
        if self.backup:
            found.append(events.HOST_KEY_SET_ASIDE(**shown, aside=self.backup, reason=code))
        if key.action == MAKE and key.public:
            old, new = key.public.fingerprint, shown["fingerprint"]
            found.append(events.HOST_KEY_REPLACED(**names, reason=code, old=old, new=new))
        elif key.action == MAKE:
            found.append(events.HOST_KEY_MADE(**shown))
        if "public-half" in key.changes:
            found.append(events.HOST_KEY_PUBLIC_DERIVED(**shown))
        if "mode" in key.changes:
            found.append(events.HOST_KEY_MODE_REPAIRED(**shown))
        if key.reason is reasons.HOST_KEY_FOREIGN:
            found.append(events.HOST_KEY_FOREIGN(**shown, reason=code))
        return found
