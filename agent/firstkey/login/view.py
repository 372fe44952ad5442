"""A file as sshd finds it: links followed to the end, with the user's own rights, every directory above it.

sshd reads a user's files as that user (auth2-pubkeyfile.c), so here too a child process does it: what
the user could not read, root does not read either. Nothing is ever written.
"""

from __future__ import annotations

import base64
import os
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from firstkey import NamedTuple, reasons
from firstkey.boot.target import Target
from firstkey.login import storage
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.ssh import authorized_keys
from firstkey.ssh.authorized_keys import GROUP_WRITE, OTHERS_WRITE, Part
from firstkey.system import as_user, command
from firstkey.system.tree import Tree

LIMIT = 4 * 1024 * 1024


class Seen(NamedTuple):
    """What became of looking at a path.

    `steps` are the file and the directories above it, the nearest first, as far as they could be seen;
    `missing` is the first part that does not exist, `barred` the first that the user may not pass or read.
    """

    path: str
    canonical: str
    steps: tuple[Part, ...] = ()
    missing: str | None = None
    barred: str | None = None
    content: bytes | None = None
    trouble: str | None = None

    @property
    def file(self) -> Part | None:
        """The thing itself, if it is there."""
        return self.steps[0] if self.steps and not (self.missing or self.barred) else None


def look(target: Target, account: Account, path: str, *, content: bool = True) -> Seen:
    """Look at `path` as the account. Raises FirstkeyError where its disk does not answer in time."""
    groups = target.accounts.group_ids(account)
    said = as_user.run_as(account, groups, lambda: _look(target.tree, path, content=content))
    steps = tuple(Part(*step) for step in said.pop("steps"))
    if command.ask_watcher and account.uid != 0:
        said.update(_barred_by_modes(steps, account.uid, groups))
    text = said.pop("content")
    return Seen(**said, steps=steps, content=None if text is None else base64.b64decode(text))


def flaws(target: Target, account: Account, steps: Sequence[Part], home: str) -> list[Part]:
    """The steps for which sshd ignores the account's files; `home` is its path without links."""
    may_share = partial(target.accounts.may_share, account)
    return authorized_keys.flaws(steps, (0, account.uid), home, may_share=may_share)


def looks(part: Part) -> str:
    """Mode and owner, for people."""
    return f"mode {stat.S_IMODE(part.mode):04o}, owner {part.uid}, group {part.gid}"


def why(flaw: Part, account: Account) -> str:
    """What is wrong, for people."""
    whys = (
        (flaw.uid not in (0, account.uid), f"it belongs to user {flaw.uid}"),
        (flaw.mode & OTHERS_WRITE, "every user can write it"),
        (flaw.mode & GROUP_WRITE, f"group {flaw.gid} can write it"),
    )
    return " and ".join(why for is_so, why in whys if is_so)


def remedy(target: Target, flaw: Part, account: Account, home: str) -> str:
    """The commands that repair it; what lies in the home is to be the user's, all else root's."""
    path = shlex.quote(flaw.path)
    inside = flaw.path == home or flaw.path.startswith(f"{home}/")
    is_foreign = flaw.uid not in (0, account.uid)
    commands = [f"chown -h {account.name if inside else 'root'} {path}"] if is_foreign else []
    commands += [f"chmod go-w {path}"] if flaw.mode & (GROUP_WRITE | OTHERS_WRITE) else []
    return storage.at(target, flaw.path).unlock + " && ".join(commands)


def _barred_by_modes(steps: Sequence[Part], uid: int, groups: Sequence[int]) -> dict[str, Any]:
    """What a user could not pass or read, by modes alone: a boxed process looks with its own rights."""
    for step in reversed(steps):
        shift = 6 if step.uid == uid else 3 if step.gid in groups else 0
        wanted = 1 if stat.S_ISDIR(step.mode) else 4
        if not step.mode >> shift & wanted:
            return {"barred": step.path, "content": None}
    return {}


def _look(tree: Tree, path: str, *, content: bool) -> dict[str, Any]:
    canonical = resolve(tree, path)
    steps = _above(tree, canonical)
    seen: dict[str, Any] = {"path": path, "canonical": canonical, "steps": steps, "content": None}
    if steps[0][0] != canonical:
        nearest = steps[0][0].rstrip("/")
        try:
            os.stat(f"{tree.here.rstrip('/')}{canonical}")
        except PermissionError:
            return {**seen, "barred": nearest or "/"}
        except OSError:
            below = canonical[len(nearest) + 1 :].partition("/")[0]
            return {**seen, "missing": f"{nearest}/{below}"}
    if not (content and stat.S_ISREG(seen["steps"][0][3])):
        return seen
    try:
        found = tree.read(canonical, limit=LIMIT)
    except FirstkeyError as error:
        is_barred = isinstance(error.__cause__, PermissionError)
        return {**seen, **({"barred": canonical} if is_barred else {"trouble": error.message})}
    if found is None:
        return {**seen, "missing": canonical}
    return {**seen, "content": base64.b64encode(found).decode()}


def resolve(tree: Tree, path: str) -> str:
    """The path without links or `..` (realpath(3)), as far as there is one and the caller may look.

    Raises FirstkeyError where it leads out of a tree that is not all that this process sees.
    """
    above = tree.here.rstrip("/")
    found = os.path.realpath(f"{above}{path}")
    if not f"{found}/".startswith(f"{above}/"):
        raise FirstkeyError(f"only root can follow {path} inside of the tree", reason=reasons.NEEDS_ROOT)
    return found[len(above) :] or "/"


def _above(tree: Tree, path: str) -> list[list[Any]]:
    """The status of `path` and of each directory above it; those that cannot be seen are left out."""
    steps = []
    with tree.opened("/") as root:
        while True:
            with suppress(OSError):
                found = os.stat(path.lstrip("/") or ".", dir_fd=root.fd)
                steps.append([path, found.st_uid, found.st_gid, found.st_mode])
            if path in ("/", ""):
                return steps
            path = os.path.dirname(path)
