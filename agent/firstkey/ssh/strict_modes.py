"""StrictModes: whose owner or mode makes sshd ignore a file of keys (sshd_config(5); misc.c: safe_path).

The file and each directory above it, up to the home or else the root, must be the user's or root's, and
nobody else may write it. Debian's and Ubuntu's sshd lets a group write in which there is only the user.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable

from firstkey.named_tuple import NamedTuple

GROUP_WRITE, OTHERS_WRITE = stat.S_IWGRP, stat.S_IWOTH


class Part(NamedTuple):
    """A file or a directory on its path, links followed."""

    path: str
    uid: int
    gid: int
    mode: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def looks(self) -> str:
        """Mode and owner, for people."""
        return f"mode {stat.S_IMODE(self.mode):04o}, owner {self.uid}, group {self.gid}"


class Flaw(NamedTuple):
    """A part for which sshd ignores the file: another user's, or with the write bits of others."""

    part: Part
    is_foreign: bool
    writers: int

    @property
    def why(self) -> str:
        """What is wrong, for people."""
        whys = (
            (self.is_foreign, f"it belongs to user {self.part.uid}"),
            (self.writers & OTHERS_WRITE, "everybody can write it"),
            (self.writers & GROUP_WRITE, f"group {self.part.gid} can write it"),
        )
        return " and ".join(why for is_so, why in whys if is_so)

    def remedy(self, user: str, home: str) -> str:
        """The commands that repair it; what lies in the home is to be the user's, all else root's."""
        import shlex  # for people, and not at a boot

        path = shlex.quote(self.part.path)
        inside = self.part.path == home or self.part.path.startswith(f"{home}/")
        commands = [f"chown {user if inside else 'root'} {path}"] if self.is_foreign else []
        commands += [f"chmod go-w {path}"] if self.part.mode & (GROUP_WRITE | OTHERS_WRITE) else []
        return " && ".join(commands)


def flaws(
    parts: Iterable[Part], owners: Collection[int], home: str | None, *, may_share: Callable[[int], bool]
) -> list[Flaw]:
    """What is wrong, in the order in which sshd walks: the file, then upwards, nothing above the home.

    `owners` are root and the user; `home` is the home's path without links. `may_share` tells of a group
    whether it may write: where sshd is lenient and nobody but the user is in it.
    """
    found = []
    for part in parts:
        writers = part.mode & (GROUP_WRITE | OTHERS_WRITE)
        if writers & GROUP_WRITE and may_share(part.gid):
            writers &= ~GROUP_WRITE
        if writers or part.uid not in owners:
            found.append(Flaw(part, part.uid not in owners, writers))
        if part.path == home:
            break
    return found


def is_lenient(os_release: bytes) -> bool:
    """Whether the system's sshd lets a user's own group write, by os-release(5): Debian's and its kin do."""
    for line in os_release.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        if key in ("ID", "ID_LIKE") and "debian" in value.strip("\"'").split():
            return True
    return False
