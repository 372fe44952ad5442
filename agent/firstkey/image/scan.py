"""The one scan of all files: each is opened once, for all rules that watch for something in it.

The watches of all rules become a few look-ups a file, so that no rule walks by itself.

What is mounted inside the tree from elsewhere is not walked. Memory is bounded by one buffer, and the time
for one file by how much of it is read (system/walk); what could not be read is an unknown, never a silence.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Union

from firstkey import NamedTuple, image_reasons, reasons
from firstkey.image import packed
from firstkey.image.verdict import Unknown
from firstkey.reasons import Reason, Refusal
from firstkey.system import mounts, walk
from firstkey.system.tree import Tree

# --- what is watched for: by name, by first bytes, or by content ------------------------------------


class Named(NamedTuple):
    """Files of one of these names, whatever is in them, and links of those names, wherever they lead."""

    kind: str
    names: frozenset[str]


class Headed(NamedTuple):
    """Files that start with one of these; `judge` sees the head and says what it is, or None."""

    kind: str
    starts: tuple[bytes, ...]
    judge: Callable[[bytes], str | None]


class Needle(NamedTuple):
    """Files that have these bytes in them; `judge` sees what surrounds each place, or None.

    It is called with the content before and behind (as much as there is of it) and where the needle starts.
    Outside of what packages brought, unless `everywhere`: the bulk of a system costs time.
    """

    kind: str
    needle: bytes
    judge: Callable[[bytes, int], str | None]
    everywhere: bool = False


Watch = Union[Named, Headed, Needle]


class Sighting(NamedTuple):
    """A file that a rule watches for; `detail` is what the judge said of it, or nothing."""

    path: str
    detail: str
    line: int | None = None


OTHERS = "Tokens of other makers than AWS were"


class Scanned(NamedTuple):
    """What a scanner of the host's saw in the image, why it is no answer, and which scanner it was."""

    sightings: tuple[Sighting, ...] = ()
    refusal: Refusal | None = None
    remark: str = f"{OTHERS} not looked for; audit has a scanner look where one is installed (--secrets)."


# --- the scan ---------------------------------------------------------------------------------------

PACKAGED = frozenset({
    "/bin", "/boot", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/var/cache/apt",
    "/var/cache/dnf", "/var/cache/yum", "/var/lib/apk", "/var/lib/apt", "/var/lib/dnf", "/var/lib/dpkg",
    "/var/lib/pacman", "/var/lib/rpm",
})  # fmt: skip
"""Where packages put what they bring: there only the watches that say so look into every file."""
LOCAL = frozenset(("/usr/local",))

FILE, DIRECTORY = "file", "directory"
DEEPEST = 400
"""How many directories inside one another are walked; each holds a descriptor, and a process has 1024."""
PROGRESS_SECONDS = 0.1
IS_NESTED = "has something packed in it"
NESTED = Needle(
    "nested", b"ustar", lambda text, at: IS_NESTED if packed.PACKED.match(text, at + 255) else None
)
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
    """What the scan saw: sightings by kind and path, what it could not see, the mounts that it left out."""

    sightings: Mapping[str, tuple[Sighting, ...]]
    unknowns: tuple[Unknown, ...]
    left_out: tuple[mounts.Mount, ...]
    files: int


def joined(parts: Sequence[Scan]) -> Scan:
    """The scan of which these are the parts, in order."""
    sightings: dict[str, set[Sighting]] = {}
    for kind, seen in (each for part in parts for each in part.sightings.items()):
        sightings.setdefault(kind, set()).update(seen)
    unknowns = {unknown for part in parts for unknown in part.unknowns}
    return Scan(
        # By path; what is far behind in a file has no line.
        {
            kind: tuple(sorted(found, key=lambda seen: (seen.path, seen.detail, seen.line or 0)))
            for kind, found in sightings.items()
        },
        tuple(sorted(unknowns, key=lambda unknown: (unknown.path, unknown.refusal.detail))),
        tuple(dict.fromkeys(mount for part in parts for mount in part.left_out)),
        sum(part.files for part in parts),
    )


