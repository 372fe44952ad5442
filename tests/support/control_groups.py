"""A control group of a machine's own: what its systemd attaches to units (a filter of traffic) ends with it.

systemd-nspawn puts its machine below the group that it is started in. Two machines one after the other in the
same group would have the same groups for their units, and the second one what the first one left attached.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from netlab import PREFIX, wait_until

HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
"""Where systemd's own may be: alone, or beside those of old (systemd.io/CGROUP_DELEGATION)."""
ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'

_numbers = itertools.count()


class ControlGroup:
    """There until the `with` block ends, in each hierarchy that there is; nothing may run in it by then."""

    def __init__(self) -> None:
        self._directories: list[Path] = []

    def __enter__(self) -> ControlGroup:  # noqa: PYI034 - Self came with Python 3.11
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        for hierarchy in _hierarchies():
            _sweep(hierarchy)
            (hierarchy / name).mkdir()
            self._directories.append(hierarchy / name)
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever was killed a moment ago may still be on the way out.
        wait_until(lambda: all(map(_removed, self._directories)), what="the end of the control group")

    def entered(self, *argv: str) -> list[str]:
        """The command line, begun in the group."""
        return ["sh", "-ec", ENTER, "sh", *map(str, self._directories), "--", *argv]


def _hierarchies() -> Iterator[Path]:
    """A cgroup file system has this file; the directory that old hierarchies are mounted in has not."""
    yield from (Path(place) for place in HIERARCHIES if Path(place, "cgroup.procs").exists())


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
    return not group.exists()


def _sweep(hierarchy: Path) -> None:
    """Remove what test runs left that were killed."""
    for group in hierarchy.glob(f"{PREFIX}*-*"):
        owner = group.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
            _removed(group)
