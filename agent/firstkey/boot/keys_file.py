"""One user's file of keys: what is to change in it, and changing it with the rights that go with its place.

Everything here that touches a file runs in the child process of `identity.run_as`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from firstkey import reasons, text
from firstkey.boot import rights, strict_modes
from firstkey.boot.strict_modes import Mended, Place
from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import authorized_keys
from firstkey.ssh.sshd_config import looks_for
from firstkey.system import identity
from firstkey.system.files import Changed, Directory, Looks
from firstkey.system.sshd import matching

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from firstkey.boot.site import Site
    from firstkey.model import Account
    from firstkey.ssh.authorized_keys import Entry, Line, Merge, Present, Written
    from firstkey.system.files import File
    from firstkey.system.tree import Tree

LIMIT = 4 * 1024 * 1024
"""The largest file that is rewritten: some 10,000 keys. A larger one is no file of keys, or an attack."""
ATTEMPTS = 8
"""How often a merge is done again because another program changed the file meanwhile."""


class Elsewhere(NamedTuple):
    """A key in another file that sshd reads for the user: the options before it, and where the file is.

    `flaws` are the parts of the path for which sshd ignores the file.
    """

    fingerprint: str
    path: str
    options: str
    flaws: tuple[str, ...] = ()


class Assignment(NamedTuple):
    """What is to be in one user's file of keys, and what is not to be in it any more."""

    account: Account
    path: str
    add: tuple[Line, ...] = ()
    revoke: tuple[Written, ...] = ()
    own: tuple[Written, ...] = ()
    """Lines that firstkey wrote there and that may stay."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Keys that are not to be added here, for another file of the user's has them."""
    made: tuple[str, ...] = ()
    """Paths that firstkey made earlier: their modes are its own to mend."""
    directory_label: str | None = None
    file_label: str | None = None


class Outcome(NamedTuple):
    """What was done to the file (or would be), in values that a pipe can carry.

    Keys are told by their fingerprints; `present` has the options before each, None for another file.
    """

    changed: bool
    added: list[str]
    present: list[tuple[str, str | None]]
    own: list[str]
    revoked: list[str]
    left: list[str]
    made: list[str]
    mended: list[Mended]
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
        return text.diff(self.path, self.old.content if self.old else None, self.merge.content)

    def apply(self, directory: Directory, place: Place, label: str | None) -> None:
        """Write it. Raises files.Changed where the file is not the one that was read any more."""
        name = os.path.basename(self.path)
        looks = Looks(place.file_mode, label=label)
        if self.old:
            looks = Looks(self.old.mode, _same_owner(self.old, place), label, directory.attributes(name))
        directory.replace(name, self.merge.content, looks, expected=self.old)


def carry_out(
    site: Site, assignment: Assignment, *, with_diff: bool = True, seconds: float = identity.SECONDS
) -> Outcome:
    """Bring the file to what the assignment says. The diff of a dry run takes its time, and may be left out.

    Raises FirstkeyError where that is refused or fails; the file is then as it was.
    """
    groups = tuple(site.accounts.group_ids(assignment.account))

    def work(*, as_root: bool) -> dict[str, Any]:
        place = Place(assignment.account, assignment.path, as_root, groups, site.accounts)
        outcome, change = _Work(site.tree, assignment, place, dry_run=site.dry_run).outcome()
        diff = change.describe() if site.dry_run and with_diff else ""
        return outcome._replace(diff=diff)._asdict()

    answer = rights.exercise(site, assignment.account, assignment.path, work, seconds=seconds)
    answer["mended"] = [Mended(*each) for each in answer["mended"]]
    answer["present"] = [(fingerprint, options) for fingerprint, options in answer["present"]]
    return Outcome(**answer)


def found_in(
    site: Site, account: Account, path: str, fingerprints: Collection[str], *, seconds: float = 5.0
) -> list[Elsewhere] | None:
    """Which of these keys the file (or each that a pattern stands for) has; None where there is no directory.

    Raises FirstkeyError where the file cannot be read with the rights that go with its place.
    """
    wanted = set(fingerprints)
    groups = tuple(site.accounts.group_ids(account))

    def work(*, as_root: bool) -> list[list[Any]] | None:
        if not looks_for(path):
            return in_file(path, as_root=as_root)
        found: list[list[Any]] = []
        for each in matching(site.tree, path):
            with suppress(FirstkeyError):
                found += in_file(each, as_root=as_root) or []
        return found

    def in_file(path: str, *, as_root: bool) -> list[list[Any]] | None:
        directory = rights.folder(site.tree, account, path)
        if directory is None:
            return None
        with directory:
            file = directory.read(os.path.basename(path), limit=LIMIT)
            place = Place(account, path, as_root, groups, site.accounts)
            flaws = strict_modes.flaws(site.tree, place, directory)
        entries = (entry for _, entry in authorized_keys.keyed(file.content if file else b""))
        own = (entry for entry in entries if entry.is_the_keys_own and _fingerprint(entry) in wanted)
        best = authorized_keys.best_of_each_key(own).values()
        return [[_fingerprint(entry), path, _text(entry.options), flaws] for entry in best]

    answer = rights.exercise(site, account, path, work, seconds=seconds)
    if answer is None:
        return None
    return [
        Elsewhere(fingerprint, file, options, tuple(flaws)) for fingerprint, file, options, flaws in answer
    ]


