"""A file as sshd finds it: links followed to the end, with the user's own rights, every directory above it.

sshd reads a user's files as that user (auth2-pubkeyfile.c), so here too a child process does it: what
the user could not read, root does not read either. Nothing is ever written.
"""

from __future__ import annotations

import base64
import errno
import os
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from firstkey import NamedTuple
from firstkey.boot.target import Target
from firstkey.login import storage
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.ssh import authorized_keys
from firstkey.ssh.authorized_keys import GROUP_WRITE, OTHERS_WRITE, Part
from firstkey.system import as_user, command
from firstkey.system.tree import MAXIMUM_LINKS, Tree

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
    seen: dict[str, Any] = {"path": path, "canonical": path, "steps": [], "content": None}
    try:
        seen["canonical"] = canonical = resolve(tree, path)
    except OSError as error:
        which = "barred" if error.errno in (errno.EACCES, errno.EPERM) else "missing"
        # Above what is missing or barred there may be more that is wrong.
        return {**seen, which: error.filename, "steps": _above(tree, os.path.dirname(str(error.filename)))}
    seen["steps"] = _above(tree, canonical)
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
    """The path without links or `..`, inside the tree (realpath(3)).

    Raises OSError with the part that stopped it: one that does not exist, or whose directory the caller
    may not pass.
    """
    done: list[str] = []
    pending = path.split("/")[::-1]
    links = 0
    with tree.opened("/") as root:
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                done = done[:-1]
                continue
            place = "/".join([*done, name])  # nothing above the name is a link any more
            try:
                is_link = stat.S_ISLNK(os.lstat(place, dir_fd=root.fd).st_mode)
                target = os.readlink(place, dir_fd=root.fd) if is_link else ""
            except OSError as error:
                # It is the directory above that bars the way.
                stopped = "/".join(done) if error.errno in (errno.EACCES, errno.EPERM) else place
                raise OSError(error.errno, error.strerror, f"/{stopped}") from None
            if not is_link:
                done.append(name)
                continue
            links += 1
            if links > MAXIMUM_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            pending.extend(target.split("/")[::-1])
            done = [] if target.startswith("/") else done
    return "/" + "/".join(done)


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
