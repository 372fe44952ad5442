"""Files of keys in which there is nothing to change: whether sshd still heeds them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from firstkey import events, reasons
from firstkey.boot import rights, strict_modes
from firstkey.boot.strict_modes import Mended, Place
from firstkey.errors import FirstkeyError
from firstkey.model import CHANGED, UNCHANGED, UserResult
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.boot.ledger import Ledger, Served
    from firstkey.boot.site import Site
    from firstkey.model import Account

SECONDS = 2.0
"""How long one home may take to answer: there is nothing to do, so a dead server may not hold the boot."""


class Look(NamedTuple):
    """What was found. `flaws` are the parts of the path for which sshd ignores the file."""

    mended: tuple[Mended, ...] = ()
    flaws: tuple[str, ...] = ()

    @property
    def refusal(self) -> Refusal | None:
        """Why sshd lets nobody in by this file, or None."""
        if not self.flaws:
            return None
        return Refusal(reasons.BAD_MODES, f"sshd ignores it for: {', '.join(self.flaws)}")

    def entries(self, user: str) -> Iterator[events.Entry]:
        """The same for the journal."""
        for path, old, new in self.mended:
            yield events.MODES_MENDED(user=user, path=path, old=old, new=new)
        for flaw in self.flaws:
            yield events.MODES_REPORTED(user=user, detail=flaw, reason=reasons.BAD_MODES.code)


def settled(site: Site, ledger: Ledger) -> list[UserResult]:
    """The users of an instance where everything is done."""
    names = {*site.config.keys.users, "root"} if site.config.keys.redirect_root else site.config.keys.users
    return [_settled(site, served, ledger) for served in ledger.served if served.name in names]


def _settled(site: Site, served: Served, ledger: Ledger) -> UserResult:
    account = site.accounts.listed(served.name)
    if account is None or served.file is None:
        return UserResult(served.name, served.file, UNCHANGED)
    return look_after(site, account, served.file, ledger.made_files)


def look_after(site: Site, account: Account, path: str, made: Sequence[str]) -> UserResult:
    """Mend the modes of what firstkey `made`, and report those that make sshd ignore the rest."""
    try:
        found = _look(site, account, path, made)
    except FirstkeyError:
        # Nothing is to be done there, so what cannot be looked at now is no failure.
        return UserResult(account.name, path, UNCHANGED)
    if not site.dry_run:
        for entry in found.entries(account.name):
            site.say(entry)
    return UserResult(account.name, path, CHANGED if found.mended else UNCHANGED, refusal=found.refusal)


def _look(site: Site, account: Account, path: str, made: Sequence[str]) -> Look:
    groups = tuple(site.accounts.group_ids(account))

    def work(*, as_root: bool) -> list[list[Any]]:
        place = Place(account, path, as_root, groups, site.accounts)
        directory = rights.folder(site.tree, account, path)
        if directory is None:
            return [[], []]
        with directory:
            mended = [] if site.dry_run else strict_modes.mend(directory, place, made)
            return [list(mended), list(strict_modes.flaws(site.tree, place, directory))]

    if account.uid == os.geteuid():
        # There are no rights to give up, and a process of its own would be most of what this costs.
        mended, flaws = work(as_root=not rights.is_in_home(account, path))
    else:
        mended, flaws = rights.exercise(site, account, path, work, seconds=SECONDS)
    return Look(tuple(Mended(*each) for each in mended), tuple(flaws))
