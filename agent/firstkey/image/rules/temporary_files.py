"""Beyond the guide: no temporary files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, in_use
from firstkey.image.rule import Rule
from firstkey.image.verdict import WARNING, Doubt, Finding, Verdict
from firstkey.image.watches import Headed

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

SWAP_FILE = "swap-file"
PATTERNS = ("/tmp/*", "/tmp/.*", "/var/tmp/*", "/var/tmp/.*")  # noqa: S108 - what is looked at, not written
LEFT_BY_EDITORS = (
    "~/.*.sw[op]",
    "~/*~",
    "~/.#*",
    "~/#*#",
    "/etc/*~",
    "/etc/.*.sw[op]",
    "/etc/ssh/*~",
    "/etc/ssh/.*.sw[op]",
)
TOPS = ("/tmp/", "/var/tmp/")  # noqa: S108 - as above
EMPTY_DIRECTORIES = (".X11-unix", ".ICE-unix", ".XIM-unix", ".font-unix", ".Test-unix")  # tmpfiles.d/x11.conf
# Of services that run now; on the running system they go when it stops.
IN_USE = ("systemd-private-", "snap-private-tmp", ".X11-unix", ".ICE-unix")


def swap_file(_head: bytes) -> str | None:
    """Vim's swap files start so (vim: memline.c): they have the file that was edited in them."""
    return "a swap file of vim's"


def check(image: Image) -> Verdict:
    """One finding for each name at the top, and for each file of an editor's."""
    doubts: list[Doubt] = []
    paths = dict.fromkeys(_leftovers(image, doubts))
    left = [path for path in paths if not in_use.is_used(path, image.used)]
    remark = "Left out, since running programs use it: " + ", ".join(sorted(paths.keys() - left))
    return Verdict(
        tuple(map(_finding, left)), tuple(doubts), remark="" if len(left) == len(paths) else remark
    )


def _finding(path: str) -> Finding:
    return Finding(path, "Somebody left this behind.", f"rm -rf -- {changes.quoted(path)}")


def _leftovers(image: Image, doubts: list[Doubt]) -> Iterator[str]:
    for pattern in PATTERNS:
        for path in image.glob(pattern, doubts):
            if not image.is_elsewhere(path) and not _is_usual(image, path):
                yield path
    for pattern in LEFT_BY_EDITORS:
        yield from (path for path in image.glob(pattern, doubts) if image.has_content(path))
    yield from (
        sighting.path for sighting in image.sightings(SWAP_FILE) if not sighting.path.startswith(TOPS)
    )


def _is_usual(image: Image, path: str) -> bool:
    name = path.rpartition("/")[2]
    if image.tree.is_running_system and name.startswith(IN_USE):
        return True
    status = image.status(path)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return status is None
    return name in EMPTY_DIRECTORIES and not image.tree.names(path)


def remedy(image: Image) -> list[Change]:
    """Remove them."""
    return [changes.Remove(finding.path, "a temporary file") for finding in check(image).findings]


def _failing(tree: Builder) -> None:
    tree.file("/tmp/build-1234/setup.sh", "export TOKEN=...\n")  # noqa: S108
    tree.file("/var/tmp/.hidden", "x")  # noqa: S108


def _passing(tree: Builder) -> None:
    tree.directory("/tmp/.X11-unix")  # noqa: S108
    tree.directory("/var/tmp")  # noqa: S108


RULE = Rule(
    id="temporary-files",
    title="There are no temporary files",
    guideline="beyond",
    severity=WARNING,
    prose=(
        "Build scripts leave archives, scripts with their secrets, and copies of configuration in /tmp and "
        "/var/tmp, and editors leave copies beside the files (vim's swap files are known wherever they "
        "are). seal removes everything in both directories and the editors' copies; on the running system, "
        "what running programs use stays (a file that one has open or mapped, a directory that one works in, "
        "a socket that one listens on, and the directory at the top that holds such), and is named."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
    watches=(Headed(SWAP_FILE, (b"b0VIM ",), swap_file),),
)
