"""The one scan of all files: each is opened once, and whoever watches for something in it is told.

What is mounted inside the tree from elsewhere is not walked. Memory is bounded by one buffer, and the time
for one file by how much of it is read (system/walk); what could not be read is a doubt, never a silence.
"""

from __future__ import annotations

import errno
import os
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import packed
from firstkey.image.verdict import Doubt
from firstkey.image.watches import Headed, Named, Needle, Scanned, Sighting
from firstkey.reasons import Refusal
from firstkey.system import mounts, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from firstkey.image.watches import Watch
    from firstkey.reasons import Reason
    from firstkey.system.boxed import At
    from firstkey.system.tree import Tree

PACKAGED = frozenset({
    "/bin", "/boot", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/var/cache/apt",
    "/var/cache/dnf", "/var/cache/yum", "/var/lib/apk", "/var/lib/apt", "/var/lib/dnf", "/var/lib/dpkg",
    "/var/lib/pacman", "/var/lib/rpm",
})  # fmt: skip
"""Where packages put what they bring: there only the watches that say so look into every file."""
LOCAL = frozenset(("/usr/local",))

FILE = "file"
DEEPEST = 400
"""How many directories inside one another are walked; each holds a descriptor, and a process has 1024."""
PROGRESS_SECONDS = 0.1
MOST_JUDGED = 200_000
"""How often a needle is judged in one file: a text of nothing else would keep the scan busy for an hour."""
HEAD = 1024
"""How much of a file's start shows whether it is text."""

_REASONS = {
    errno.EACCES: reasons.PERMISSION_DENIED,
    errno.EPERM: reasons.PERMISSION_DENIED,
    errno.ELOOP: reasons.SYMLINK_REFUSED,
}
_VANISHED = (errno.ENOENT, errno.ENOTDIR)


class Scan(NamedTuple):
    """What the scan saw: sightings by kind, what it could not see, and the mounts that it left out."""

    sightings: Mapping[str, tuple[Sighting, ...]]
    doubts: tuple[Doubt, ...]
    left_out: tuple[mounts.Mount, ...]
    files: int

    def of(self, kind: str) -> tuple[Sighting, ...]:
        """The sightings of that kind, by path."""
        return self.sightings.get(kind, ())


def joined(parts: Sequence[Scan]) -> Scan:
    """The scan of which these are the parts, in order."""
    sightings: dict[str, set[Sighting]] = {}
    for kind, seen in (each for part in parts for each in part.sightings.items()):
        sightings.setdefault(kind, set()).update(seen)
    doubts = {doubt for part in parts for doubt in part.doubts}
    return Scan(
        # By path; what is far behind in a file has no line.
        {
            kind: tuple(sorted(found, key=lambda seen: (seen.path, seen.detail, seen.line or 0)))
            for kind, found in sightings.items()
        },
        tuple(sorted(doubts, key=lambda doubt: (doubt.path, doubt.refusal.detail))),
        tuple(dict.fromkeys(mount for part in parts for mount in part.left_out)),
        sum(part.files for part in parts),
    )


class Looking(NamedTuple):
    """The circumstances under which an image is looked at.

    `left_out`: what is mounted in the tree from elsewhere. `unfinished`: the files and rules (a kind and a
    name) that took more work before than they may, and why. `progress` is told how many files were seen, and
    where; `at` what is looked at from now on, and returns what was before. `used`: what running programs use.
    `scanned`: what a scanner for secrets saw. `scan`: what the scan saw, where it is done.
    """

    left_out: tuple[mounts.Mount, ...] = ()
    unfinished: Mapping[tuple[str, str], Refusal] = MappingProxyType({})
    progress: Callable[[int, str], None] | None = None
    at: At = lambda _kind, _name: None
    used: frozenset[str] = frozenset()
    scanned: Scanned = Scanned()
    scan: Scan | None = None


