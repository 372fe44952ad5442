"""Host keys: which are wanted, and what is to be done about what was found. No I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Reason, Refusal
from firstkey.ssh import sshd_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.ledger import MadeHostKey
    from firstkey.config import HostKeys as Settings
    from firstkey.ssh.public_key import PublicKey

KEY_GROUP = "ssh_keys"
PRIVATE_MODE = 0o600
GROUP_MODE = 0o640
KINDS = ("rsa", "ecdsa", "ed25519")

GOOD = "good"
MISSING = "missing"
BROKEN = "broken"
MISMATCHED = "mismatched"
ENCRYPTED = "protected by a passphrase"
NO_PUBLIC_HALF = "without its public half"
IN_AGENT = "not there as a private key, and is left to sshd's agent"

KEEP = "keep"
MAKE = "make"
REPLACE = "replace"
SET_ASIDE = "set-aside"
DERIVE = "derive"
MEND = "mend"
SKIP = "skip"
FAIL = "fail"

_KIND = re.compile(r"(?<![a-z])(rsa|ecdsa|ed25519|dsa)(?![a-z])", re.IGNORECASE)


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
    """Of the pair as it is, or as it will be once its looks are mended and its public half is there."""
    remembered: MadeHostKey | None = None
    is_loose: bool = False
    """Others than root can get at the private half, or its mode makes sshd ignore it."""
    modified_ns: int = 0


class Now(NamedTuple):
    """Which instance and boot this is, each None while nobody knows.

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
    def makes_a_key(self) -> bool:
        """Whether ssh-keygen has to make a key for it."""
        return self.kind in (MAKE, REPLACE, SET_ASIDE)

    @property
    def keeps_the_key(self) -> bool:
        """Whether the host shows the same key afterwards."""
        return self.kind in (KEEP, MEND, DERIVE)

    @property
    def changes(self) -> tuple[str, ...]:
        """What of the host key is another one afterwards (model.HostKeyResult)."""
        if self.makes_a_key:
            return ("key",)
        parts = {"mode": self.keeps_the_key and self.found.is_loose, "public-half": self.kind == DERIVE}
        return tuple(part for part, changes in parts.items() if changes)

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
    """The type that the file's name promises: the conventional name, or one with the type as a word in it."""
    conventional = sshd_config.host_key_type(file)
    if conventional:
        return conventional
    match = _KIND.search(file.rsplit("/", 1)[-1])
    return match[1].lower() if match else None


def decide(found: Found, settings: Settings, now: Now) -> Action:
    """What to do about one host key."""
    if found.condition == IN_AGENT:
        return Action(found, SKIP, reasons.HOST_KEY_IN_AGENT)
    if found.condition == ENCRYPTED:
        return Action(found, SKIP, reasons.HOST_KEY_ENCRYPTED)
    if found.condition in (MISSING, BROKEN, MISMATCHED):
        return _anew(found, settings)
    if _is_to_go(found, settings, now):
        return _needing_a_kind(found, REPLACE, reasons.HOST_KEY_CLONED, _origin(found))
    kind = DERIVE if found.condition == NO_PUBLIC_HALF else MEND if found.is_loose else KEEP
    return Action(found, kind, *_doubt(found, now))


def _anew(found: Found, settings: Settings) -> Action:
    if settings.regenerate == "never":
        return Action(found, SKIP, reasons.REGENERATION_OFF)
    if found.condition == MISSING:
        return _needing_a_kind(found, MAKE, None)
    return _needing_a_kind(found, SET_ASIDE, reasons.HOST_KEY_BROKEN)


def _needing_a_kind(found: Found, action: str, reason: Reason | None, detail: str = "") -> Action:
    kind = found.wanted.kind or (found.public.short_type if found.public else None)
    if kind not in KINDS:
        is_obsolete = kind == "dsa"
        unknown = reasons.HOST_KEY_TYPE_OBSOLETE if is_obsolete else reasons.HOST_KEY_TYPE_UNKNOWN
        return Action(found, SKIP, unknown)
    return Action(found._replace(wanted=found.wanted._replace(kind=kind)), action, reason, detail)


def _is_to_go(found: Found, settings: Settings, now: Now) -> bool:
    """Whether a good key is to be replaced on this instance."""
    key = found.remembered
    if now.instance is None or settings.regenerate not in ("clones", "new-instance"):
        return False
    if _is_anothers(key, now):
        return True
    is_new_here = (key is None or key.instance != now.instance) and not _is_cloud_inits(found, now)
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


def second_look(actions: Sequence[Action]) -> list[Action]:
    """What is left to do once the instance is known, of a system that was worked on before it was."""
    return [action for action in actions if action.kind in (KEEP, REPLACE)]
