"""What was so when a user was served: as long as that is unchanged, there is nothing to look at again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.boot.ledger import PENDING, Served
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from firstkey.boot.ledger import Ledger
    from firstkey.boot.site import Site
    from firstkey.model import Account


class Standing(NamedTuple):
    """The conditions of this run. `sshd_digest` is of sshd's whole configuration; None: it is unknown."""

    site: Site
    sshd_digest: str | None

    def conditions(self, name: str) -> str | None:
        """All that decides where and how this user is served, in one line; None where it cannot be known.

        Only the files are asked, not a directory service: the network may be far from being there.
        """
        if self.sshd_digest is None:
            return None
        account = self.account(name)
        keys = self.site.config.keys
        groups = self.site.accounts.group_ids(account) if account else []
        redirected = (keys.redirect_root, keys.users) if name == "root" else None
        own = self.site.config.user(name).authorized_keys_file
        return repr((self.sshd_digest, own, account and account[:-1], groups, redirected))

    def account(self, name: str) -> Account | None:
        """The user's line in passwd(5), if there is one."""
        return next((account for account in self.site.accounts.all() if account.name == name), None)

    def serving(self, name: str, ledger: Ledger, instance: str | None) -> Served | None:
        """How the user is served on this instance, if nothing about that has changed since."""
        served = ledger.serving(name) if ledger.instance == instance else None
        return served if served and served.conditions == self.conditions(name) else None

    def is_everything_done(self, ledger: Ledger, instance: str) -> bool:
        """Whether the ledger leaves nothing to do for anybody on this instance."""
        keys = self.site.config.keys
        names = [*keys.users, *(["root"] if keys.redirect_root else [])]
        return (
            all(self.serving(name, ledger, instance) for name in names)
            and not any(key.state == PENDING for key in ledger.keys if key.user in names)
            and not self._has_stale(ledger, instance)
        )

    def _has_stale(self, ledger: Ledger, instance: str) -> bool:
        """Whether other instances' keys are still to go, from files of users that there are."""
        if self.site.config.keys.revoke == "never":
            return False
        return any(self.account(key.user) for key in ledger.of_other_instances(instance))