class Scanner:
    """One walk over a tree."""

    def __init__(
        self,
        tree: Tree,
        watches: Iterable[Watch],
        packaged: Collection[str] | None,
        looking: Looking,
        part: int,
        parts: int,
    ) -> None:
        """`packaged`: the paths that packages brought, where they are known. Of so many parts of the files,
        it looks into that one.
        """
        self._part, self._parts = part, parts
        self._at = looking.at
        self._unfinished = looking.unfinished
        self._progress = looking.progress
        self._tree = tree
        self._packaged = packaged
        # The watches by what they look at, as quick to ask as they can be.
        self._kinds: dict[str, list[str]] = {}
        self._heads: dict[int, list[tuple[bytes, Headed]]] = {}
        needles = []
        for watch in watches:
            if isinstance(watch, Named):
                for name in watch.names:
                    self._kinds.setdefault(name, []).append(watch.kind)
            elif isinstance(watch, Headed):
                for start in watch.starts:
                    self._heads.setdefault(start[0], []).append((start, watch))
            else:
                needles.append(watch)
        self._all_needles = tuple(sorted(needles, key=lambda needle: not needle.everywhere))
        self._everywhere = tuple(needle for needle in needles if needle.everywhere)
        self._told = 0.0
        self._window = walk.Window()
        self._judged: dict[bytes, int] = {}
        """How often each needle was judged in the file that is looked into."""
        outside = 0 if tree.is_running_system else len(tree.root)
        self._mounts = {mount.path[outside:]: mount for mount in looking.left_out}
        self._left_out: list[mounts.Mount] = []
        self._sightings: dict[str, list[Sighting]] = {}
        self._doubts: list[Doubt] = []
        self._files = 0

    def run(self) -> Scan:
        """Walk, and tell what was seen."""
        before = self._at("directory", "/")
        with self._tree.opened("/") as top:
            self._enter(top.fd, "", in_packages=False, depth=0)
        if before:
            self._at(*before)
        sightings = {kind: tuple(found) for kind, found in self._sightings.items()}
        return Scan(sightings, tuple(self._doubts), tuple(self._left_out), self._files)

    # --- directories ------------------------------------------------------------------------------

    def _enter(self, fd: int, path: str, *, in_packages: bool, depth: int) -> None:
        if self._progress and time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._progress(self._files, path or "/")
        self._at("directory", path or "/")
        found = walk.names(fd)
        for name in found.files:
            file = f"{path}/{name}"
            # The hash is the same in all processes that are forked from one.
            if hash(file) % self._parts != self._part or not self._is_own(file):
                continue
            self._files += 1
            self._at(FILE, file)
            try:
                self._file(fd, file, name, in_packages=in_packages)
            except OSError as error:  # one file must not stop the scan
                self._unread(file, error)
            except (MemoryError, RecursionError) as error:
                detail = f"{file} took more memory than it may: {error!r}"
                self._unknown(file, image_reasons.OVER_BUDGET, detail)
        for name in found.links if self._part == 0 else ():
            self._named(f"{path}/{name}", name)
        for name in found.directories:
            self._directory(fd, f"{path}/{name}", name, in_packages=in_packages, depth=depth + 1)

    def _directory(self, above: int, path: str, name: str, *, in_packages: bool, depth: int) -> None:
        if not self._is_own(path):
            return
        if depth > DEEPEST:
            detail = f"{path} lies more than {DEEPEST} directories deep; it was not walked"
            self._unknown(path, image_reasons.NOT_LOOKED_AT, detail)
            return
        in_packages = (in_packages or path in PACKAGED) and path not in LOCAL
        try:
            fd = walk.open_directory(name, above)
            try:
                self._enter(fd, path, in_packages=in_packages, depth=depth)
            finally:
                os.close(fd)
        except OSError as error:
            self._unread(path, error)

    def _is_own(self, path: str) -> bool:
        mount = self._mounts.get(path)
        if mount:
            self._left_out.append(mount._replace(path=path))
        return mount is None

    def _unread(self, path: str, error: OSError) -> None:
        if error.errno not in _VANISHED:  # on a running system, files come and go
            reason = _REASONS.get(error.errno or 0, reasons.IO_ERROR)
            self._unknown(path, reason, f"cannot read {path}: {error.strerror}")

    def _unknown(self, path: str, reason: Reason, detail: str) -> None:
        self._doubts.append(Doubt(path, Refusal(reason, detail)))

    # --- files ------------------------------------------------------------------------------------

    def _file(self, fd: int, path: str, name: str, *, in_packages: bool) -> None:
        self._named(path, name)
        refusal = self._unfinished.get((FILE, path))
        if refusal:
            self._doubts.append(Doubt(path, refusal))
            return
        window, is_packed = self._window, False
        self._judged = {}
        is_packaged = in_packages and not is_stray(path, self._packaged)
        needles = self._everywhere
        for is_first in window.through(name, fd):
            if is_first:
                self._head(path)
                is_packed = not is_packaged and window.content.startswith(packed.STARTS, 0, window.length)
                needles = needles if is_packaged or not self._is_text() else self._all_needles
            self._search(needles, path, is_first=is_first)
        if window.is_partial:
            detail = f"{path} is so large that only its start and its end were read"
            self._unknown(path, image_reasons.NOT_LOOKED_AT, detail)
        if is_packed:
            self._look_inside(fd, path, name)
        if self._judged and max(self._judged.values()) > MOST_JUDGED:
            detail = f"{path} has more in it that looks like a secret at first sight than was judged"
            self._unknown(path, image_reasons.OVER_BUDGET, detail)

    def _named(self, path: str, name: str) -> None:
        for kind in self._kinds.get(name, ()):
            self._see(kind, path, "")

    def _head(self, path: str) -> None:
        window = self._window
        for start, watch in self._heads.get(window.content[0], ()):
            if window.content.startswith(start, 0, window.length):
                detail = watch.judge(bytes(window.content[: window.length]))
                if detail:
                    self._see(watch.kind, path, detail)

    def _look_inside(self, fd: int, path: str, name: str) -> None:
        """Look through what is compressed in the file, as if it were the file."""
        window = self._window
        with walk.stream(name, fd) as file:
            start = file.read(8)
            file.seek(0)
            window.length = 0
            window.put(packed.MEMBER, is_last=False)
            try:
                for part in packed.unpacked(file, start):
                    window.put(part, is_last=False)
                    self._search(self._all_needles, path, is_first=False)
            except packed.Unfinished as error:
                self._unknown(path, error.reason, f"{path} {error}")
        window.put(b"", is_last=True)
        self._search(self._all_needles, path, is_first=False)

    def _is_text(self) -> bool:
        """Whether it is text, or an archive of files: all other needles are looked for in those alone."""
        content, length = self._window.content, self._window.length
        return content.find(0, 0, min(length, HEAD)) < 0 or content.startswith(b"ustar", 257, length)

    def _search(self, needles: Iterable[Needle], path: str, *, is_first: bool) -> None:
        window, judged = self._window, self._judged
        end = window.length
        for watch in needles:
            found = window.content.find(watch.needle, 0, end)
            # What starts in the overlap is looked at whole with the next window.
            while found >= 0 and (window.is_last or found < end - walk.OVERLAP):
                judged[watch.needle] = judged.get(watch.needle, 0) + 1
                if judged[watch.needle] > MOST_JUDGED:
                    break
                content = bytes(window.content[max(0, found - 512) : min(end, found + walk.OVERLAP)])
                detail = watch.judge(content, min(found, 512))
                if detail:
                    line = window.content.count(b"\n", 0, found) + 1 if is_first else None
                    self._see(watch.kind, path, detail, line)
                    break
                found = window.content.find(watch.needle, found + len(watch.needle), end)

    def _see(self, kind: str, path: str, detail: str, line: int | None = None) -> None:
        self._sightings.setdefault(kind, []).append(Sighting(path, detail, line))


def is_stray(path: str, packaged: Collection[str] | None) -> bool:
    """Whether no package brought the file, as far as that is known. /usr/lib may stand there as /lib."""
    if packaged is None or path.startswith("/var/"):
        return False
    return path not in packaged and path.removeprefix("/usr") not in packaged
