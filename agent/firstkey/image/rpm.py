"""rpm's records, read without rpm: nothing in an image is run, and the host may have no rpm at all.

The database that today's distributions keep is SQLite's, and each row holds a package's header: an index of
tags, and their data (rpm's "header format" and rpmtag.h). Older databases (Berkeley DB) are not read here.

What an image says is its database may be made to be slow, or to break SQLite: it is given one plain path, and
works in the box, which bounds what it can do and how long.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from firstkey import image_reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import walk
from firstkey.system.tree import Tree

SQLITE = ("/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite")
OTHERS = ("/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db", "/usr/lib/sysimage/rpm/Packages.db")

# rpmtag.h: texts, then numbers
NAME, VERSION, RELEASE, FILE_DIGESTS, BASE_NAMES, DIRECTORY_NAMES = 1000, 1001, 1002, 1035, 1117, 1118
DIRECTORY_INDEXES, DIGEST_ALGORITHM = 1116, 5011
_TEXTS = (NAME, VERSION, RELEASE, FILE_DIGESTS, BASE_NAMES, DIRECTORY_NAMES)
_NUMBERS = (DIRECTORY_INDEXES, DIGEST_ALGORITHM)
# rpmcrypto.h (RFC 4880, 9.4); without the tag it is md5
ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}


def header(blob: bytes) -> dict[int, list[Any]]:
    """The tags of a package's header that count here, empty where it has none. Raises FirstkeyError."""
    found: dict[int, list[Any]] = {}
    try:
        entries, length = struct.unpack_from(">II", blob)
        data = 8 + 16 * entries
        index = list(struct.iter_unpack(">IIiI", blob[8:data]))
        if data + length > len(blob) or any(offset < 0 for _, _, offset, _ in index):
            raise struct.error("what it names is not in it")  # noqa: TRY301 - as what struct finds
        for tag, _, offset, count in index:
            if tag in _TEXTS and tag not in found:
                parts = blob[data + offset :].split(b"\0", count)[:count]
                found[tag] = [part.decode("utf-8", "surrogateescape") for part in parts]
            elif tag in _NUMBERS and tag not in found:
                found[tag] = list(struct.unpack_from(f">{count}I", blob, data + offset))
    except struct.error as error:
        raise _unknown(f"a package's header in the rpm database is damaged: {error}") from error
    return {**{tag: [] for tag in (*_TEXTS, *_NUMBERS)}, **found}


def digests(tree: Tree, file: str) -> Iterator[tuple[str, str, str]]:
    """Package, algorithm and digest of each package that brought `file`."""
    directory, _, name = file.rpartition("/")
    for found in _headers(tree, name):
        (number, *_), directories = found[DIGEST_ALGORITHM] or [1], found[DIRECTORY_NAMES]
        files = zip(found[BASE_NAMES], found[DIRECTORY_INDEXES], found[FILE_DIGESTS])
        for base, place, value in files:
            if base == name and directories[place : place + 1] == [f"{directory}/"]:
                yield "".join(found[NAME]) or "?", ALGORITHMS.get(number, "md5"), value


def version(tree: Tree, package: str) -> str | None:
    """VERSION-RELEASE of the installed package, or None."""
    for found in _headers(tree, package):
        if found[NAME] == [package]:
            return "-".join(found[VERSION] + found[RELEASE])
    return None


def _headers(tree: Tree, needle: str) -> Iterator[dict[int, list[Any]]]:
    """The headers that have the text in them somewhere; none where there is no database."""
    import sqlite3

    path = next(filter(tree.exists, (*SQLITE, *OTHERS)), None)
    if path is None:
        return
    if path in OTHERS:
        raise _unknown(f"{path} is an rpm database of an older kind, which is not read here")
    wanted = needle.encode("utf-8", "surrogateescape")
    try:
        with closing(sqlite3.connect(_address(tree, path), uri=True)) as connection:
            # A view or a virtual table has no page of its own, and may have no end.
            pages = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Packages'")
            if not any(page for (page,) in pages):
                raise sqlite3.DatabaseError("it has no table of packages")
            for (blob,) in connection.execute("SELECT blob FROM Packages"):
                if wanted in blob:
                    yield header(blob)
    except MemoryError as error:
        message = f"reading the rpm database {path} takes more memory than it may"
        raise FirstkeyError(message, reason=image_reasons.OVER_BUDGET) from error
    except (TypeError, sqlite3.Error) as error:
        why = str(error) if isinstance(error, sqlite3.Error) else "a row holds no header"
        raise _unknown(f"the rpm database {path} cannot be read: {why}") from error


def _address(tree: Tree, path: str) -> str:
    """SQLite's address of the file at the end of all links.

    The name comes out of the image, and SQLite reads options behind a `?`: so it is quoted. Immutable: no
    lock or journal is made, and none that lies there is looked at.
    """
    from urllib.parse import quote_from_bytes

    found = walk.follow(tree, path)
    if found is None or not stat.S_ISREG(found.status.st_mode):
        raise _unknown(f"the rpm database {path} cannot be read: there is no file at its end")
    place = quote_from_bytes(os.fsencode(tree.here.rstrip("/") + found.path))
    return f"file:{place}?mode=ro&immutable=1"


def _unknown(why: str) -> FirstkeyError:
    return FirstkeyError(why, reason=image_reasons.PACKAGES_UNKNOWN)
