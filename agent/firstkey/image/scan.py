"""The one scan of all files: each is opened once, and whoever watches for something in it is told.

What is mounted inside the tree from elsewhere is not walked. Memory is bounded by one buffer, and the time
for one file by how much of it is read (system/walk); what could not be read is a doubt, never a silence.
"""

from __future__ import annotations

import errno
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
    from collections.abc import Callable, Collection, Iterable, Mapping

    from firstkey.image.watches import Watch
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


class Looking(NamedTuple):
    """The circumstances under which an image is looked at.

    `left_out`: what is mounted in the tree from elsewhere. `unfinished`: the files and rules (a kind and a
    name) that took more work before than they may, and why. `progress` is told how many files were seen, and
    where; `at` what is looked at from now on, and returns what was before. `used`: what running programs use.
    `scanned`: what a scanner for secrets saw.
    """

    left_out: tuple[mounts.Mount, ...] = ()
    unfinished: Mapping[tuple[str, str], Refusal] = MappingProxyType({})
    progress: Callable[[int, str], None] | None = None
    at: At = lambda _kind, _name: None
    used: frozenset[str] = frozenset()
    scanned: Scanned = Scanned()

    @property
    def skipped(self) -> dict[str, Refusal]:
        """The files that are not to be opened again."""
        return {name: refusal for (kind, name), refusal in self.unfinished.items() if kind == FILE}


class Watched(NamedTuple):
    """All watches, as quick to ask as they can be."""

    names: Mapping[str, tuple[str, ...]]
    heads: Mapping[int, tuple[tuple[bytes, Headed], ...]]
    needles: tuple[Needle, ...]
    """Those for every file ..."""
    local: tuple[Needle, ...]
    """... and those for files that no package brought."""


def compiled(watches: Iterable[Watch]) -> Watched:
    """The watches by what they look at."""
    names: dict[str, tuple[str, ...]] = {}
    heads: dict[int, tuple[tuple[bytes, Headed], ...]] = {}
    needles: list[Needle] = []
    for watch in watches:
        if isinstance(watch, Named):
            for name in watch.names:
                names[name] = (*names.get(name, ()), watch.kind)
        elif isinstance(watch, Headed):
            for start in watch.starts:
                heads[start[0]] = (*heads.get(start[0], ()), (start, watch))
        else:
            needles.append(watch)
    everywhere = tuple(needle for needle in needles if needle.everywhere)
    return Watched(names, heads, everywhere, tuple(needle for needle in needles if not needle.everywhere))


