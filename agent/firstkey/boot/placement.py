"""Where a user's launch keys go: the file that sshd reads for that user and for nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.ssh import access, sshd_config
from firstkey.ssh.sshd_config import fits, looks_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firstkey.boot.site import Site
    from firstkey.model import Account
    from firstkey.system.sshd import Sshd

MOST_ASKED = 40
"""Of how many accounts sshd is asked whether it reads the same file for them too."""
SOMEBODY = "somebody-else"
"""An account that a directory service may have: nobody can list those."""


class Placement(NamedTuple):
    """A user's file of keys. `also_read` are the other files in which sshd looks for this user's keys,
    and patterns of such (sshd_config.looks_for).

    `unread` tells that sshd does not look into `path` at all.
    """

    path: str
    also_read: tuple[str, ...] = ()
    unread: Refusal | None = None


class Placer:
    """Places keys by what sshd says; each user is asked for once."""

    def __init__(self, site: Site, sshd: Sshd) -> None:
        self._site = site
        self._sshd = sshd
        self._asked: dict[str, tuple[str, ...]] = {}

    def place(self, account: Account) -> Placement:
        """Where sshd looks first for this user's keys, the section's own setting before sshd's.

        Raises FirstkeyError (authorized-keys-disabled, shared-file, sshd-config-invalid).
        """
        read = self._patterns(account.name)
        own = self._site.config.user(account.name).authorized_keys_file
        path = self._first_unshared(account, (own,) if own else read)
        others = sshd_config.key_paths(read, account)
        also_read = tuple(
            other for other in others if other != path and self._looks(other) == looks_for(other)
        )
        is_read = any(path == other or (self._looks(other) and fits(path, other)) for other in others)
        return Placement(path, also_read, None if is_read else self._unread(account, path))

    def _looks(self, path: str) -> bool:
        """Whether sshd takes it for a pattern of files to look into: never a name to write to."""
        return looks_for(path) and self._sshd.reads_patterns is not False

    def _unread(self, account: Account, path: str) -> Refusal | None:
        """Only what sshd itself said can contradict the configuration."""
        if self._sshd.meaning(account.name).refusal:
            return None
        files = " ".join(self._patterns(account.name)) or "none"
        detail = f"{path} is not among the files that sshd reads for {account.name} ({files})"
        return Refusal(reasons.NOT_READ_BY_SSHD, detail)

    def _first_unshared(self, account: Account, patterns: Sequence[str]) -> str:
        if not patterns:
            message = f"sshd reads no file of keys for {account.name}"
            raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED)
        named = [pattern for pattern in patterns if not self._looks(pattern)]
        if not named:
            message = f"sshd looks for {account.name}'s files of keys by a pattern: {' '.join(patterns)}"
            hint = f"Set AuthorizedKeysFile= in [User {account.name}] to a name that it fits"
            raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED, hint=hint)
        for pattern in named:
            if not (sshd_config.is_shared(pattern) and self._sharer(account, pattern)):
                return sshd_config.key_paths([pattern], account)[0]
        sharer = self._sharer(account, named[0])
        others = "any other user" if sharer == SOMEBODY else sharer
        message = f"AuthorizedKeysFile {' '.join(patterns)}: sshd reads the same file for {others} too"
        raise FirstkeyError(message, reason=reasons.SHARED_FILE)

    def _sharer(self, account: Account, pattern: str) -> str | None:
        """Another user for whom sshd reads this file, which depends on nothing of the user's; or None.

        Under a Match block such a file may well be one user's alone. Where sshd cannot be asked, its defaults
        are assumed, and none of those is shared.
        """
        if self._sshd.meaning(account.name).refusal:
            return None
        return next((name for name in self._others(account) if pattern in self._patterns(name)), None)

    def _others(self, account: Account) -> Iterator[str]:
        yield SOMEBODY
        able = (
            other.name
            for other in self._site.accounts.all()
            if other.uid != account.uid and not access.is_no_shell(other.shell)
        )
        yield from list(able)[:MOST_ASKED]

    def _patterns(self, name: str) -> tuple[str, ...]:
        """What sshd reads for a user of that name."""
        if name not in self._asked:
            meaning = self._sshd.meaning(name)
            self._asked[name] = meaning.effective.authorized_keys_files
        return self._asked[name]