class _Work:
    """The work in one place, in the child that has the rights for it."""

    def __init__(self, tree: Tree, assignment: Assignment, place: Place, *, dry_run: bool) -> None:
        self._tree = tree
        self._assignment = assignment
        self._place = place
        self._dry_run = dry_run
        self._made: list[str] = []

    def outcome(self) -> tuple[Outcome, Change]:
        for _ in range(ATTEMPTS):
            with self._holder() as directory:
                change = self._planned(directory)
                try:
                    self._apply(change, directory)
                except Changed:
                    continue
                return self._told(change, self._mended(directory), self._flaws(directory)), change
        message = f"{self._assignment.path} kept changing while keys were merged into it"
        raise FirstkeyError(message, reason=reasons.CONCURRENT_CHANGE)

    def _holder(self) -> AbstractContextManager[Directory | None]:
        """The directory of the file; where keys are to be added, a missing one is made."""
        directory = rights.folder(self._tree, self._assignment.account, self._assignment.path)
        if directory is None and self._assignment.add and not self._dry_run:
            directory = self._made_directory()
        return directory or nullcontext()

    def _made_directory(self) -> Directory:
        missing: list[str] = []
        where = os.path.dirname(self._assignment.path)
        directory = rights.folder(self._tree, self._assignment.account, f"{where}/x")
        while directory is None:
            where, name = os.path.split(where)
            missing.insert(0, name)
            directory = rights.folder(self._tree, self._assignment.account, f"{where}/x")
        looks = Looks(self._place.directory_mode, label=self._assignment.directory_label)
        for name in missing:
            where = f"{where.rstrip('/')}/{name}"
            with directory:
                directory = directory.make(name, looks)
            self._made.append(where)
        return directory

    def _planned(self, directory: Directory | None) -> Change:
        wanted = self._assignment
        old = directory.read(os.path.basename(wanted.path), limit=LIMIT) if directory else None
        content = old.content if old else b""
        merge = authorized_keys.merge(
            content,
            add=wanted.add,
            revoke=wanted.revoke,
            own=wanted.own,
            elsewhere={each.fingerprint for each in wanted.elsewhere},
        )
        return Change(wanted.path, old, merge)

    def _apply(self, change: Change, directory: Directory | None) -> None:
        if self._dry_run:
            return
        if directory:
            directory.remove_stale()  # also where nothing is needed: it may be another name of the file
        if not change.is_needed:
            return
        if directory is None:
            raise Changed(change.path)
        change.apply(directory, self._place, self._assignment.file_label)
        if change.old is None:
            self._made.append(change.path)

    def _mended(self, directory: Directory | None) -> list[Mended]:
        if self._dry_run or directory is None:
            return []
        return strict_modes.mend(directory, self._place, [*self._assignment.made, *self._made])

    def _flaws(self, directory: Directory | None) -> list[str]:
        """None where they cannot be told: what is done is done, and no reason to call it a failure."""
        with suppress(FirstkeyError):
            return strict_modes.flaws(self._tree, self._place, directory) if directory else []
        return []

    def _told(self, change: Change, mended: list[Mended], flaws: list[str]) -> Outcome:
        merge = change.merge
        return Outcome(
            changed=change.is_needed or bool(mended),
            added=[line.key.fingerprint for line in merge.added],
            present=[(each.line.key.fingerprint, _options(each)) for each in merge.present],
            own=sorted(merge.own),
            revoked=[written.fingerprint for written in merge.revoked],
            left=[written.fingerprint for written in merge.left],
            made=list(dict.fromkeys(self._made)),
            mended=mended,
            ignored_by_sshd=flaws,
            diff="",
        )


def _same_owner(old: File, place: Place) -> tuple[int, int] | None:
    """Root gives the new file to whom the old one belonged; a user can only keep a group of the own ones."""
    if place.as_root and os.geteuid() == 0:
        return (old.uid, old.gid)
    mine = old.gid in (os.getegid(), *os.getgroups())
    return (-1, old.gid) if mine else None


def _options(present: Present) -> str | None:
    return None if present.options is None else _text(present.options)


def _text(options: bytes) -> str:
    return options.decode("utf-8", "surrogateescape")


def _fingerprint(entry: Entry) -> str:
    return entry.key.fingerprint if entry.key else ""
