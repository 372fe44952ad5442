"""Whose the files are that something in the tree names: a link, or a line that somebody wrote.

What a user writes names that user's own files in that user's home, and nothing else: whoever can have seal
remove a file by its name could otherwise have any file removed. What root writes may name files elsewhere,
but none that the system or a package put there: a variable in such a name fits anything.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import scan, secrets
from firstkey.image.verdict import Doubt
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system import walk
from firstkey.system.mounts import is_at_or_below

if TYPE_CHECKING:
    from firstkey.image.subject import Home, Image
    from firstkey.system.walk import Found

SYSTEM = (*scan.PACKAGED, "/dev", "/etc", "/proc", "/run", "/sys")


def is_roots(uid: int) -> bool:
    """Whether it is root's, or the caller's, who could as well do it by himself."""
    return uid in (0, os.getuid())


def is_systems(path: str) -> bool:
    """Whether it lies where the system and its packages have their files."""
    return any(is_at_or_below(path, place) for place in SYSTEM)


def is_nobodys(image: Image, found: Found) -> bool:
    """Whether it is a plain file, with this name alone, that neither the system nor a package put there."""
    if not stat.S_ISREG(found.status.st_mode) or found.status.st_nlink > 1:
        return False
    if is_systems(found.path):
        return False
    try:
        return secrets.package_of(image, found.path) is None
    except FirstkeyError:  # the package manager's records cannot be read here
        return False


def is_users(image: Image, found: Found, home: Home) -> bool:
    """Whether it is a plain file of the home's owner, in the home, with this name alone."""
    place = end_of(image, home.path)
    return (
        place is not None
        and is_nobodys(image, found)
        and is_at_or_below(found.path, place.path)
        and found.status.st_uid == place.status.st_uid
    )


def owns_home(image: Image, uid: int, home: Home) -> bool:
    """Whether the home is that user's."""
    place = end_of(image, home.path)
    return place is not None and place.status.st_uid == uid


def is_aside(image: Image, path: str, real: str) -> bool:
    """Whether links lead from a place of something else to where the system or a user has files.

    A link at /tmp or /var/log makes nothing a temporary file or a log that lies in somebody's home.
    """
    if is_systems(real):
        return not is_systems(path)
    return any(
        is_at_or_below(real, place) and not is_at_or_below(path, home) and not is_at_or_below(path, place)
        for home, place in image.home_places
    )


def is_meant(image: Image, found: Found, path: str) -> bool:
    """Whether what the links of a path lead to may be taken for what has that path."""
    if is_aside(image, path, found.path):
        return False
    writers = {status.st_uid for status in map(image.status, found.links) if status}
    users = {uid for uid in writers if not is_roots(uid)}
    if not users:
        return not found.links or is_nobodys(image, found)
    return any(
        is_users(image, found, home)
        for home in image.homes
        if all(owns_home(image, uid, home) for uid in users)
    )


def not_taken(path: str, target: str) -> Doubt:
    """What somebody's link leads to, or somebody's line names, may be anything."""
    detail = f"{path} leads to {target}, which was not taken for what belongs there; look at it by hand"
    return Doubt(path, Refusal(image_reasons.NOT_LOOKED_AT, detail))


def end_of(image: Image, path: str) -> Found | None:
    """What the path leads to, None where that is nothing, or may not be followed."""
    try:
        return walk.follow(image.tree, path)
    except FirstkeyError:
        return None
