"""Host keys: which are wanted, whether each is good, and making what is missing.

Every key is looked at on every boot: a power cut after key generation leaves empty or torn files.
A pair whose digest the ledger knows was found good before; only others are put to ssh-keygen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.reasons import Reason, Refusal
from firstkey.ssh import public_key, sshd_config
from firstkey.ssh.digest import sha256
from firstkey.system import openssh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.ledger import Ledger, MadeHostKey
    from firstkey.boot.site import Site
    from firstkey.config import HostKeys as Settings
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.files import File

LIMIT = 64 * 1024
KEY_GROUP = "ssh_keys"
KINDS = ("rsa", "ecdsa", "ed25519")

GOOD = "good"
MISSING = "missing"
BROKEN = "broken"
MISMATCHED = "mismatched"
ENCRYPTED = "encrypted"
NO_PUBLIC_HALF = "no-public-half"

KEEP = "keep"
MAKE = "make"
REPLACE = "replace"
SET_ASIDE = "set-aside"
DERIVE = "derive"
MEND = "mend"
SKIP = "skip"


class Wanted(NamedTuple):
    """A host key that there should be; `kind` is None where the file's name does not tell the type."""

    file: str
    kind: str | None


class Found(NamedTuple):
    """What is there in place of a wanted host key."""

    wanted: Wanted
    condition: str
    public: PublicKey | None = None
    digest: str = ""
    remembered: MadeHostKey | None = None
    exposed: bool = False
    """The private half's mode is one that makes sshd ignore it."""


class Action(NamedTuple):
    """What is to be done about one host key, and why."""

    found: Found
    kind: str
    reason: Reason | None = None

    @property
    def makes_a_key(self) -> bool:
        """Whether ssh-keygen has to make a key for it."""
        return self.kind in (MAKE, REPLACE, SET_ASIDE)

    @property
    def refusal(self) -> Refusal | None:
        """The reason, with the file it is about."""
        if self.reason is None:
            return None
        return Refusal(self.reason, f"{self.found.wanted.file} is {self.found.condition}")

    def describe(self) -> str:
        """One line for `--dry-run`."""
        file, kind = self.found.wanted
        words = {
            KEEP: f"keep the host key {file}",
            MEND: f"set the mode of the host key {file}, which sshd would ignore, to 0600",
            MAKE: f"make the missing {kind} host key {file}",
            REPLACE: f"replace the host key {file}, which belongs to another instance",
            SET_ASIDE: f"set the {self.found.condition} host key {file} aside and make a new one",
            DERIVE: f"derive the lost public half {file}.pub",
            SKIP: f"leave {file} alone ({self.reason.code if self.reason else 'unknown'})",
        }
        return words[self.kind]


def wanted(settings: Settings, sshd_files: Sequence[str]) -> list[Wanted]:
    """The host keys that sshd's HostKey settings ask for, or those of the configured types."""
    asked = [Wanted(file, kind_of(file)) for file in sshd_files if not file.endswith(".pub")]
    if tuple(settings.types) == ("auto",):
        return asked
    by_kind = {want.kind: want for want in reversed(asked)}
    return [by_kind.get(kind, Wanted(f"/etc/ssh/ssh_host_{kind}_key", kind)) for kind in settings.types]


def kind_of(file: str) -> str | None:
    """The type that the file's name promises: the conventional name, or one with the type in it."""
    name = file.rsplit("/", 1)[-1]
    return sshd_config.host_key_type(file) or next((kind for kind in KINDS if kind in name), None)


def inspect(site: Site, want: Wanted, remembered: MadeHostKey | None) -> Found:
    """Look at one host key; its files are only read."""
    tree = site.tree
    place = tree.locate(want.file)
    if place is None:
        return Found(want, MISSING)
    directory, name = place
    with directory:
        private = directory.read(name, limit=LIMIT)
        public = directory.read(f"{name}.pub", limit=LIMIT)
    if private is None:
        return Found(want, MISSING)
    found = _judge(want, private, public, remembered)
    return found._replace(exposed=_is_exposed(private, site.accounts.group_id(KEY_GROUP)))


