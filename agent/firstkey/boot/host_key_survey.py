"""Looking at host keys: whether each that is wanted is there and good. Nothing is changed here.

Every key is looked at on every boot: a power cut after key generation leaves empty or torn files.
A pair whose digest the ledger knows was found good before; only others are put to ssh-keygen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.boot import host_keys, neighbours, sealed
from firstkey.boot.host_keys import Action, Found, Now
from firstkey.boot.ledger import MadeHostKey
from firstkey.errors import FirstkeyError
from firstkey.ssh import public_key
from firstkey.system import openssh, outside, scratch
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.boot.host_keys import Wanted
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.sealed import Sealed
    from firstkey.boot.site import Site
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.files import File
    from firstkey.system.tree import Tree

LIMIT = 64 * 1024  # bytes a file; an RSA key of 16384 bits takes a fifth of that


def survey(site: Site, files: Sequence[str], ledger: Ledger, instance: str | None) -> list[Action]:
    """Look at every wanted host key and decide."""
    is_known = ledger.instance is not None and instance in (None, ledger.instance)
    now = Now(instance, site.boot_id(), is_known, neighbours.began(site.tree))
    removed = sealed.load(site.tree)
    actions: dict[str, Action] = {}
    for want in host_keys.wanted(site.config.host_keys, files):
        action = _decided(site, want, ledger, now, removed)
        if not want.optional or action.kind == host_keys.REPLACE:
            # Two HostKey lines may lead to one file, through a link.
            actions.setdefault(action.found.place or want.file, action)
    return list(actions.values())


def _decided(site: Site, want: Wanted, ledger: Ledger, now: Now, removed: Sealed) -> Action:
    try:
        found = _back_from_an_image(inspect(site, want, ledger), removed, now)
    except FirstkeyError as error:
        reason = error.reason
        if reason is reasons.PERMISSION_DENIED and not openssh.is_root():
            reason = reasons.NEEDS_ROOT
        return Action(Found(want, "unknown"), host_keys.FAIL, reason, error.message)
    return host_keys.decide(found, site.config.host_keys, now)


def _back_from_an_image(found: Found, removed: Sealed, now: Now) -> Found:
    """A key that `firstkey seal` took out of an image and that is there again is not this instance's own."""
    if found.public is None or not removed.knows(found.public.blob, now.instance):
        return found
    file, fingerprint = found.wanted.file, found.public.fingerprint
    origin = MadeHostKey(file, fingerprint, found.digest, sealed.ORIGIN, None, made=True)
    return found._replace(remembered=origin)


def inspect(site: Site, want: Wanted, ledger: Ledger) -> Found:
    """Look at one host key; its files are only read. Raises FirstkeyError where that is impossible."""
    if want.file.endswith(".pub"):
        return Found(want, host_keys.IN_AGENT)
    place, private = _half(site.tree, want.file)
    if private is None:
        return Found(want, host_keys.IN_AGENT if ledger.sshd_has_key_agent else host_keys.MISSING, place)
    public = _half(site.tree, f"{want.file}.pub")[1]
    found = _judge(site, want, private, public, ledger)
    return found._replace(place=place, modified_ns=private.stamp.modified_ns)


def _half(tree: Tree, path: str) -> tuple[str, File | None]:
    """Where `path` leads, and what is there. Each half has its own way: either may be a link."""
    found = tree.locate(path)
    if found is None:
        return path, None
    directory, name = found
    with directory:
        return directory.join(name), directory.read(name, limit=LIMIT)


def _judge(site: Site, want: Wanted, private: File, public: File | None, ledger: Ledger) -> Found:
    said = _parsed(public.content) if public else None
    if said and public:
        last = ledger.host_key_at(want.file)
        digest = digest_of(private.content, public.content, _looks(private))
        if last and last.digest == digest:
            return Found(want, host_keys.GOOD, "", said, digest, last)
    derived = _derived(private.content)
    if derived is None:
        return Found(want, host_keys.ENCRYPTED if _is_encrypted(private.content) else host_keys.BROKEN)
    is_loose = _is_loose(site, private)
    looks = (host_keys.PRIVATE_MODE, os.geteuid(), 0) if is_loose else _looks(private)
    line = public.content if public and said else public_line(derived)
    condition = _condition(said, derived)
    digest = digest_of(private.content, line, looks)
    return Found(want, condition, "", derived, digest, ledger.host_key(derived.fingerprint), is_loose)


def _condition(said: PublicKey | None, derived: PublicKey) -> str:
    if said is None:
        return host_keys.NO_PUBLIC_HALF
    return host_keys.GOOD if said.blob == derived.blob else host_keys.MISMATCHED


def _looks(private: File) -> tuple[int, int, int]:
    """Mode, owner, and the group where it has a say."""
    return private.mode, private.uid, private.gid if private.mode & 0o070 else 0


def _is_loose(site: Site, private: File) -> bool:
    """OpenSSH reads no key of its own that others can read, but Fedora's OpenSSH lets the group ssh_keys."""
    if openssh.is_root() and private.uid != 0:
        return True
    if private.mode & 0o077 != 0o040 or private.gid != site.accounts.group_id(host_keys.KEY_GROUP):
        return bool(private.mode & 0o077)
    if outside.ask:
        return False  # a boxed process can give no copy to the group
    with scratch.directory() as private_place:
        looks = Looks(private.mode, (private.uid, private.gid), durable=False)
        private_place.replace("judged", private.content, looks)
        return not openssh.loads(f"{private_place.on_host}/judged")


def digest_of(private: bytes, public: bytes, looks: tuple[int, int, int]) -> str:
    """What tells this pair from any other, from a damaged one, and from one that others can get at.

    It gives nothing of the key away. `looks` are the private half's mode, owner and group.
    """
    from firstkey.ssh.public_key import sha256

    digest: str = sha256(b"%d %o %d %d\n%b%b" % (len(private), *looks, private, public)).hexdigest()
    return digest


def public_line(key: PublicKey) -> bytes:
    """The content of a public half."""
    return f"{key.line}\n".encode("utf-8", "surrogateescape")


def _derived(private: bytes) -> PublicKey | None:
    """The public half out of the private one; None where ssh-keygen can make nothing of it."""
    if not private.strip(b"\0 \t\r\n"):
        return None
    line = openssh.public_half(private)
    return _parsed(line) if line else None


def _is_encrypted(private: bytes) -> bool:
    return bool(private.strip(b"\0 \t\r\n")) and openssh.is_encrypted(private)


def _parsed(content: bytes) -> PublicKey | None:
    """The first public key in the file, as sshd reads one (authfile.c: sshkey_load_public)."""
    keys = (public_key.read_key(line.strip(b" \t\r")) for line in content.split(b"\n"))
    return next((key for key in keys if key), None)
