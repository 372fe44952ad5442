"""StrictModes: whose owner or mode makes sshd ignore a file of keys (sshd_config(5); misc.c: safe_path).

The file and each directory above it, up to the home or the root, must be the user's or root's, and nobody
else may write it. Debian's and Ubuntu's sshd lets a group write in which there is nobody but the user.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from firstkey.login.view import Step
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.model import Account
    from firstkey.system.accounts import Accounts

GROUP_WRITE, OTHERS_WRITE = 0o020, 0o002


class Flaw(NamedTuple):
    """One step that sshd rejects: why, and what mends it."""

    step: Step
    why: str
    remedy: str


def flaws(
    steps: Sequence[Step], account: Account, home: str, accounts: Accounts, *, lenient: bool
) -> list[Flaw]:
    """What is wrong, in the order in which sshd walks: the file, then upwards.

    `home` is the home's path without links; `lenient` is for an sshd that lets a group of one write.
    """
    found = []
    for step in steps:
        flaw = _flaw(step, account, accounts, home, lenient=lenient)
        if flaw:
            found.append(flaw)
        if step.path == home:
            break
    return found


def _flaw(step: Step, account: Account, accounts: Accounts, home: str, *, lenient: bool) -> Flaw | None:
    path = shlex.quote(step.path)
    whys, remedies = [], []
    if step.uid not in (0, account.uid):
        whys.append(f"it belongs to user {step.uid}")
        inside = step.path == home or step.path.startswith(f"{home}/")
        remedies.append(f"chown {account.name if inside else 'root'} {path}")
    if step.mode & OTHERS_WRITE:
        whys.append("everybody can write it")
    if step.mode & GROUP_WRITE and not (lenient and accounts.has_group_alone(account, step.gid)):
        whys.append(f"group {step.gid} can write it")
    if whys and step.mode & (GROUP_WRITE | OTHERS_WRITE):
        remedies.append(f"chmod go-w {path}")
    return Flaw(step, " and ".join(whys), " && ".join(remedies)) if whys else None
