"""Launch keys for sshd to ask for at each login (AuthorizedKeysCommand), where no file can hold them.

They are kept in /run for a while, so that a login costs no question, and works while the metadata service
does not answer. /run is gone with the boot, so no key of another instance can be in it.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from firstkey import reasons
from firstkey.boot import launch_keys
from firstkey.boot.target import Target
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key
from firstkey.ssh.public_key import PublicKey
from firstkey.system.files import Looks
from firstkey.system.tree import Tree

DIRECTORY = "/run/firstkey-keys"
NAME = "keys.json"
LIMIT = 1024 * 1024
VERSION = 1
OTHERS_WRITE = 0o022


def keys(tree: Tree, *, ask: Callable[[], Answer], ttl: float) -> tuple[PublicKey, ...]:
    """The launch keys: those that are kept, if they are not older than `ttl` seconds, else what is answered.

    Older ones serve where there is no answer: an outage takes no key away. Raises FirstkeyError where
    there are none of these either. What cannot be kept is answered all the same: then each login asks.
    """
    kept, age = _kept(tree) or (None, 0.0)
    if kept is not None and age <= ttl:
        return kept
    try:
        fresh = launch_keys.judge(ask().keys)[0]
    except FirstkeyError:
        if kept is None:
            raise
        return kept
    plain = {"version": VERSION, "at": _now(), "keys": [key.line for key in fresh]}
    with suppress(FirstkeyError), tree.opened(DIRECTORY) as directory:
        _require_own(directory.status())
        directory.replace(NAME, json.dumps(plain).encode(), Looks(0o600, durable=False))
    return fresh


def _kept(tree: Tree) -> tuple[tuple[PublicKey, ...], float] | None:
    """The keys of this boot, and how many seconds old they are; None where there is nothing to be trusted."""
    try:
        with tree.opened(DIRECTORY) as directory:
            _require_own(directory.status())
            _require_own(directory.status(NAME))
            file = directory.read(NAME, limit=LIMIT)
        plain = json.loads(file.content if file else b"")
        found = tuple(public_key.parse_launch_key(line.encode()) for line in plain["keys"])
        age = _now() - float(plain["at"])
        return (found, age) if plain["version"] == VERSION and age >= 0 else None
    except (FirstkeyError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _require_own(found: os.stat_result | None) -> None:
    """A user who can write there can let anyone log in, so it has to be the caller's alone."""
    is_own = found and not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid()
    if not (found and is_own) or found.st_mode & OTHERS_WRITE:
        raise FirstkeyError(f"{DIRECTORY} is not this user's alone", reason=reasons.UNSAFE_DIRECTORY)


def _now() -> float:
    """Seconds since the boot, suspended ones too: the clock may be set meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lines(target: Target, user: str, ask: Callable[[], tuple[PublicKey, ...]]) -> list[str]:
    """The lines for the user; none, and no question, for one who is not to get the launch keys."""
    configured = target.config.keys.users
    redirected = user == "root" and target.config.keys.redirect_root
    if user not in configured and not redirected:
        return []
    others = (name for name in configured if redirected and name != "root")
    other = next((name for name in others if target.accounts.find(name)), None)
    if redirected and other is None and "root" not in configured:
        return []
    found = launch_keys.lines(ask(), redirect_to=other)
    return [line.text.decode("utf-8", "surrogateescape").rstrip("\n") for line in found]
