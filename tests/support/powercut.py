"""What may be on the disk after a power cut: a model of a disk that keeps only what was synced (fsync(2)).

It is as hard as POSIX allows, harder than a journalling file system of today:
- The content of a file that was written and not synced is lost: it is what was synced last, or empty, or
  zeros, or cut off half way; or it is there after all.
- Names that were given or taken away in a directory that was not synced since may each be as before or as
  after, in any combination: a rename reaches the disk without its file's content, or an earlier removal does
  not.
- What was synced is there.

The model is fed with the tree as it really was before each call, so nothing has to be known of what calls do.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from callwatch import Call
from treestate import Entry, State

SYNCS = ("fsync", "fdatasync")
FULLY = 4
"""Up to so many names are combined in every way; of more, each one is lost alone, and each one kept alone."""

Names = Mapping[str, int]
"""What a directory holds: names and which inode each is."""


class _Change(NamedTuple):
    """What one call did to one directory: a rename gives one name and takes another, at the same time."""

    given: Names
    taken: frozenset[str]


class _Directory:
    def __init__(self, names: Names) -> None:
        self.synced = dict(names)
        self.pending: list[_Change] = []

    def sync(self) -> None:
        self.synced = self.after(self.pending)
        self.pending = []

    def after(self, changes: Sequence[_Change]) -> dict[str, int]:
        names = dict(self.synced)
        for change in changes:
            names = {name: each for name, each in names.items() if name not in change.taken}
            names.update(change.given)
        return names

    def may_hold(self) -> set[int]:
        given = {number for change in self.pending for number in change.given.values()}
        return {*self.synced.values(), *given}

    def outcomes(self) -> Iterator[list[_Change]]:
        """What may have reached the disk of the pending changes."""
        number = len(self.pending)
        if number <= FULLY:
            choices: Iterator[Sequence[int]] = itertools.product((0, 1), repeat=number)
        else:
            alone = [[int(each == one) for each in range(number)] for one in range(number)]
            lost = [[1 - each for each in choice] for choice in alone]
            begun = [[int(each < one) for each in range(number)] for one in range(number + 1)]
            choices = iter([*alone, *lost, *begun])
        for choice in choices:
            yield [change for change, kept in zip(self.pending, choice) if kept]


class Disk:
    """The disk; `learn` is told each state of the tree and the call that comes next."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ids: dict[str, int] = {}
        self._entries: dict[int, Entry] = {}
        self._synced: dict[int, Entry | None] = {}
        self._directories: dict[int, _Directory] = {}
        self._next = itertools.count(1)
        self._ids[""] = 0
        for path, entry in state.items():
            self._meet(path, entry)
        self._synced = dict(self._entries)
        for path, number in self._ids.items():
            if number == 0 or self._entries[number].is_directory:
                self._directories[number] = _Directory(self._names(path))

    def learn(self, call: Call, after: State) -> None:
        """The call was made, and then the tree was so."""
        self._take_over(after)
        if call.name in SYNCS and call.path in self._ids:
            number = self._ids[call.path]
            if number in self._directories:
                self._directories[number].sync()
            else:
                self._synced[number] = self._entries[number]

    def states(self) -> Iterator[dict[str, Entry]]:
        """Every tree that may be found after a power cut now."""
        for how in _LOSSES if self._may_lose_content() else ("kept",):
            for names in self._outcomes():
                yield dict(self._tree("", 0, names, how))

    def _outcomes(self) -> Iterator[Mapping[int, Sequence[_Change]]]:
        """Which changes of each directory reached the disk: some of one, and all or none of the others."""
        waiting = {number: each for number, each in self._directories.items() if each.pending}
        for kept in (True, False) if len(waiting) > 1 else (True,):
            usual = {number: each.pending if kept else [] for number, each in waiting.items()}
            yield usual
            for number, each in waiting.items():
                for changes in each.outcomes():
                    yield {**usual, number: changes}

    def _may_lose_content(self) -> bool:
        """Whether a file that may be found was not synced since it was written."""
        found = {number for each in self._directories.values() for number in each.may_hold()}
        return any(self._synced[number] != self._entries[number] for number in found)

    # --- what the tree became -----------------------------------------------------------------------

    def _take_over(self, after: State) -> None:
        known = {_identity(entry): self._ids[path] for path, entry in self._state.items()}
        self._ids = {"": 0}
        self._state = after
        for path, entry in after.items():
            self._meet(path, entry, known.get(_identity(entry)))
        for path, number in self._ids.items():
            if number == 0 or self._entries[number].is_directory:
                self._note_names(number, path)

    def _meet(self, path: str, entry: Entry, number: int | None = None) -> None:
        if number is None:
            number = next(self._next)
            # A new directory or link has no content to lose; a file's is lost until it is synced.
            self._synced[number] = None if stat.S_ISREG(entry.mode) else entry
        self._ids[path] = number
        self._entries[number] = entry
        if not stat.S_ISREG(entry.mode):
            self._synced[number] = entry

    def _note_names(self, number: int, path: str) -> None:
        names = self._names(path)
        directory = self._directories.setdefault(number, _Directory({}))
        was = directory.after(directory.pending)
        given = {name: each for name, each in names.items() if was.get(name) != each}
        taken = frozenset(was) - frozenset(names)
        if given or taken:
            directory.pending.append(_Change(given, taken))

    def _names(self, path: str) -> dict[str, int]:
        start = len(path) + 1
        return {
            inside[start:]: number
            for inside, number in self._ids.items()
            if inside.startswith(f"{path}/") and "/" not in inside[start:]
        }

    # --- what is left of it -------------------------------------------------------------------------

    def _tree(
        self, path: str, number: int, kept: Mapping[int, Sequence[_Change]], how: str
    ) -> Iterator[tuple[str, Entry]]:
        directory = self._directories[number]
        for name, each in sorted(directory.after(kept.get(number, ())).items()):
            entry = self._entries[each]
            if entry.is_directory:
                yield f"{path}/{name}", entry
                yield from self._tree(f"{path}/{name}", each, kept, how)
            else:
                yield f"{path}/{name}", _lossy(entry, self._synced[each], how)


def _identity(entry: Entry) -> tuple[int, int]:
    return entry.inode, stat.S_IFMT(entry.mode)


_LOSSES = ("kept", "lost", "zeros", "half")


def _lossy(entry: Entry, synced: Entry | None, how: str) -> Entry:
    """The file as it may be found: all of it if it is as it was synced last."""
    if synced is not None and synced.content == entry.content:
        return synced if how == "lost" else entry  # only its mode or owner is new
    if how == "lost":
        return synced or entry._replace(content=b"")
    if how == "zeros":
        return entry._replace(content=bytes(len(entry.content)))
    return entry._replace(content=entry.content[: len(entry.content) // 2]) if how == "half" else entry
