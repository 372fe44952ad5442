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
LOCKS = tuple(f"{name}.lock" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
"""What useradd and its like hold while they write, in /etc, each with the number of the process in it."""
LONGEST_SECONDS = 60
"""So long after the note, useradd had ended: command.SECONDS is less."""


class Begun(NamedTuple):
    """What was there before useradd started: the home, and the number of the group of the user's name.

    `boot` is the kernel's boot id of then, as far as it is known.
    """

    had_home: bool
    group: int | None
    boot: str | None = None


def note(site: Site, name: str, begun: Begun) -> None:
    """Note that the account is about to be made. Raises FirstkeyError; then it is not to be made."""
    content = json.dumps(begun._asdict()).encode() + b"\n"
    with site.tree.ensure(DIRECTORY, mode=0o700) as directory:
        directory.remove_stale()
        directory.replace(_file(name), content, Looks(0o600))


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

    Where somebody has put something into a home that useradd had begun, the account was completed by other
    means, and nothing of it goes.
    """
    try:
        content = site.tree.read(f"{DIRECTORY}/{_file(name)}", limit=LIMIT)
        if content is None:
            return None
        begun = _parsed(content)
        return begun if begun.had_home or not _was_used(site, name, home) else None
    except (FirstkeyError, ValueError, KeyError, TypeError):
        return None


def _parsed(content: bytes) -> Begun:
    plain = json.loads(content)
    group, boot = plain["group"], plain["boot"]
    group = group if isinstance(group, int) else None
    return Begun(plain["had_home"] is not False, group, boot if isinstance(boot, str) else None)


def _was_used(site: Site, name: str, home: str) -> bool:
    """Whether a name was given or taken in the home after useradd had its time, or keys were put there."""
    there = site.tree.open(home)
    if there is None:
        return False
    with there, site.tree.opened(DIRECTORY) as directory:
        noted, changed = directory.status(_file(name)), there.status()
        late = noted and changed and changed.st_mtime > noted.st_mtime + LONGEST_SECONDS
        return bool(late or there.status(".ssh"))


def _settle_home(site: Site, account: Account, begun: Begun) -> None:
    home = site.tree.open(account.home)
    if home:
        with home, site.tree.opened(os.path.dirname(account.home)) as above:
            found = home.status()
            if found and found.st_uid != account.uid and not begun.had_home:
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
    with site.tree.opened("/etc") as etc, site.tree.opened(DIRECTORY) as directory:
        noted = directory.status(_file(name))
        for lock in LOCKS:
            found = etc.status(lock)
            if noted and found and found.st_mtime <= noted.st_mtime + LONGEST_SECONDS:
                etc.remove(lock)


def _file(name: str) -> str:
    return f"making-{name}"
