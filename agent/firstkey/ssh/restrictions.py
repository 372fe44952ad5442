"""What restricts a login beside the key and the lists of users, as doctor and audit judge it."""

from __future__ import annotations

from firstkey.ssh.access import Client
from firstkey.ssh.sshd_config import ANY_CLIENT, Effective

ANYWHERE = dict(pair.split("=") for pair in ANY_CLIENT.split(","))
"""The client for `sshd -C` where none was named, in sshd's own words."""


def connection(client: Client | None = None, **named: str) -> str:
    """A client as `sshd -C` takes it, with what is named set so; None is one somewhere else."""
    known = {"host": client.name, "addr": client.address} if client else {}
    return ",".join(f"{key}={value}" for key, value in {**ANYWHERE, **known, **named}.items())


NO_SHELLS = frozenset({"nologin", "false", "true", "sync", "shutdown", "halt"})
"""Programs that stand as a shell in passwd(5) so that there is none."""


def is_no_shell(shell: str) -> bool:
    """Whether the program only ends the session."""
    return shell.rpartition("/")[2] in NO_SHELLS


def permit_root_login(effective: Effective) -> str:
    """One of yes, no, prohibit-password and forced-commands-only."""
    value = effective.first("permitrootlogin", "prohibit-password") or ""
    # sshd prints the old name, and the manual has only the new one.
    return "prohibit-password" if value == "without-password" else value


def use_pam(effective: Effective) -> bool:
    """Whether sshd asks PAM. Upstream's default is no; distributions set yes."""
    return effective.first("usepam", "no") == "yes"


def strict_modes(effective: Effective) -> bool:
    """Whether sshd ignores files that others could have written (the default)."""
    return effective.first("strictmodes", "yes") != "no"


def words(effective: Effective, keyword: str) -> list[str]:
    """All words of the keyword, in order."""
    return [word for line in effective.settings.get(keyword, ()) for word in line.split()]
