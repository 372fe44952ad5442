"""Launch keys for sshd to ask for at each login (AuthorizedKeysCommand), where no file can hold them.

They are kept in /run for a while, so that a login costs no question, and works while the metadata service
does not answer. /run is gone with the boot, so no key of another instance can be in it.
"""

from __future__ import annotations

import json
import os
import stat
import time
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey.boot import launch_keys
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firstkey.boot.site import Site
    from firstkey.model import Answer
    from firstkey.ssh.public_key import PublicKey
    from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey-keys"
NAME = "keys.json"
LIMIT = 1024 * 1024
VERSION = 1
OTHERS_WRITE = 0o022


class Kept(NamedTuple):
    """What was kept: the keys, and for how many seconds."""

    keys: tuple[PublicKey, ...]
    age: float


class Cache:
    """The keys that were had last, in a directory that is the caller's alone.

    A user who can write there can let anyone log in, so a directory that others may write is not used.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def read(self) -> Kept | None:
        """What was kept in this boot, or None where there is nothing that can be trusted."""
        try:
            content = self._content()
            plain = json.loads(content) if content else None
            if not plain or plain["version"] != VERSION:
                return None
            keys = tuple(public_key.parse_launch_key(line.encode()) for line in plain["keys"])
            age = _now() - float(plain["at"])
        except (FirstkeyError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return Kept(keys, age) if age >= 0 else None

    def write(self, keys: Sequence[PublicKey]) -> None:
        """Keep these. Raises FirstkeyError where there is no directory of the caller's own to do so."""
        plain = {"version": VERSION, "at": _now(), "keys": [key.line for key in keys]}
        directory = self._tree.open(DIRECTORY)
        if directory is None:
            raise FirstkeyError(f"{DIRECTORY} does not exist", reason=reasons.NOT_A_DIRECTORY)
        with directory:
            if not _is_own(directory.status()):
                message = f"{DIRECTORY} is not this user's alone"
                raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)
            directory.replace(NAME, json.dumps(plain).encode(), Looks(0o600, durable=False))

    def _content(self) -> bytes | None:
        directory = self._tree.open(DIRECTORY)
        if directory is None:
            return None
        with directory:
            if not (_is_own(directory.status()) and _is_own(directory.status(NAME))):
                return None
            file = directory.read(NAME, limit=LIMIT)
            return file.content if file else None


def keys(cache: Cache, *, ask: Callable[[], Answer], ttl: float) -> tuple[PublicKey, ...]:
    """The launch keys: those that are kept, if they are not older than `ttl` seconds, else what is answered.

    Older ones serve where there is no answer: an outage takes no key away. Raises FirstkeyError where
    there are none of these either. What cannot be kept is answered all the same.
    """
    kept = cache.read()
    if kept and kept.age <= ttl:
        return kept.keys
    try:
        fresh = launch_keys.judge(ask().keys)[0]
    except FirstkeyError:
        if kept is None:
            raise
        return kept.keys
    _keep(cache, fresh)
    return fresh


def lines(site: Site, user: str, ask: Callable[[], tuple[PublicKey, ...]]) -> list[str]:
    """The lines for the user; none, and no question, for one who is not to get the launch keys."""
    configured = site.config.keys.users
    redirected = user == "root" and site.config.keys.redirect_root
    if user not in configured and not redirected:
        return []
    target = _target(site) if redirected else None
    if redirected and target is None and "root" not in configured:
        return []
    found = launch_keys.lines(ask(), redirect_to=target)
    return [line.text.decode("utf-8", "surrogateescape").rstrip("\n") for line in found]


def _target(site: Site) -> str | None:
    """The user to log in as in root's place."""
    others = (name for name in site.config.keys.users if name != "root")
    return next((name for name in others if site.accounts.find(name)), None)


def _keep(cache: Cache, fresh: Sequence[PublicKey]) -> None:
    try:
        cache.write(fresh)
    except FirstkeyError:
        # Without a place to keep them, each login asks.
        return


def _now() -> float:
    """Seconds since the boot, suspended ones too: the clock may be set meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_own(found: os.stat_result | None) -> bool:
    if found is None or stat.S_ISLNK(found.st_mode):
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
