"""The ledger in the hands of one run: read once, changed as a value, saved where it says anything new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import events, reasons
from firstkey.boot import ledger
from firstkey.errors import FirstkeyError

if TYPE_CHECKING:
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.reasons import Refusal


class Books:
    """`ledger` is what is known by now; `warnings` is what went wrong with it, and costs nobody the login."""

    def __init__(self, site: Site) -> None:
        self.warnings: list[Refusal] = []
        self._site = site
        self._saved = self.ledger = self._load()

    def save(self, new: Ledger | None = None) -> None:
        """Put the ledger (or a newer one) on the disk, if it says anything new."""
        self.ledger = new or self.ledger
        if self._site.dry_run or self.ledger == self._saved:
            return
        try:
            ledger.save(self._site.tree, self.ledger)
            self._saved = self.ledger
        except FirstkeyError as error:
            # What failed once may succeed at the end of the run, and it is worth much to know one's own keys.
            self._not_saved(error)

    def _load(self) -> Ledger:
        loaded = ledger.load(self._site.tree)
        if loaded.refusal:
            self.warnings.append(loaded.refusal)
        if loaded.refusal and loaded.refusal.reason is reasons.LEDGER_DAMAGED:
            self._site.say(events.LEDGER_DAMAGED(file=ledger.PATH, detail=loaded.refusal.detail))
            if not self._site.dry_run:
                self._set_aside()
        return loaded.ledger

    def _set_aside(self) -> None:
        try:
            ledger.set_aside(self._site.tree)
        except FirstkeyError as error:
            self._not_saved(error)

    def _not_saved(self, error: FirstkeyError) -> None:
        if error.refusal in self.warnings:
            return
        self.warnings.append(error.refusal)
        self._site.say(
            events.STATE_NOT_SAVED(file=ledger.PATH, detail=error.message, reason=error.reason.code)
        )
