"""What work on the builder leaves behind, logs and temporary files; and whether all could be looked at."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, in_use, places
from firstkey.image.places import Place
from firstkey.image.rule import LOGS, Rule
from firstkey.image.verdict import ERROR, Doubt, Finding, Verdict
from firstkey.image.watches import Headed

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

# --- logs -----------------------------------------------------------------------------------------

DIRECTORY = "/var/log"
JOURNAL = f"{DIRECTORY}/journal"
PLACE = Place(DIRECTORY, "a log")
CLAIMED = re.compile(
    DIRECTORY + r"/(?:wtmp|btmp|lastlog|faillog|tallylog|cloud-init"
    r"|sudo-io/|account/|faillock/|anaconda/|installer/|dump/|session-recording/)"
)
"""What other rules claim."""
ROTATED = re.compile(r".*(?:\.\d+|\.old|-\d{8})?\.(?:gz|xz|bz2|zst|old|\d+)|.*-\d{8}|.*\.journal~?")


def check_logs(image: Image) -> Verdict:
    """One finding for each file with something in it.

    Old ones go; those that are written to are emptied, and keep the owner that lets a service write.
    """
    seen = places.survey(image, (PLACE,))
    logs = (match.path for match in seen.matches if not CLAIMED.match(match.name))
    return Verdict(tuple(_log(image, path) for path in logs), seen.doubts)


def _log(image: Image, path: str) -> Finding:
    is_old = ROTATED.fullmatch(path)
    done: Change = changes.Empty(path, "a log")
    if is_old:
        done = changes.Remove(path, "a log", links=image.links_to(path))
    reason = "This is a log of the work on the builder."
    return Finding(path, reason, changes=(done,))


# --- temporary files ------------------------------------------------------------------------------

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


def check_temporary(image: Image) -> Verdict:
    """One finding for each name at the top, and for each file of an editor's."""
    doubts: list[Doubt] = []
    paths = dict.fromkeys(_left(image, doubts))
    left = [path for path in paths if not in_use.is_used(path, image.used)]
    remark = "Left out, since running programs use it: " + ", ".join(sorted(paths.keys() - left))
    return Verdict(
        tuple(map(_finding, left)), tuple(doubts), remark="" if len(left) == len(paths) else remark
    )


def _finding(path: str) -> Finding:
    removal = changes.Remove(path, "a temporary file")
    return Finding(path, "A user or program left this file.", changes=(removal,))


def _left(image: Image, doubts: list[Doubt]) -> Iterator[str]:
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


# --- what could not be looked at ------------------------------------------------------------------


def check_seen(image: Image) -> Verdict:
    """What the scan could not see, and the homes that could not be opened."""
    left_out = ", ".join(f"{mount.path} ({mount.kind})" for mount in image.scan.left_out)
    remark = f"Not looked into, since it is mounted from elsewhere: {left_out}." if left_out else ""
    homes = len(image.homes) and tuple(image.home_doubts)
    return Verdict(doubts=(*image.scan.doubts, *(homes or ())), remark=remark)


RULES = (
    Rule(
        id="logs",
        title="There are no logs",
        prose=(
            "Logs and the journal show the builder of the image, the place and the steps, and now and "
            "then a password that was typed in the wrong place. seal removes journals and old logs, "
            "and empties those that services write to, near its end: on the running system, a service "
            "may write again until it is stopped."
        ),
        check=check_logs,
        failing={
            "/var/log/auth.log": "sshd: Accepted publickey for root from 203.0.113.7\n",
            "/var/log/syslog.2.gz": b"\x1f\x8b\x08",
            f"{JOURNAL}/0123456789abcdef0123456789abcdef/system.journal": b"LPKSHHRH",
        },
        passing={"/var/log/auth.log": ""},
        stage=LOGS,
    ),
    Rule(
        id="temporary-files",
        title="There are no temporary files",
        prose=(
            "Build scripts leave archives, scripts with their secrets, and copies of configuration in "
            "/tmp and /var/tmp, and editors leave copies beside the files (vim's swap files are found "
            "in every place). seal removes everything in both directories and the editors' copies. On "
            "the running system, files in use stay and are named: a file that a program has open or "
            "mapped, a directory that one works in, a socket that one listens on, and the directory "
            "at the top that holds such a file."
        ),
        check=check_temporary,
        failing={f"{TOPS[0]}build-1234/setup.sh": "export TOKEN=...\n", f"{TOPS[1]}.hidden": "x"},
        passing={f"{TOPS[0]}.X11-unix": None, TOPS[1]: None},
        # Vim's swap files start so (vim: memline.c): they have the file that was edited in them.
        watches=(Headed(SWAP_FILE, (b"b0VIM ",), lambda _: "a swap file of vim's"),),
    ),
    Rule(
        id="everything-seen",
        title="Everything could be read",
        severity=ERROR,
        prose=(
            "An unread file is no proof of a clean image. A file or directory without read "
            "permission, a home behind a link that goes round, a file so large that only its ends "
            "were read, directories that lie too deep, a packed file that is broken, encrypted or "
            "larger than the limit: each makes the verdict unknown, with its reason. Network file "
            "systems and the kernel's own file systems in the tree are no part of an image, and "
            "neither are the host's own files: a file system that is mounted outside of the tree as "
            "well, or a directory that is bound into it. They are left out, and named; an image's own "
            "partitions and subvolumes belong to it where they are mounted nowhere else."
        ),
        check=check_seen,
        by_hand=True,
        failing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": "->ann"},
        passing={"/etc/passwd": "ann:x:1000:1000::/srv/ann:/bin/sh\n", "/srv/ann": None},
    ),
)
