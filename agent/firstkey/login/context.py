"""What a login is about: a user, the key, where the client comes from, and what sshd says."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.login.finding import obstacle
from firstkey.system import sshd_tree

if TYPE_CHECKING:
    from firstkey.boot.site import Site
    from firstkey.login.finding import Finding
    from firstkey.model import Account
    from firstkey.reasons import Reason
    from firstkey.ssh.public_key import PublicKey
    from firstkey.ssh.restrictions import Client
    from firstkey.ssh.sshd_config import Effective
    from firstkey.system.sshd import Sshd


class LaunchKey(NamedTuple):
    """A key that should let the user in; `key` is None where only its fingerprint is known."""

    fingerprint: str
    source: str
    key: PublicKey | None = None
    type: str | None = None
    file: str | None = None
    """Where it was named with --key: then it is no launch key, and firstkey will not install it."""

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.type or 'of a type that is not known'}), says {self.source}"


class Context(NamedTuple):
    """What the checks are about. `now` is in seconds since the epoch; a `client` of None may be anywhere."""

    site: Site
    account: Account
    key: LaunchKey
    client: Client | None
    sshd: Sshd
    effective: Effective
    now: float

    @property
    def name(self) -> str:
        """The user's name."""
        return self.account.name

    def how_to_install(self, path: str) -> str:
        """The command that puts the key into the file at `path`."""
        if self.key.file:
            return f"cat {shlex.quote(self.key.file)} >> {shlex.quote(path)}"
        return f"firstkey run --force --user {shlex.quote(self.name)}"

    def says(self, keyword: str) -> str:
        """The keyword's effective value, and "" for "none" or where sshd has no such keyword."""
        value = self.effective.first(keyword) or ""
        return "" if value.lower() == "none" else value

    def words(self, keyword: str) -> list[str]:
        """All words of the keyword, in order."""
        return self.effective.words(keyword)

    def in_config(
        self, keyword: str, reason: Reason, detail: str, *, word: str = "", check: str = "", remedy: str = ""
    ) -> Finding:
        """That a line of sshd's configuration is in the way (the one with that word), and which one it is."""
        place = sshd_tree.where(self.sshd, keyword, word)
        remedy = remedy or (reason.remedy.replace("sshd_config", place) if place else reason.remedy)
        remedy = remedy.replace("NAME", shlex.quote(self.name)).replace("the user", self.name)
        return obstacle(check or keyword, reason, detail, path=place, remedy=remedy)