class Looking(NamedTuple):
    """The circumstances under which an image is looked at.

    `left_out`: what is mounted in the tree from elsewhere. `unfinished`: the files, directories and rules (a
    kind and a name) that took more work before than they may, and why. `progress` gets how many files were
    seen, and where; `at` gets what is looked at from now on, and returns what was before. `used`: what
    running programs use. `scanned`: what a scanner for secrets saw. `scan`: what the scan saw, or why it
    failed.
    """

    left_out: tuple[mounts.Mount, ...] = ()
    unfinished: Mapping[tuple[str, str], Refusal] = MappingProxyType({})
    progress: Callable[[int, str], None] | None = None
    at: Callable[[str, str], tuple[str, str] | None] = lambda _kind, _name: None
    used: frozenset[str] = frozenset()
    scanned: Scanned = Scanned()
    scan: Scan | Refusal | None = None


class Scanner:
    """One walk over a tree."""

    def __init__(
        self,
        tree: Tree,
        watches: Collection[Watch],
        packaged: Collection[str] | None,
        looking: Looking,
        part: int,
        parts: int,
    ) -> None:
        """`packaged`: the paths that packages brought, where they are known. Of so many parts of the files,
        it looks into that one.
        """
        self._part, self._parts = part, parts
        self._looking, self._at = looking, looking.at
        self._tree = tree
        self._packaged = packaged
        # The watches by what they look at, as quick to ask as they can be.
        self._kinds: dict[str, list[str]] = {}
        for name, kind in ((name, w.kind) for w in watches if isinstance(w, Named) for name in w.names):
            self._kinds.setdefault(name, []).append(kind)
        self._headed = [watch for watch in watches if isinstance(watch, Headed)]
        self._starts = tuple(start for watch in self._headed for start in watch.starts)
        self._all_needles = [NESTED, *(watch for watch in watches if isinstance(watch, Needle))]
        self._everywhere = [needle for needle in self._all_needles if needle.everywhere]
        self._told = 0.0
        self._window = walk.Window()
        self._judged: dict[Needle, int] = {}
        """How often each needle was judged in the file that is looked into."""
        outside = 0 if tree.is_running_system else len(tree.root)
        self._mounts = {mount.path[outside:]: mount for mount in looking.left_out}
        self._left_out: list[mounts.Mount] = []
        self._sightings: dict[str, dict[tuple[str, str], Sighting]] = {}
        self._unknowns: list[Unknown] = []
        self._files = 0

    def run(self) -> Scan:
        """Walk, and return what was seen."""
        before = self._at(DIRECTORY, "/")
        with self._tree.opened("/") as top:
            self._look(DIRECTORY, "/", top.fd, ".", depth=0, in_packages=False)
        if before:
            self._at(*before)
        sightings = {kind: tuple(found.values()) for kind, found in self._sightings.items()}
        return Scan(sightings, tuple(self._unknowns), tuple(self._left_out), self._files)

    # --- directories ------------------------------------------------------------------------------

    def _enter(self, path: str, above: int, name: str, *, depth: int, in_packages: bool) -> None:
        if self._looking.progress and time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._looking.progress(self._files, path)
        if depth > DEEPEST:
            detail = f"{path} lies more than {DEEPEST} directories deep; it was not walked"
            self._unknown(path, image_reasons.NOT_LOOKED_AT, detail)
            return
        inside = "" if path == "/" else path
        fd = walk.open_directory(name, above)
        try:
            found = walk.names(fd)
            for each in found.files:
                file = f"{inside}/{each}"
                # The hash is the same in all processes that are forked from one.
                if hash(file) % self._parts == self._part and self._is_own(file):
                    self._files += 1
                    self._named(file, each)
                    self._look(FILE, file, fd, each, depth=depth, in_packages=in_packages)
            for each in found.links if self._part == 0 else ():
                self._named(f"{inside}/{each}", each)
            for each in found.directories:
                below = f"{inside}/{each}"
                if self._is_own(below):
                    is_packaged = (in_packages or below in PACKAGED) and below not in LOCAL
                    self._look(DIRECTORY, below, fd, each, depth=depth + 1, in_packages=is_packaged)
        finally:
            os.close(fd)

    def _is_own(self, path: str) -> bool:
        mount = self._mounts.get(path)
        if mount:
            self._left_out.append(mount._replace(path=path))
        return mount is None

    def _look(self, kind: str, path: str, above: int, name: str, *, depth: int, in_packages: bool) -> None:
        """Look at one file or directory, unless that took too much before; none of them stops the scan."""
        refusal = self._looking.unfinished.get((kind, path))
        if refusal:
            self._unknowns.append(Unknown(path, refusal))
            return
        self._at(kind, path)
        try:
            if kind == FILE:
                self._file(path, above, name, in_packages=in_packages)
            else:
                self._enter(path, above, name, depth=depth, in_packages=in_packages)
        except OSError as error:
            if error.errno not in _VANISHED:  # on a running system, files come and go
                reason = _REASONS.get(error.errno or 0, reasons.IO_ERROR)
                self._unknown(path, reason, f"cannot read {path}: {error.strerror}")
        except (MemoryError, RecursionError) as error:
            self._unknown(path, image_reasons.OVER_BUDGET, f"{path} took more memory than it may: {error!r}")

    def _unknown(self, path: str, reason: Reason, detail: str) -> None:
        self._unknowns.append(Unknown(path, Refusal(reason, detail)))

    # --- files ------------------------------------------------------------------------------------

    def _file(self, path: str, fd: int, name: str, *, in_packages: bool) -> None:
        window, is_packed = self._window, False
        self._judged = {}
        is_packaged = in_packages and not is_stray(path, self._packaged)
        needles = self._everywhere
        for is_first in window.through(name, fd):
            if is_first:
                self._head(path)
                is_packed = not is_packaged and bool(packed.PACKED.match(window.content, 0, window.length))
                # All other needles are looked for in text and in archives of files alone.
                if not is_packaged and (
                    window.content.find(0, 0, min(window.length, HEAD)) < 0
                    or window.content.startswith(b"ustar", 257, window.length)
                ):
                    needles = self._all_needles
            self._search(needles, path, is_first=is_first)
        if window.is_partial:
            detail = f"{path} is so large that only its start and its end were read"
            self._unknown(path, image_reasons.NOT_LOOKED_AT, detail)
        if is_packed:
            self._look_inside(fd, path, name)
        if (path, IS_NESTED) in self._sightings.get(NESTED.kind, ()):
            self._look_inside(fd, path, name, nested=True)
        if self._judged and max(self._judged.values()) > MOST_JUDGED:
            detail = f"{path} has more in it that looks like a secret at first sight than was judged"
            self._unknown(path, image_reasons.OVER_BUDGET, detail)

    def _named(self, path: str, name: str) -> None:
        for kind in self._kinds.get(name, ()):
            self._see(kind, path, "")

    def _head(self, path: str) -> None:
        window = self._window
        if not window.content.startswith(self._starts, 0, window.length):
            return
        head = bytes(window.content[: window.length])
        for watch in self._headed:
            detail = watch.judge(head) if head.startswith(watch.starts) else None
            if detail:
                self._see(watch.kind, path, detail)

    def _look_inside(self, fd: int, path: str, name: str, *, nested: bool = False) -> None:
        """Look through what is compressed in the file, as if it were the file; or in the files in it."""
        window = self._window
        with walk.stream(name, fd) as file:
            start = file.read(HEAD)
            file.seek(0)
            window.length = 0
            window.put(packed.MEMBER, is_last=False)
            try:
                for part in packed.unpacked(file, start, nested=nested):
                    window.put(part, is_last=False)
                    self._search(self._all_needles, path, is_first=False)
            except packed.Unfinished as error:
                self._unknown(path, error.reason, f"{path} {error}")
        window.put(b"", is_last=True)
        self._search(self._all_needles, path, is_first=False)

    def _search(self, needles: Iterable[Needle], path: str, *, is_first: bool) -> None:
        window, judged = self._window, self._judged
        end = window.length
        for watch in needles:
            found = window.content.find(watch.needle, 0, end)
            # What starts in the overlap is looked at whole with the next window.
            while found >= 0 and (window.is_last or found < end - walk.OVERLAP):
                judged[watch] = judged.get(watch, 0) + 1
                if judged[watch] > MOST_JUDGED:
                    break
                content = bytes(window.content[max(0, found - 512) : min(end, found + walk.OVERLAP)])
                detail = watch.judge(content, min(found, 512))
                if detail:
                    line = window.content.count(b"\n", 0, found) + 1 if is_first else None
                    self._see(watch.kind, path, detail, line)
                    break
                found = window.content.find(watch.needle, found + len(watch.needle), end)

    def _see(self, kind: str, path: str, detail: str, line: int | None = None) -> None:
        # What is there a second time, far behind in the file or packed, has no line: the first counts.
        self._sightings.setdefault(kind, {}).setdefault((path, detail), Sighting(path, detail, line))


def is_stray(path: str, packaged: Collection[str] | None) -> bool:
    """Whether no package brought the file, as far as that is known. /usr/lib may stand there as /lib."""
    if packaged is None or path.startswith("/var/"):
        return False
    return path not in packaged and path.removeprefix("/usr") not in packaged
