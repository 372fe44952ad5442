"""The image as the rules see it: its tree, its accounts and homes, its packages, its sshd, and the one scan.

What costs something is done when the first rule asks, and once.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from contextlib import nullcontext, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from firstkey import NamedTuple, reasons
from firstkey.image import scan
from firstkey.image.packages import Packages
from firstkey.image.sshd import Settings
from firstkey.image.verdict import Doubt
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.system import mounts, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from firstkey.boot.site import Site
    from firstkey.image.scan import Scan
    from firstkey.image.watches import Sighting, Watch
    from firstkey.system.files import Directory
    from firstkey.system.walk import Found

FILE_LIMIT = 16 * 1024 * 1024
"""The largest file that a rule reads whole."""
DEEPEST = 64
"""How deep `below` goes: logs, mail and crash dumps never lie so deep."""
_PARTS = re.compile(r"((?:/[^/*?\[]+)*)/([^/]+)")
"""In a pattern: the names that stand for themselves, and the part behind them."""
_KERNEL = ("/dev", "/proc", "/run", "/sys")


class Home(NamedTuple):
    """A home directory; `user` is None where no account has it (any more)."""

    path: str
    user: str | None

    def join(self, name: str) -> str:
        """A path in it."""
        return f"{self.path.rstrip('/')}/{name}"


class Image:
    """One image, or the running system."""

    def __init__(
        self,
        site: Site,
        watches: Iterable[Watch],
        looking: scan.Looking,
        *,
        banner: bool,
    ) -> None:
        self.site = site
        self.wants_banner = banner
        self.tree = site.tree
        self.accounts = site.accounts
        self.settings = site.config.image
        self._watches = tuple(watches)
        self.looking = looking
        self.scanned = self.looking.scanned
        self.home_doubts: list[Doubt] = []
        self._links: dict[str, dict[str, None]] = {}

    @cached_property
    def scan(self) -> Scan:
        """What the walk over all files saw."""
        return self.looking.scan or scan.joined([self.part_of_scan(0, 1)])

    def part_of_scan(self, part: int, parts: int) -> Scan:
        """What it sees in that part of the files, of so many."""
        scanner = scan.Scanner(self.tree, self._watches, self._packaged, self.looking, part, parts)
        return scanner.run()

    @property
    def used(self) -> frozenset[str]:
        """What running programs use in it."""
        return self.looking.used

    @property
    def files_seen(self) -> int | None:
        """How many files the scan looked at; None while there was none."""
        done: Scan | None = self.__dict__.get("scan")
        return done.files if done else None

    def sightings(self, kind: str) -> tuple[Sighting, ...]:
        """The files that the scan saw of that kind."""
        return self.scan.of(kind)

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
        """Every home: of all accounts wherever it is, those that nobody has any more, and /etc/skel."""
        found: dict[tuple[int, int], Home] = {}
        for path, user in self._possible_homes():
            try:
                with self._directory(path) or nullcontext() as directory:
                    status = directory.status() if directory else None
            except FirstkeyError as error:
                self.home_doubts.append(Doubt(path, error.refusal))
                continue
            if status:
                found.setdefault((status.st_dev, status.st_ino), Home(path, user))
        return tuple(found.values())

    @cached_property
    def home_places(self) -> tuple[tuple[str, str], ...]:
        """Each home but / of somebody who can log in, by its path and by where that leads."""
        no_logins = {
            account.name for account in self.accounts.all() if restrictions.is_no_shell(account.shell)
        }
        places = []
        for home in self.homes:
            if home.user in no_logins:
                continue
            with suppress(FirstkeyError):
                found = walk.follow(self.tree, home.path)
                if found and found.path != "/":
                    places.append((home.path, found.path))
        return tuple(places)

    def _possible_homes(self) -> Iterator[tuple[str, str | None]]:
        for account in self.accounts.all():
            path = os.path.normpath(account.home)
            if not self.is_elsewhere(path):
                yield path, account.name
        yield from ((path, None) for path in ("/", "/root", "/etc/skel"))
        if not self.is_elsewhere("/home"):
            yield from ((path, None) for path in self.glob("/home/*"))

    def is_elsewhere(self, path: str) -> bool:
        """Whether it is no part of the image: the kernel's, or mounted from another machine."""
        if any(path == place or path.startswith(f"{place}/") for place in _KERNEL):
            return True
        return self.mounted_at(path) is not None

    def mounted_at(self, path: str) -> mounts.Mount | None:
        """What is mounted there, or above, that is no part of the image."""
        host = self.tree.on_host(os.path.normpath(path))
        return next(
            (mount for mount in self.looking.left_out if mounts.is_at_or_below(host, mount.path)), None
        )

    # --- looking at files -------------------------------------------------------------------------

    def read(self, path: str, *, limit: int = FILE_LIMIT) -> bytes | None:
        """The content of a regular file, or None where there is none. Raises FirstkeyError."""
        return self.tree.read(path, limit=limit)

    def status(self, path: str) -> os.stat_result | None:
        """The status of what has that name itself, a link included; None where nothing has it."""
        if path == "/":
            path = "/."
        directory = self.tree.open(os.path.dirname(path))
        if directory is None:
            return None
        with directory:
            return directory.status(os.path.basename(path))

    def follow(self, path: str, doubts: list[Doubt] | None = None) -> Found | None:
        """What the path leads to in the end, inside the image; None where that is nothing of anybody's.

        Such are what is elsewhere, and what a link leads to that a package brought. What may not be followed
        is put to the `doubts`, or raised without such a list.
        """
        try:
            found = walk.follow(self.tree, path)
        except FirstkeyError as error:
            if error.reason is reasons.NOT_A_DIRECTORY:
                return None
            if doubts is None:
                raise
            doubts.append(Doubt(path, error.refusal))
            return None
        if found is None or self.is_elsewhere(found.path):
            return None
        if found.links and self._is_of_packages(found.path):
            return None
        if found.links:
            self._links.setdefault(found.path, {}).update(dict.fromkeys(found.links))
        return found

    def file(self, path: str, doubts: list[Doubt] | None = None) -> Found | None:
        """The regular file that the path leads to, as `follow` finds it; None where that is no file."""
        found = self.follow(path, doubts)
        return found if found and stat.S_ISREG(found.status.st_mode) else None

    def links_to(self, path: str) -> tuple[str, ...]:
        """The links that led `follow` to that path: they are of no use without it."""
        return tuple(self._links.get(path, ()))

    def _is_of_packages(self, path: str) -> bool:
        places = [place for place in (*scan.PACKAGED, *scan.LOCAL) if path.startswith(f"{place}/")]
        if not places or scan.LOCAL.intersection(places):
            return False
        return not scan.is_stray(path, self._packaged)

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory itself, and no link to one."""
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file itself."""
        status = self.status(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def has_content(self, path: str) -> bool:
        """Whether it is a regular file with something in it."""
        status = self.status(path)
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size > 0

    def glob(self, pattern: str, doubts: list[Doubt] | None = None) -> list[str]:
        """The paths that there are for a pattern, in which `*`, `?` and `[]` mean what they do in a shell.

        A leading `~/` stands for each home. Directories on the way that are links are followed only as the
        tree follows them. What cannot be looked into is put to the `doubts`, or raised without such a list.
        """
        if pattern.startswith("~/"):
            return [path for home in self.homes for path in self._glob(home.join(""), pattern[2:], doubts)]
        return self._glob("", pattern, doubts)

    def _glob(self, start: str, pattern: str, doubts: list[Doubt] | None) -> list[str]:
        """`..` is no part of a pattern that leads anywhere: it would multiply the paths of one place."""
        paths = [start.rstrip("/")]
        for plain, part in _PARTS.findall(posixpath.normpath(f"/{pattern}")):
            places = [path + plain for path in paths]
            paths = [f"{place}/{name}" for place in places for name in self._names(place, part, doubts)]
        return sorted(set(paths))

    def _names(self, path: str, part: str, doubts: list[Doubt] | None) -> list[str]:
        try:
            directory = self._directory(path or "/")
            if directory is None:
                return []
            with directory:
                if not any(character in part for character in "*?["):
                    return [part] if directory.status(part) else []
                names = fnmatch.filter(directory.names(), part)
            return [name for name in names if part.startswith(".") or not name.startswith(".")]
        except FirstkeyError as error:
            if doubts is None:
                raise
            doubts.append(Doubt(path, error.refusal))
            return []

    def _directory(self, path: str) -> Directory | None:
        """The directory that this is, or leads to; None where it is anything else."""
        try:
            return self.tree.open(path)
        except FirstkeyError as error:
            if error.reason is reasons.NOT_A_DIRECTORY:
                return None
            raise

    def below(self, path: str, *, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
        """Everything in a directory, and in those in it, that is no directory itself; no link is followed."""
        directory = self.tree.open(path) if self.is_directory(path) and depth < DEEPEST else None
        if directory is None:
            return
        with directory:
            found = [(directory.join(name), directory.status(name)) for name in directory.names()]
        for inside, status in found:
            if status and stat.S_ISDIR(status.st_mode):
                if not self.is_elsewhere(inside):
                    yield from self.below(inside, depth=depth + 1)
            elif status:
                yield inside, status
