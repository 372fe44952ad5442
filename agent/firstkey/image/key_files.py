"""Which files let somebody log in with a key: wherever sshd looks, for every account, and where it could."""

from __future__ import annotations

import posixpath
import stat
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey.image.verdict import Doubt
from firstkey.image.watches import Named
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.image.subject import Image
    from firstkey.model import Account
    from firstkey.ssh.sshd_config import Effective

KIND = "authorized-keys"
NAMES = frozenset(("authorized_keys", "authorized_keys2"))
WATCH = Named(KIND, NAMES)
"""Also where sshd does not look today: in the homes of accounts that are gone, or under another setting."""
AFTERBURN = "~/.ssh/authorized_keys.d/*"
FRAGMENTS = "~/.ssh/authorized_keys*"


class KeyFiles(NamedTuple):
    """The files that there are, where they really lie, and what could not be looked at.

    `links`: those in the place of a file that sshd looks at, but for what is masked by a link to /dev/null.
    """

    paths: tuple[str, ...]
    links: tuple[str, ...]
    doubts: tuple[Doubt, ...]


def key_files(image: Image) -> KeyFiles:
    """Every such file, sorted."""
    doubts: list[Doubt] = []
    found = {sighting.path for sighting in image.sightings(KIND)}
    found.update(image.glob(FRAGMENTS, doubts), image.glob(AFTERBURN, doubts))
    configured = set(_configured(image, doubts))
    found |= configured
    doubts += image.home_doubts
    files = (image.file(path, doubts) for path in found)
    paths = sorted({file.path for file in files if file})
    links = tuple(sorted(path for path in configured if _is_in_the_way(image, path, doubts)))
    return KeyFiles(tuple(paths), links, tuple(dict.fromkeys(doubts)))


def _is_in_the_way(image: Image, path: str, doubts: list[Doubt]) -> bool:
    try:
        status = image.status(path)
        if status is None or not stat.S_ISLNK(status.st_mode) or image.is_elsewhere(path):
            return False
        return walk.follow(image.tree, path) is not None or image.read(path) is None
    except FirstkeyError as error:
        if error.reason is not reasons.NOT_A_DIRECTORY:
            doubts.append(Doubt(path, error.refusal))
        return False


def _configured(image: Image, doubts: list[Doubt]) -> Iterator[str]:
    for account in image.accounts.all():
        for pattern in _patterns(image, account, doubts):
            try:
                yield from map(posixpath.normpath, image.sshd.key_files(account, [pattern]))
            except FirstkeyError as error:
                doubts.append(Doubt(pattern, error.refusal))
            # Where all users' files lie in one directory, those of accounts that are gone lie there too.
            directory, _, name = pattern.rpartition("/")
            if name in ("%u", "%U") and directory.startswith("/") and "%" not in directory:
                yield from (path for path in image.glob(f"{directory}/*", doubts) if _is_of_keys(image, path))


def has_key(content: bytes) -> bool:
    """Whether any line has a key in it: the name of a type, and behind it what it names (sshd(8))."""
    lines = (line.split() for line in content.split(b"\n") if not line.lstrip().startswith(b"#"))
    return any(_is_key(*pair) for words in lines for pair in zip(words, words[1:]))


def _is_key(kind: bytes, blob: bytes) -> bool:
    # "AAAA" are the first bytes of the length of the type's name, which is short.
    return kind.startswith((b"ssh-", b"ecdsa-", b"sk-", b"rsa-")) and blob.startswith(b"AAAA")


def _is_of_keys(image: Image, path: str) -> bool:
    """Whether a file beside those of the accounts is one of keys, and not of anything else."""
    try:
        file = image.file(path)
        return file is not None and has_key(image.read(file.path) or b"")
    except FirstkeyError:
        return True  # told by who looks at it


def _patterns(image: Image, account: Account, doubts: list[Doubt]) -> list[str]:
    """Where sshd looks for this account: the effective setting, and every other one that is written down."""
    written = [value for value in image.sshd.written("AuthorizedKeysFile") if value.lower() != "none"]
    return list(dict.fromkeys([*_effective(image, account, doubts).authorized_keys_files, *written]))


def _effective(image: Image, account: Account, doubts: list[Doubt]) -> Effective:
    if not image.sshd.is_there:
        return DEFAULTS
    try:
        return image.sshd.effective(account.name)
    except FirstkeyError as error:
        doubt = Doubt(image.sshd.config, error.refusal)
        if doubt not in doubts:
            doubts.append(doubt)
        return DEFAULTS
