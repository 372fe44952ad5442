"""One user's file of keys: what is to change in it, and changing it with that user's own rights.

Everything here that touches a home runs in the child process of `identity.run_as`.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.model import Account
from firstkey.ssh import authorized_keys
from firstkey.system import identity
from firstkey.system.files import Changed, Directory, Looks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.boot.site import Site
    from firstkey.ssh.authorized_keys import Line, Merge, Revocation
    from firstkey.system.files import File
    from firstkey.system.tree import Tree

LIMIT = 4 * 1024 * 1024
"""The largest file that is rewritten: some 10,000 keys. A larger one is no file of keys, or an attack."""
ATTEMPTS = 8
"""How often a merge is done again because another program changed the file meanwhile."""
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
OTHERS_WRITE = 0o022

ROOT = Account("root", 0, 0, "/root", "/bin/sh")


class Assignment(NamedTuple):
    """What is to be in one user's file of keys, and what is not to be in it any more."""

    account: Account
    path: str
    add: tuple[Line, ...] = ()
    revoke: tuple[Revocation, ...] = ()
    made: tuple[str, ...] = ()
    """Paths that firstkey made earlier: their modes are its own to mend."""
    directory_label: str | None = None
    file_label: str | None = None

    @property
    def is_in_home(self) -> bool:
        """Whether the file lies in the user's home, so that the user's own rights are the ones to use."""
        return self.path.startswith(self.account.home.rstrip("/") + "/")

    @property
    def new_owner(self) -> tuple[int, int] | None:
        """Whom a file outside the home is given to: sshd reads it as the user."""
        if self.is_in_home or os.geteuid() != 0:
            return None
        return (self.account.uid, self.account.gid)


class Outcome(NamedTuple):
    """What was done to the file (or would be), in values that a pipe can carry."""

    changed: bool
    added: list[str]
    present: list[str]
    revoked: list[str]
    kept: list[str]
    made: list[str]
    mended: list[str]
    ignored_by_sshd: list[str]
    diff: str


class Change(NamedTuple):
    """The next content of a file of keys, as a value: described to people, applied to the machine."""

    path: str
    old: File | None
    merge: Merge

    @property
    def is_needed(self) -> bool:
        """Whether the file would differ."""
        before = self.old.content if self.old else b""
        return bool(self.merge.content != before)

    def describe(self) -> str:
        """A unified diff; bytes that are no text are shown escaped."""
        import difflib

        before, after = (
            _lines(content) for content in (self.old.content if self.old else b"", self.merge.content)
        )
        source = self.path if self.old else "/dev/null"
        return "".join(difflib.unified_diff(before, after, source, self.path))

    def apply(self, directory: Directory, assignment: Assignment) -> None:
        """Write it. Raises files.Changed where the file is not the one that was read any more."""
        name = os.path.basename(self.path)
        looks = Looks(
            self.old.mode if self.old else FILE_MODE,
            assignment.new_owner,
            assignment.file_label,
            directory.attributes(name) if self.old else (),
        )
        directory.replace(name, self.merge.content, looks, expected=self.old)


def carry_out(site: Site, assignment: Assignment, *, seconds: float = identity.SECONDS) -> Outcome:
    """Bring the file to what the assignment says, with the rights that go with its place.

    Raises FirstkeyError where that is refused or fails; the file is then as it was.
    """
    owner = assignment.account if assignment.is_in_home else ROOT
    groups = site.accounts.group_ids(owner)

    def work() -> dict[str, Any]:
        return _update(site.tree, assignment, dry_run=site.dry_run)._asdict()

    return Outcome(**identity.run_as(owner, groups, work, seconds=seconds))


def _update(tree: Tree, assignment: Assignment, *, dry_run: bool) -> Outcome:
    made: list[str] = []
    for _ in range(ATTEMPTS):
        with _opened(tree, assignment, made=None if dry_run or not assignment.add else made) as holder:
            change = _planned(holder, assignment)
            if dry_run or not change.is_needed:
                mended = [] if dry_run else _mended(holder, assignment)
                return _outcome(
                    tree, change, assignment, made, mended, diff=change.describe() if dry_run else ""
                )
            try:
                _apply(holder, change, assignment, made)
            except Changed:
                continue
            return _outcome(tree, change, assignment, made, [])
    message = f"{assignment.path} kept changing while keys were merged into it"
    raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)


class _Holder:
    """The directory of the file, where there is one."""

    def __init__(self, directory: Directory | None) -> None:
        self.directory = directory

    def __enter__(self) -> _Holder:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        if self.directory:
            self.directory.__exit__()


def _opened(tree: Tree, assignment: Assignment, *, made: list[str] | None) -> _Holder:
    """Open the directory of the file; with `made`, missing ones are made and noted there."""
    if assignment.is_in_home:
        return _Holder(_opened_in_home(tree, assignment, made))
    return _Holder(_opened_outside(tree, assignment, made))


