"""What keeps root itself from writing at a path: a read-only or full file system, a flag, a mount."""

from __future__ import annotations

import os
import shlex

from firstkey import NamedTuple
from firstkey.boot.target import Target
from firstkey.system import command


class Storage(NamedTuple):
    """`unlock` are commands that let root write there, each with && behind it; `trouble` says why."""

    unlock: str = ""
    trouble: str = ""
    is_full: bool = False
    is_mount: bool = False
    """Whether the path itself is mounted: then it can be written, but not replaced."""

    def about(self, detail: str) -> str:
        """The detail, with the trouble behind it."""
        return f"{detail}; {self.trouble}" if self.trouble else detail


def at(target: Target, path: str) -> Storage:
    """What is in the way of writing at a path without links, or beside it. A tree is not looked at."""
    if not target.tree.is_running_system:
        return Storage()
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    mounted = _said("findmnt", "-n", "-r", "-o", "TARGET,VFS-OPTIONS,FS-OPTIONS", "-T", path)
    point, here, there = [*(mounted or [""])[-1].split(" "), "", ""][:3]
    point = point.encode().decode("unicode_escape")
    unlock, trouble = "", []
    if "ro" in (*here.split(","), *there.split(",")):
        how = "remount,rw" if "ro" in there.split(",") else "remount,bind,rw"
        unlock += f"mount -o {how} {shlex.quote(point)} && "
        trouble.append(f"{point} is read-only")
    flagged = [line.partition(" ") for line in _said("lsattr", "-d", path, os.path.dirname(path))]
    for flags, _, place in flagged:
        if set(flags) & {"i", "a"}:
            unlock += f"chattr -i -a {shlex.quote(place)} && "
            trouble.append(f"{place} is immutable (lsattr: {flags.strip('-')})")
    free = (_said("stat", "-f", "-c", "%a %d %c", path) or ["1 1 1"])[0].split(" ")
    is_full = free[0] == "0" or (free[1] == "0" and free[2] != "0")  # some count no inodes
    if is_full:
        trouble.append(f"the file system at {point} is full")
    return Storage(unlock, "; ".join(trouble), is_full, point == path and not os.path.isdir(path))


def _said(program: str, *arguments: str) -> list[str]:
    """What it printed, by lines; none where it is not installed or fails."""
    found = command.find(program)
    if found is None:
        return []
    return command.run([found, *arguments]).stdout.decode("utf-8", "surrogateescape").splitlines()
