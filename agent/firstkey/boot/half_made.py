"""Accounts whose making was cut off: what there is of them is taken away again, and it begins anew.

useradd writes one file after the other, and makes the home last (useradd(8)). When the power goes between,
there is an account without a home, a group or a line in /etc/shadow, that looks like one which is there.
So it is noted on the disk before useradd starts that an account is being made, and what of it was there
before; the note goes, durably, as soon as useradd has ended well.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.boot.ledger import DIRECTORY
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.system import erase, settle
from firstkey.system.files import Looks

if TYPE_CHECKING:
    from firstkey.boot.site import Site
    from firstkey.model import Account

LIMIT = 4096
SHADOW_LIMIT = 16 * 1024 * 1024
NO_PASSWORD = "*"  # noqa: S105 - matches no password, and unlike "!" is no lock that sshd heeds (shadow(5))
LOCKS = tuple(f"{name}.lock" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
"""What useradd and its like hold while they write, in /etc, each with the number of the process in it."""
LONGEST_SECONDS = 60.0
"""So long after the note, useradd had ended: command.SECONDS is less."""
LEEWAY_SECONDS = 2.0
"""How exact a file system may be about times."""


class Begun(NamedTuple):
    """What was there before useradd started: the home, and the number of the group of the user's name.

    `boot` is the kernel's boot id of then, as far as it is known. `since` is set while what useradd had begun
    is taken away again: when it had begun (seconds since the epoch).
    """

    had_home: bool
    group: int | None
    boot: str | None = None
    since: float | None = None


def note(site: Site, name: str, begun: Begun) -> None:
    """Note that the account is about to be made. Raises FirstkeyError; then it is not to be made."""
    content = json.dumps(begun._asdict()).encode() + b"\n"
    with site.tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        directory.replace(_file(name), content, Looks(0o600))


def unmaking(site: Site, name: str, begun: Begun) -> None:
    """Note that what there is of the account is about to go: that changes the home, and takes locks.

    Raises FirstkeyError; then nothing is to go.
    """
    since = begun.since
    if since is None:
        noted = _noted(site, name)
        since = noted.st_mtime if noted else None
    note(site, name, begun._replace(boot=site.boot_id(), since=since))


def finish(site: Site, name: str, begun: Begun) -> None:
    """The account is made: put all of it on the disk, as useradd does not, and then take the note away.

    Raises FirstkeyError, and leaves the note, where useradd kept to itself that the home is not the user's.
    """
    with site.tree.opened("/etc") as etc:
        settle.names(etc)
    account = site.accounts.find(name)
    if account:
        _settle_home(site, account, begun)
    forget(site, name)


def forget(site: Site, name: str) -> None:
    """Nothing is half made."""
    directory = site.tree.open(DIRECTORY)
    if directory:
        with directory:
            directory.remove(_file(name), durable=True)


def found(site: Site, name: str, home: str) -> Begun | None:
    """What was noted of an account whose making was cut off, or None where it was not.

    Where somebody has given the account a password, or put something into a home that useradd had begun, it
    was completed by other means, and nothing of it goes. Nor does anything where the home is older than the
    note: it came later, with a file system of its own, say.
    """
    begun, is_others = _looked_up(site, name, home)
    return None if is_others else begun


def is_outdated(site: Site, name: str, home: str) -> bool:
    """Whether there is a note of an account that was completed by other means."""
    begun, is_others = _looked_up(site, name, home)
    return begun is not None and is_others


def _looked_up(site: Site, name: str, home: str) -> tuple[Begun | None, bool]:
    try:
        content = site.tree.read(f"{DIRECTORY}/{_file(name)}", limit=LIMIT)
        if content is None:
            return None, False
        begun = _parsed(content)
        is_others = not begun.had_home and _is_others(site, name, home, begun)
        return begun, is_others or _has_password(site, name)
    except (FirstkeyError, ValueError, KeyError, TypeError, RecursionError):
        return None, False


def _parsed(content: bytes) -> Begun:
    plain = json.loads(content)
    group, boot, since = plain["group"], plain["boot"], plain.get("since")
    return Begun(
        plain["had_home"] is not False,
        group if isinstance(group, int) else None,
        boot if isinstance(boot, str) else None,
        since if isinstance(since, float) else None,
    )


def _has_password(site: Site, name: str) -> bool:
    """Whether somebody has given it one: useradd wrote "*" at once, or nothing yet (shadow(5))."""
    return any(
        line.split(b":")[:1] == [name.encode()] and line.split(b":")[1:2] != [NO_PASSWORD.encode()]
        for line in (site.tree.read("/etc/shadow", limit=SHADOW_LIMIT) or b"").split(b"\n")
    )


def _is_others(site: Site, name: str, home: str, begun: Begun) -> bool:
    """Whether the home is not the one that useradd began, or somebody has used it since."""
    there = site.tree.open(home)
    if there is None:
        return False
    with there:
        noted, found = _noted(site, name), there.status()
        if noted is None or found is None:
            return True
        is_older = found.st_mtime < (begun.since or noted.st_mtime) - LEEWAY_SECONDS
        is_later = begun.since is None and found.st_mtime > noted.st_mtime + LONGEST_SECONDS
        return is_older or is_later or there.status(".ssh") is not None


def _noted(site: Site, name: str) -> os.stat_result | None:
    with site.tree.opened(DIRECTORY) as directory:
        return directory.status(_file(name))


def _settle_home(site: Site, account: Account, begun: Begun) -> None:
    if begun.had_home:
        return  # useradd puts nothing into a home that is there, and what is in it may be without end
    home = site.tree.open(account.home)
    if home:
        with home, site.tree.opened(os.path.dirname(account.home)) as above:
            found = home.status()
            if found and found.st_uid != account.uid:
                message = f"useradd left {account.home} to user {found.st_uid}, not to {account.name}"
                raise FirstkeyError(message, reason=reasons.USER_CREATE_FAILED)
            settle.everything(home)
            settle.names(above)


def remove_home(site: Site, home: str) -> None:
    """Take away the home that useradd had begun: nobody could log in yet, so it holds nobody's work."""
    above = site.tree.open(os.path.dirname(home))
    if above:
        with above:
            erase.remove(above, os.path.basename(home))


def remove_dead_locks(site: Site, name: str, begun: Begun) -> None:
    """Take away the locks that went down with an earlier boot, when useradd was at work.

    Its like take a lock over where no process has its number; at the next boot another one may well have.
    """
    if begun.boot is None or begun.boot == site.boot_id():
        return
    noted = _noted(site, name)
    with site.tree.opened("/etc") as etc:
        for lock in LOCKS:
            found = etc.status(lock)
            if noted and found and found.st_mtime <= noted.st_mtime + LONGEST_SECONDS:
                etc.remove(lock)


def _file(name: str) -> str:
    return f"making-{name}"