def _opened_in_home(tree: Tree, assignment: Assignment, made: list[str] | None) -> Directory | None:
    """Below the home no link is followed at all: everything there is the user's to exchange."""
    home = assignment.account.home.rstrip("/")
    directory = tree.open(home or "/")
    if directory is None:
        message = f"the home directory {home} of {assignment.account.name} does not exist"
        raise FirstkeyError(message, reason=reasons.HOME_MISSING)
    below = assignment.path[len(home) + 1 :].split("/")[:-1]
    return _descend(directory, [part for part in below if part], DIRECTORY_MODE, assignment, made)


def _opened_outside(tree: Tree, assignment: Assignment, made: list[str] | None) -> Directory | None:
    """Outside homes root itself writes, so every directory on the way must be root's alone."""
    directory = tree.opened("/")
    parts = [part for part in assignment.path.split("/")[:-1] if part]
    walked = _descend(directory, parts, 0o755, assignment, made)
    for path in _ancestors(assignment.path):
        _require_roots_own(tree, path)
    return walked


def _descend(
    directory: Directory,
    parts: list[str],
    mode: int,
    assignment: Assignment,
    made: list[str] | None,
) -> Directory | None:
    for part in parts:
        with directory:
            below = directory.child(part)
            if below is None and made is not None:
                below = directory.make(part, Looks(mode, label=assignment.directory_label))
                made.append(below.path)
        if below is None:
            return None
        directory = below
    return directory


def _ancestors(path: str) -> Iterator[str]:
    """Every directory above `path`, the nearest first."""
    while path not in ("/", ""):
        path = os.path.dirname(path)
        yield path


def _require_roots_own(tree: Tree, path: str) -> None:
    directory = tree.open(path)
    if directory is None:
        return
    with directory:
        found = directory.status()
    if found and (found.st_uid not in (0, os.getuid()) or found.st_mode & OTHERS_WRITE):
        message = f"{path} can be changed by others than root"
        raise FirstkeyError(message, reason=reasons.UNSAFE_DIRECTORY)


def _planned(holder: _Holder, assignment: Assignment) -> Change:
    name = os.path.basename(assignment.path)
    old = holder.directory.read(name, limit=LIMIT) if holder.directory else None
    content = old.content if old else b""
    merge = authorized_keys.merge(content, add=assignment.add, revoke=assignment.revoke)
    return Change(assignment.path, old, merge)


def _apply(holder: _Holder, change: Change, assignment: Assignment, made: list[str]) -> None:
    if holder.directory is None:
        raise Changed(assignment.path)
    holder.directory.remove_stale()
    change.apply(holder.directory, assignment)
    if change.old is None:
        made.append(assignment.path)


def _mended(holder: _Holder, assignment: Assignment) -> list[str]:
    """Set right the modes of what firstkey made earlier, where sshd would ignore the file for them."""
    mended = []
    name = os.path.basename(assignment.path)
    if holder.directory is None:
        return []
    for path, inside, mode in (
        (assignment.path, name, FILE_MODE),
        (holder.directory.path, ".", DIRECTORY_MODE),
    ):
        found = holder.directory.status(inside)
        if path in assignment.made and found and found.st_mode & OTHERS_WRITE:
            holder.directory.set_mode(inside, mode)
            mended.append(path)
    return mended


def _ignored_by_sshd(tree: Tree, assignment: Assignment) -> list[str]:
    """Parts of the path whose owner or mode makes sshd ignore the file (sshd_config(5): StrictModes).

    sshd looks at the file and at each directory above it up to the home, or up to the root outside of it.
    """
    bad = []
    for path in (assignment.path, *_ancestors(assignment.path)):
        found = _status(tree, path)
        if found and (
            found.st_uid not in (0, os.getuid(), assignment.account.uid) or found.st_mode & OTHERS_WRITE
        ):
            bad.append(f"{path} (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid})")
        if path == assignment.account.home:
            break
    return bad


def _status(tree: Tree, path: str) -> os.stat_result | None:
    directory = tree.open(os.path.dirname(path))
    if directory is None:
        return None
    with directory:
        return directory.status(os.path.basename(path))


def _outcome(
    tree: Tree,
    change: Change,
    assignment: Assignment,
    made: list[str],
    mended: list[str],
    *,
    diff: str = "",
) -> Outcome:
    merge = change.merge
    return Outcome(
        changed=change.is_needed or bool(mended),
        added=[line.key.fingerprint for line in merge.added],
        present=[line.key.fingerprint for line in merge.present],
        revoked=[key.fingerprint for key in merge.revoked],
        kept=[key.fingerprint for key in merge.kept],
        made=list(dict.fromkeys(made)),
        mended=mended,
        ignored_by_sshd=_ignored_by_sshd(tree, assignment),
        diff=diff,
    )


def _lines(content: bytes) -> list[str]:
    """Text lines for a diff, each with a line end, nothing in them that a terminal would act on."""
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [
        f"{line.encode('unicode_escape').decode() if not line.isprintable() else line}\n" for line in lines
    ]
