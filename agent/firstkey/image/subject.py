"""The image as the rules see it: its tree, its accounts and homes, its packages, its sshd, and the one scan.

What costs something is done when the first rule asks, and once.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property

from firstkey import NamedTuple, reasons
from firstkey.boot.target import Target
from firstkey.image import scan
from firstkey.image.packages import Packages
from firstkey.image.scan import Scan, Sighting, Watch
from firstkey.image.sshd import Settings
from firstkey.image.verdict import Unknown
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import restrictions
from firstkey.system import mounts, walk
from firstkey.system.walk import Found

FILE_LIMIT = 16 * 1024 * 1024
"""The largest file that a rule reads whole."""
DEEPEST = 64
"""How deep `below` goes: logs, mail and crash dumps never lie so deep."""
_PARTS = re.compile(r"((?:/[^/*?\[]+)*)/([^/]+)")
"""In a pattern: the names that stand for themselves, and the part behind them."""
_KERNEL = ("/dev", "/proc", "/run", "/sys")


@contextmanager
def noted(path: str, unknowns: list[Unknown] | None) -> Iterator[None]:
    """Where a part of the path is no directory, there is nothing; all else that is wrong is an unknown.

    It is raised where there is no list of `unknowns`.
    """
    try:
        yield
    except FirstkeyError as error:
        if error.reason is reasons.NOT_A_DIRECTORY:
            return
        if unknowns is None:
            raise
        unknowns.append(Unknown(path, error.refusal))


class Home(NamedTuple):
    """A home directory; `user` is None where no account has it (any more). `place`: where it really is."""

    path: str
    user: str | None
    place: str
    uid: int

    def join(self, name: str) -> str:
        """A path in it."""
        return f"{self.path.rstrip('/')}/{name}"


class Image:
    """One image, or the running system."""

    def __init__(
        self, target: Target, watches: Iterable[Watch], looking: scan.Looking, *, banner: bool
    ) -> None:
        self.target = target
        self.wants_banner = banner
        self.tree = target.tree
        self.accounts = target.accounts
        self.settings = target.config.image
        self._watches = tuple(watches)
        self.looking = looking
        self.scanned, self.used = looking.scanned, looking.used
        self.home_unknowns: list[Unknown] = []
        self._links: dict[str, dict[str, None]] = {}

    @cached_property
    def scan(self) -> Scan:
        """What the walk over all files saw. Raises FirstkeyError where it failed."""
        done = self.looking.scan
        if isinstance(done, Refusal):
            raise FirstkeyError(done.detail, reason=done.reason)
        return done or scan.joined([self.part_of_scan(0, 1)])

    def part_of_scan(self, part: int, parts: int) -> Scan:
        """What it sees in that part of the files, of so many."""
        return scan.Scanner(self.tree, self._watches, self._packaged, self.looking, part, parts).run()

    def sightings(self, kind: str) -> tuple[Sighting, ...]:
        """The files that the scan saw of that kind."""
        return self.scan.sightings.get(kind, ())

    @cached_property
    def packages(self) -> Packages:
        """The package manager's own records."""
        return Packages(self.tree)

    @cached_property
    def _packaged(self) -> Collection[str] | None:
        return self.packages.paths()

    @cached_property
    def sshd(self) -> Settings:
        """What sshd's configuration means."""
        return Settings(self.tree)

    @cached_property
    def homes(self) -> tuple[Home, ...]:
        """Every home: of all accounts wherever it is, those without an account, and /etc/skel."""
        possible: list[tuple[str, str | None]] = [
            (path, account.name)
            for account in self.accounts.all()
            if not self.is_elsewhere(path := os.path.normpath(account.home))
        ]
        possible += [(path, None) for path in ("/", "/root", "/etc/skel")]
        if not self.is_elsewhere("/home"):
            possible += [(path, None) for path in self.glob("/home/*")]
        found: dict[tuple[int, int], Home] = {}
        for path, user in possible:
            with noted(path, self.home_unknowns), self.tree.open(path) or nullcontext() as directory:
                real = walk.follow(self.tree, path) if directory else None
                if real:
                    home = Home(path, user, real.path, real.status.st_uid)
                    found.setdefault((real.status.st_dev, real.status.st_ino), home)
        return tuple(found.values())

    @cached_property
    def _homes_by_place(self) -> dict[str, Home]:
        return {home.place: home for home in self.homes if home.place != "/"}

    @cached_property
    def no_logins(self) -> frozenset[str]:
        """The names of accounts whose shell refuses every login."""
        accounts = self.accounts.all()
        return frozenset(each.name for each in accounts if restrictions.is_no_shell(each.shell))

    def holding(self, path: str) -> Iterator[Home]:
        """The homes but / that a path without links lies in, the innermost first."""
        homes = self._homes_by_place
        return (homes[place] for place in mounts.upwards(path) if place in homes)

    def is_elsewhere(self, path: str) -> bool:
        """Whether it is no part of the image: the kernel's, or mounted from another machine."""
        is_kernels = any(mounts.is_at_or_below(path, place) for place in _KERNEL)
        return is_kernels or self.mounted_at(path) is not None

    def mounted_at(self, path: str) -> mounts.Mount | None:
        """What is mounted there, or above, that is no part of the image."""
        return mounts.over(self.looking.left_out, self.tree.root, os.path.normpath(path))

    # --- looking at files -------------------------------------------------------------------------

    def read(self, path: str, *, limit: int = FILE_LIMIT) -> bytes | None:
        """The content of a regular file, or None where there is none. Raises FirstkeyError."""
        return self.tree.read(path, limit=limit)

    def status(self, path: str) -> os.stat_result | None:
        """The status of what has that name itself, a link included; None where nothing has it."""
        if path == "/":
            path = "/."
        with noted(path, None), self.tree.open(os.path.dirname(path)) or nullcontext() as directory:
            return directory.status(os.path.basename(path)) if directory else None

    def follow(self, path: str, unknowns: list[Unknown] | None = None) -> Found | None:
        """What the path leads to in the end, inside the image; None where that is no part of the image.

        Such are what is elsewhere, and what a link leads to that a package brought. What may not be followed
        is put to the `unknowns`, or raised without such a list.
        """
        found = None
        with noted(path, unknowns):
            found = walk.follow(self.tree, path)
        if found is None or self.is_elsewhere(found.path):
            return None
        if found.links:
            places = {place for place in (*scan.PACKAGED, *scan.LOCAL) if found.path.startswith(f"{place}/")}
            is_in_packages = places and not places & scan.LOCAL
            if is_in_packages and not scan.is_stray(found.path, self._packaged):
                return None
            self._links.setdefault(found.path, {}).update(dict.fromkeys(found.links))
        return found

    def file(self, path: str, unknowns: list[Unknown] | None = None) -> Found | None:
        """The regular file that the path leads to, as `follow` finds it; None where that is no file."""
        found = self.follow(path, unknowns)
        return found if found and stat.S_ISREG(found.status.st_mode) else None

    def links_to(self, path: str) -> tuple[str, ...]:
        """The links that led `follow` to that path: they are of no use without it."""
        return tuple(self._links.get(path, ()))

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory itself, and no link to one."""
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str, *, least: int = 0) -> bool:
        """Whether it is a regular file itself, with so many bytes in it."""
        status = self.status(path)
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size >= least

    def glob(self, pattern: str, unknowns: list[Unknown] | None = None) -> list[str]:
        """The paths that there are for a pattern, in which `*`, `?` and `[]` mean what they do in a shell.

        A leading `~/` stands for each home. Directories on the way that are links are followed only as the
        tree follows them. What cannot be looked into is put to the `unknowns`, or raised without such a list.
        """
        starts, found = [""], []
        if pattern.startswith("~/"):
            starts, pattern = [home.path.rstrip("/") for home in self.homes], pattern[2:]
        # `..` is no part of a pattern that leads anywhere: it would multiply the paths of one place.
        parts = _PARTS.findall(posixpath.normpath(f"/{pattern}"))
        for start in starts:
            paths = [start]
            for plain, part in parts:
                places = [path + plain for path in paths]
                paths = [f"{place}/{name}" for place in places for name in self._names(place, part, unknowns)]
            found += sorted(paths)
        return found

    def _names(self, path: str, part: str, unknowns: list[Unknown] | None) -> list[str]:
        names: list[str] = []
        with noted(path, unknowns), self.tree.open(path or "/") or nullcontext() as directory:
            if directory and not any(character in part for character in "*?["):
                return [part] if directory.status(part) else []
            names = fnmatch.filter(directory.names(), part) if directory else []
        return [name for name in names if part.startswith(".") or not name.startswith(".")]

    def below(self, path: str, *, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
        """All in a directory and those in it, but directories that are not too deep; no link is followed."""
        directory = self.tree.open(path) if self.is_directory(path) else None
        if directory is None:
            return
        with directory:
            found = [(directory.join(name), directory.status(name)) for name in directory.names()]
        for inside, status in found:
            if status and stat.S_ISDIR(status.st_mode):
                if depth + 1 == DEEPEST:
                    yield inside, status
                elif not self.is_elsewhere(inside):
                    yield from self.below(inside, depth=depth + 1)
            elif status:
                yield inside, status
