"""Where a user's launch keys go: the file that sshd reads for that user and for nobody else."""

from __future__ import annotations

from firstkey import TYPE_CHECKING, NamedTuple, reasons
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import sshd_config
from firstkey.ssh.sshd_config import fits, looks_for

if TYPE_CHECKING:
    from firstkey.model import Account
    from firstkey.system.sshd import Sshd

SOMEBODY = "somebody-else"
"""Any other user: an account that a directory service may have, and that no Match block names."""


class Placement(NamedTuple):
    """A user's file of keys. `also_read` are the other files in which sshd looks for this user's keys,
    and patterns of such (sshd_config.looks_for).

    `unread` tells that sshd does not look into `path` at all.
    """

    path: str
    also_read: tuple[str, ...] = ()
    unread: Refusal | None = None


def place(sshd: Sshd, account: Account, own: str | None) -> Placement:
    """Where sshd looks first for this user's keys; `own`, the section's setting, comes before sshd's.

    Raises FirstkeyError (authorized-keys-disabled, shared-file).
    """

    def looks(path: str) -> bool:
        """Whether sshd takes it for a pattern of files to look into: never a name to write to."""
        return looks_for(path) and sshd.reads_patterns is not False

    name, meaning = account.name, sshd.meaning(account.name)
    read = meaning.effective.authorized_keys_files
    patterns = (own,) if own else read
    if not patterns:
        message = f"sshd reads no file of keys for {name}"
        raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED)
    named = [pattern for pattern in patterns if not looks(pattern)]
    if not named:
        message = f"sshd looks for {name}'s files of keys by a pattern: {' '.join(patterns)}"
        hint = f"Set AuthorizedKeysFile= in [User {name}] to a name that it fits"
        raise FirstkeyError(message, reason=reasons.AUTHORIZED_KEYS_DISABLED, hint=hint)
    # Under a Match block, a file that depends on nothing of the user's may well be one user's alone.
    free = [
        pattern
        for pattern in named
        if not sshd_config.is_shared(pattern)
        or pattern not in sshd.meaning(SOMEBODY).effective.authorized_keys_files
    ]
    if not free:
        message = f"AuthorizedKeysFile {' '.join(patterns)}: sshd reads the same file for any other user too"
        raise FirstkeyError(message, reason=reasons.SHARED_FILE)
    (path,) = sshd_config.key_paths(free[:1], account)
    others = sshd_config.key_paths(read, account)
    also_read = tuple(other for other in others if other != path and looks(other) == looks_for(other))
    unread = None
    # Only what sshd itself said can contradict the configuration.
    if not meaning.refusal and not any(path == each or (looks(each) and fits(path, each)) for each in others):
        detail = f"{path} is not among the files that sshd reads for {name} ({' '.join(read) or 'none'})"
        unread = Refusal(reasons.NOT_READ_BY_SSHD, detail)
    return Placement(path, also_read, unread)
