"""Whose files a link or a line of text in the tree names.

What a user writes names that user's own files in that user's home, and nothing else: a user who can have seal
remove a file by its name could otherwise have any file removed. What root writes may name files elsewhere,
but none that the system or a package put there: a variable in such a name fits anything.
"""

from __future__ import annotations

import os
import stat

from firstkey.image import scan, secrets
from firstkey.image.subject import Home, Image
from firstkey.image.verdict import Unknown, not_looked_at
from firstkey.reasons import FirstkeyError
from firstkey.system.mounts import is_at_or_below
from firstkey.system.walk import Found

SYSTEM = (*scan.PACKAGED, "/dev", "/etc", "/proc", "/run", "/sys")


def is_roots(uid: int) -> bool:
    """Whether it is root's, or the caller's, who could as well remove files without seal."""
    return uid in (0, os.getuid())


def is_systems(path: str) -> bool:
    """Whether it lies where the system and its packages have their files."""
    return any(is_at_or_below(path, place) for place in SYSTEM)


def is_unclaimed(image: Image, found: Found) -> bool:
    """Whether it is a plain file, with this name alone, that neither the system nor a package put there."""
    if not stat.S_ISREG(found.status.st_mode) or found.status.st_nlink > 1 or is_systems(found.path):
        return False
    try:
        return secrets.package_of(image, found.path) is None
    except FirstkeyError:  # the package manager's records cannot be read here
        return False


def is_users(image: Image, found: Found, home: Home) -> bool:
    """Whether it is a plain file of the home's owner, in the home, with this name alone."""
    is_theirs = home.uid == found.status.st_uid and is_at_or_below(found.path, home.place)
    return is_theirs and is_unclaimed(image, found)


def leads_elsewhere(image: Image, path: str, real: str) -> bool:
    """Whether links lead from a place of something else to where the system or a user has files.

    A link at /tmp or /var/log makes nothing a temporary file or a log that lies in a user's home.
    """
    if is_systems(real):
        return not is_systems(path)
    return any(
        not any(is_at_or_below(path, each) for each in (home.path, home.place))
        for home in image.holding(real)
        if home.user not in image.no_logins
    )


def is_meant(image: Image, found: Found, path: str) -> bool:
    """Whether what the links of a path lead to may be taken for what has that path."""
    if leads_elsewhere(image, path, found.path):
        return False
    writers = {status.st_uid for status in map(image.status, found.links) if status}
    users = {uid for uid in writers if not is_roots(uid)}
    if not users:
        return not found.links or is_unclaimed(image, found)
    holders = image.holding(found.path)
    return users == {found.status.st_uid} and any(is_users(image, found, home) for home in holders)


def not_taken(path: str, target: str) -> Unknown:
    """What a link leads to, or a line names, may be anything."""
    why = f"{path} leads to {target}, which was not taken for what belongs there; look at it by hand"
    return not_looked_at(path, why)