class Scanner:
    """One walk over a tree."""

    def __init__(
        self,
        tree: Tree,
        watched: Watched,
        *,
        packaged: Collection[str] | None = None,
        looking: Looking | None = None,
    ) -> None:
        looking = looking or Looking()
        self._at = looking.at
        self._skipped = looking.skipped
        self._progress = looking.progress
        self._tree = tree
        self._watched = watched
        self._packaged = packaged
        self._told = 0.0
        self._window = walk.Window()
        self._judged: dict[bytes, int] = {}
        """How often each needle was judged in the file that is looked into."""
        self._mounts = {self._inside(mount.path): mount for mount in looking.left_out}
        self._with_mounts = {path.rpartition("/")[0] for path in self._mounts}
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
        return Scan(
            {kind: tuple(sorted(set(found), key=_in_order)) for kind, found in self._sightings.items()},
            tuple(sorted(self._doubts, key=lambda doubt: doubt.path)),
            tuple(self._left_out),
            self._files,
        )

    # --- directories ------------------------------------------------------------------------------

    def _inside(self, host_path: str) -> str:
        return host_path if self._tree.is_running_system else host_path[len(self._tree.root) :]

    def _enter(self, fd: int, path: str, *, in_packages: bool, depth: int) -> None:
        self._tell(path)
        self._at("directory", path or "/")
        found = walk.names(fd)
        if path in self._with_mounts:
            found = found._replace(files=[name for name in found.files if self._is_own(f"{path}/{name}")])
        self._files += len(found.files)
        for name in found.files:
            self._at(FILE, f"{path}/{name}")
            try:
                self._file(fd, path, name, in_packages=in_packages)
            except OSError as error:  # one file must not stop the scan
                self._doubt(f"{path}/{name}", error)
            except (MemoryError, RecursionError) as error:
                detail = f"{path}/{name} took more memory than it may: {error!r}"
                self._doubts.append(Doubt(f"{path}/{name}", Refusal(image_reasons.OVER_BUDGET, detail)))
        for name in found.links:
            self._named(path, name)
        for name in found.directories:
            self._directory(fd, f"{path}/{name}", in_packages=in_packages, depth=depth + 1)

    def _directory(self, above: int, path: str, *, in_packages: bool, depth: int) -> None:
        if not self._is_to_be_walked(path, depth):
            return
        in_packages = (in_packages or path in PACKAGED) and path not in LOCAL
        try:
            fd = walk.open_directory(path.rpartition("/")[2], above)
        except OSError as error:
            self._doubt(path, error)
            return
        try:
            self._enter(fd, path, in_packages=in_packages, depth=depth)
        except OSError as error:
            self._doubt(path, error)
        finally:
            walk.close(fd)

    def _is_to_be_walked(self, path: str, depth: int) -> bool:
        if not self._is_own(path):
            return False
        if depth > DEEPEST:
            detail = f"{path} lies more than {DEEPEST} directories deep; it was not walked"
            self._doubts.append(Doubt(path, Refusal(image_reasons.NOT_LOOKED_AT, detail)))
        return depth <= DEEPEST

    def _is_own(self, path: str) -> bool:
        mount = self._mounts.get(path)
        if mount:
            self._left_out.append(mount._replace(path=path))
        return mount is None

    def _tell(self, path: str) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self._progress(self._files, path or "/")

    def _doubt(self, path: str, error: OSError) -> None:
        if error.errno not in _VANISHED:  # on a running system, files come and go
            reason = _REASONS.get(error.errno or 0, reasons.IO_ERROR)
            self._doubts.append(Doubt(path, Refusal(reason, f"cannot read {path}: {error.strerror}")))

    # --- files ------------------------------------------------------------------------------------

    def _file(self, fd: int, path: str, name: str, *, in_packages: bool) -> None:
        self._named(path, name)
        refusal = self._skipped.get(f"{path}/{name}")
        if refusal:
            self._doubts.append(Doubt(f"{path}/{name}", refusal))
            return
        with walk.Opened(name, fd) as opened:
            if opened.is_regular and opened.status.st_size:
                self._look_into(opened, path, name, in_packages=in_packages)

    def _named(self, path: str, name: str) -> None:
        for kind in self._watched.names.get(name, ()):
            self._see(kind, path, name, "")

    def _look_into(self, opened: walk.Opened, path: str, name: str, *, in_packages: bool) -> None:
        window = self._window
        self._judged = {}
        window.first(opened.fd)
        if not window.length:
            return
        for start, watch in self._watched.heads.get(window.content[0], ()):
            if window.content.startswith(start, 0, window.length):
                detail = watch.judge(bytes(window.content[: window.length]))
                if detail:
                    self._see(watch.kind, path, name, detail)
        is_packed = window.content.startswith(packed.STARTS, 0, window.length)
        needles = self._needles(path, name, in_packages=in_packages)
        self._search(needles, path, name, is_first=True)
        for _ in window.others(opened.fd, opened.status.st_size):
            self._search(needles, path, name, is_first=False)
        if window.is_partial:
            self._partly(
                f"{path}/{name} is so large that only its start and its end were looked at", path, name
            )
        if is_packed and not (in_packages and not self._is_stray(f"{path}/{name}")):
            self._look_inside(opened, path, name)
        self._tell_unjudged(path, name)

    def _look_inside(self, opened: walk.Opened, path: str, name: str) -> None:
        """Look through what is compressed in the file, as if it were the file."""
        needles = self._watched.needles + self._watched.local
        window = self._window
        with opened.stream() as file:
            start = file.read(8)
            file.seek(0)
            window.length = 0
            window.put(packed.MEMBER, is_last=False)
            try:
                for part in packed.unpacked(file, start):
                    window.put(part, is_last=False)
                    self._search(needles, path, name, is_first=False)
            except packed.Unfinished as error:
                refusal = Refusal(error.reason, f"{path}/{name} {error}")
                self._doubts.append(Doubt(f"{path}/{name}", refusal))
        window.put(b"", is_last=True)
        self._search(needles, path, name, is_first=False)

    def _tell_unjudged(self, path: str, name: str) -> None:
        if max(self._judged.values(), default=0) > MOST_JUDGED:
            detail = f"{path}/{name} has more in it that looks like a secret at first sight than was judged"
            self._doubts.append(Doubt(f"{path}/{name}", Refusal(image_reasons.OVER_BUDGET, detail)))

    def _partly(self, detail: str, path: str, name: str) -> None:
        self._doubts.append(Doubt(f"{path}/{name}", Refusal(image_reasons.NOT_LOOKED_AT, detail)))

    def _needles(self, path: str, name: str, *, in_packages: bool) -> tuple[Needle, ...]:
        """The needles to look for: those for what no package brought cost more, and are all about text."""
        watched = self._watched
        if in_packages and not self._is_stray(f"{path}/{name}"):
            return watched.needles
        content, length = self._window.content, self._window.length
        if content.find(0, 0, min(length, HEAD)) >= 0 and not content.startswith(b"ustar", 257, length):
            return watched.needles
        return watched.needles + watched.local

    def _is_stray(self, path: str) -> bool:
        return is_stray(path, self._packaged)

    def _search(self, needles: Iterable[Needle], path: str, name: str, *, is_first: bool) -> None:
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
                    self._see(watch.kind, path, name, detail, line)
                    break
                found = window.content.find(watch.needle, found + len(watch.needle), end)

    def _see(self, kind: str, path: str, name: str, detail: str, line: int | None = None) -> None:
        self._sightings.setdefault(kind, []).append(Sighting(f"{path}/{name}", detail, line))


def is_stray(path: str, packaged: Collection[str] | None) -> bool:
    """Whether no package brought the file, as far as that is known. /usr/lib may stand there as /lib."""
    if packaged is None or path.startswith("/var/"):
        return False
    return path not in packaged and path.removeprefix("/usr") not in packaged


def _in_order(sighting: Sighting) -> tuple[str, str, int]:
    """By path; what is far behind in a file has no line."""
    return sighting.path, sighting.detail, sighting.line or 0


def scan(
    tree: Tree,
    watches: Iterable[Watch],
    *,
    packaged: Collection[str] | None = None,
    looking: Looking | None = None,
) -> Scan:
    """Walk the tree once for all the watches."""
    return Scanner(tree, compiled(watches), packaged=packaged, looking=looking).run()
