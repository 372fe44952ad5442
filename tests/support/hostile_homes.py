"""Homes in which something else stands than belongs there, and what of others' it may lead to."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from private_system import PrivateSystem
from probe import Looks, Watch, looks

OUTSIDE = "/var/lib/outside"
"""Files of keys of root and of another user, and those of a careless one, where everybody may write."""
VICTIM, MALLORY = 2901, 2902
"""Whose files are to be left alone, and whose homes are hostile."""
OWNERS = {"root": (0, 0o700), "victim": (VICTIM, 0o755), "open": (VICTIM, 0o777)}

Make = Callable[[Path], object]


def furnish_outside(system: PrivateSystem) -> None:
    """Directories that can stand for a home, a `.ssh` and the parent of a home, each with its files."""
    system.add_account("victim", f"{OUTSIDE}/victim", VICTIM)
    for name, (owner, mode) in OWNERS.items():
        top = system.path(f"{OUTSIDE}/{name}")
        (top / "home" / ".ssh").mkdir(parents=True)
        (top / ".ssh").mkdir()
        for where in (top, top / "home", top / ".ssh", top / "home" / ".ssh"):
            (where / "authorized_keys").write_text("# mine alone\n")
        for path in (top, *top.rglob("*")):
            os.chown(path, owner, owner)
            path.chmod(mode if path.is_dir() else mode & 0o666)


@contextmanager
def untouched(system: PrivateSystem) -> Iterator[None]:
    """Nothing outside is as much as opened meanwhile, and it is as it was, as is what stands in /etc."""
    top, etc = system.path(OUTSIDE), system.path("/etc")
    before, etc_before = looks(top), looks(etc)
    with Watch(top) as watch:
        yield
        seen = watch.seen()
    assert not seen, seen
    assert not _differences(before, looks(top))
    after = looks(etc)
    # Host keys come into /etc/ssh, which is what firstkey is for.
    kept = {path: was for path, was in etc_before.items() if not path.endswith(("/etc", "/etc/ssh"))}
    assert not _differences(kept, {path: now for path, now in after.items() if path in kept})


def _differences(before: dict[str, Looks], after: dict[str, Looks]) -> list[str]:
    different = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [f"{path}: {before.get(path)} became {after.get(path)}" for path in different]


# --- what may stand there ---------------------------------------------------------------------------


def bind(path: Path) -> None:
    """Leave a socket. By a short way: the path of a socket has a limit."""
    here = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _device(kind: int, major: int, minor: int) -> Make:
    return lambda path: os.mknod(path, kind | 0o666, os.makedev(major, minor))


def _link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


ODD: dict[str, Make] = {
    "fifo": os.mkfifo,
    "socket": bind,
    "zero": _device(stat.S_IFCHR, 1, 5),
    "terminal": _device(stat.S_IFCHR, 5, 0),
    "disk": _device(stat.S_IFBLK, 7, 0),
}
NO_DIRECTORY: dict[str, Make] = {
    **ODD,
    **{f"link-to-{whose}": _link(f"{OUTSIDE}/{whose}") for whose in OWNERS},
    "regular-file": lambda path: path.write_text("x"),
}
NO_FILE: dict[str, Make] = {
    **ODD,
    **{f"link-to-{whose}": _link(f"{OUTSIDE}/{whose}/authorized_keys") for whose in OWNERS},
    "directory": lambda path: path.mkdir(0o700),
}
COMPONENTS = {"parent": NO_DIRECTORY, "home": NO_DIRECTORY, "ssh": NO_DIRECTORY, "file": NO_FILE}


class Home(NamedTuple):
    """One of mallory's accounts. `places` has the path of each component, all below `top`."""

    name: str
    top: str
    places: dict[str, str]


def account(system: PrivateSystem, name: str) -> Home:
    """An account of mallory's, with a home two levels below a directory of its own; no more is there yet."""
    top = f"{system.homes}/{name}"
    home = f"{top}/above/home"
    system.add_account(name, home, MALLORY)
    system.path(top).mkdir(mode=0o755)
    os.chown(system.path(top), MALLORY, MALLORY)
    places = {"parent": f"{top}/above", "home": home, "ssh": f"{home}/.ssh"}
    return Home(name, top, {**places, "file": f"{home}/.ssh/authorized_keys"})


def build(system: PrivateSystem, home: Home, *, until: str | None = None) -> None:
    """Make the home as it should be, or what is above one of its components."""
    for component, place in home.places.items():
        if component == until:
            return
        path = system.path(place)
        if component == "file":
            path.write_text("# mallory's\n")
        else:
            path.mkdir()
        path.chmod(0o755 if component in ("parent", "home") else 0o700 if component == "ssh" else 0o600)
        os.chown(path, MALLORY, MALLORY)


def put(system: PrivateSystem, make: Make, place: str) -> None:
    """Make that thing at the place, mallory's own as far as it can be."""
    make(system.path(place))
    os.chown(system.path(place), MALLORY, MALLORY, follow_symlinks=False)


def all_attacks() -> Iterator[tuple[str, str, Make]]:
    """Each component with each kind of thing that does not belong in its place."""
    for component, kinds in COMPONENTS.items():
        yield from ((component, kind, make) for kind, make in kinds.items())


def standing_in_place(system: PrivateSystem) -> list[Home]:
    """An account for each of all attacks."""
    homes = []
    for component, kind, make in all_attacks():
        home = account(system, f"{component}-{kind}")
        build(system, home, until=component)
        put(system, make, home.places[component])
        homes.append(home)
    return homes