def _is_exposed(private: File, key_group: int | None) -> bool:
    """OpenSSH ignores a private key that others can read; Fedora's and Amazon's lets the group ssh_keys."""
    allowed = 0o640 if key_group is not None and private.gid == key_group else 0o600
    return bool(private.mode & 0o077 & ~allowed)


def _judge(want: Wanted, private: File, public: File | None, remembered: MadeHostKey | None) -> Found:
    said = _parsed(public.content) if public else None
    digest = digest_of(private.content, public.content if public else b"")
    if remembered and remembered.digest == digest and said:
        return Found(want, GOOD, said, digest, remembered)
    line = openssh.public_half(private.content)
    derived = _parsed(line) if line else None
    if derived is None:
        encrypted = private.content.strip(b"\0 \n") and openssh.is_encrypted(private.content)
        return Found(want, ENCRYPTED if encrypted else BROKEN)
    if remembered and remembered.fingerprint != derived.fingerprint:
        remembered = None
    if said is None:
        return Found(want, NO_PUBLIC_HALF, derived, digest, remembered)
    condition = GOOD if said.blob == derived.blob else MISMATCHED
    return Found(want, condition, derived, digest, remembered)


def digest_of(private: bytes, public: bytes) -> str:
    """What tells this pair from any other, and from a damaged one; it gives nothing of the key away."""
    digest: str = sha256(b"%d\n%b%b" % (len(private), private, public)).hexdigest()
    return digest


def decide(found: Found, settings: Settings, instance: str | None) -> Action:
    """What to do about one host key. `instance` is None while no instance-id is known."""
    if settings.regenerate == "never":
        off = None if found.condition == GOOD else reasons.REGENERATION_OFF
        return Action(found, SKIP if off else KEEP, off)
    if found.condition == ENCRYPTED:
        return Action(found, SKIP, reasons.HOST_KEY_ENCRYPTED)
    if found.condition in (BROKEN, MISMATCHED):
        return _needing_a_kind(found, SET_ASIDE, reasons.HOST_KEY_BROKEN)
    if found.condition == MISSING:
        return _needing_a_kind(found, MAKE, None)
    if instance and _is_anothers(found.remembered, settings, instance):
        return _needing_a_kind(found, REPLACE, reasons.HOST_KEY_CLONED)
    if found.condition == NO_PUBLIC_HALF:
        return Action(found, DERIVE)
    return Action(found, MEND if found.exposed else KEEP)


def _needing_a_kind(found: Found, action: str, reason: Reason | None) -> Action:
    kind = found.wanted.kind or (found.public.short_type if found.public else None)
    if kind not in KINDS:
        return Action(found, SKIP, reasons.HOST_KEY_TYPE_UNKNOWN)
    return Action(found._replace(wanted=found.wanted._replace(kind=kind)), action, reason)


def _is_anothers(key: MadeHostKey | None, settings: Settings, instance: str) -> bool:
    """Whether the key is positively another's (or, by `new-instance`, not known to be this instance's)."""
    if settings.regenerate == "new-instance":
        return key is None or key.instance != instance
    if settings.regenerate != "clones" or key is None or not key.made:
        return False
    return key.instance is not None and key.instance != instance


def bound(ledger: Ledger, instance: str, boot: str | None) -> Ledger:
    """The ledger with the keys made earlier in this boot tied to the instance, now that it is known."""
    keys = tuple(
        key._replace(instance=instance) if key.instance is None and key.boot == boot else key
        for key in ledger.host_keys
    )
    return ledger._replace(host_keys=keys)


def survey(site: Site, files: Sequence[str], ledger: Ledger, instance: str | None) -> list[Action]:
    """Look at every wanted host key and decide; nothing is changed."""
    actions = []
    for want in wanted(site.config.host_keys, files):
        try:
            found = inspect(site, want, ledger.host_key(want.file))
        except FirstkeyError as error:
            found = Found(want, error.message)
            actions.append(Action(found, SKIP, error.reason))
            continue
        actions.append(decide(found, site.config.host_keys, instance))
    return actions


def _parsed(line: bytes) -> PublicKey | None:
    try:
        return public_key.parse_launch_key(line)
    except FirstkeyError:
        return None
