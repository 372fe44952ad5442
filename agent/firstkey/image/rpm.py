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
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

SQLITE = ("/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite")
OTHERS = ("/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db", "/usr/lib/sysimage/rpm/Packages.db")

# rpmtag.h
NAME, VERSION, RELEASE = 1000, 1001, 1002
FILE_DIGESTS, DIRECTORY_INDEXES, BASE_NAMES, DIRECTORY_NAMES = 1035, 1116, 1117, 1118
DIGEST_ALGORITHM = 5011
# rpmcrypto.h (RFC 4880, 9.4); without the tag it is md5
ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
_DAMAGED = "a package's header in the rpm database is damaged: "
_INT32, _STRING, _STRINGS, _I18N = 4, 6, 8, 9


class Header(NamedTuple):
    """One package's header."""

    blob: bytes
    tags: dict[int, tuple[int, int, int]]
    """Kind, place and number of each tag's data."""

    def strings(self, tag: int) -> list[str]:
        """The texts of the tag; none where it is not there."""
        kind, offset, count = self.tags.get(tag, (0, 0, 0))
        if kind not in (_STRING, _STRINGS, _I18N):
            return []
        parts = self.blob[offset:].split(b"\0", count)[:count]
        return [part.decode("utf-8", "surrogateescape") for part in parts]

    def numbers(self, tag: int) -> list[int]:
        """The numbers of the tag."""
        kind, offset, count = self.tags.get(tag, (0, 0, 0))
        if kind != _INT32 or offset + 4 * count > len(self.blob):
            return []
        return list(struct.unpack_from(f">{count}I", self.blob, offset))


def header(blob: bytes) -> Header:
    """The index of a header. Raises FirstkeyError where it is none."""
    try:
        entries, length = struct.unpack_from(">II", blob)
        data = 8 + 16 * entries
        tags = {}
        for number in range(entries):
            tag, kind, offset, count = struct.unpack_from(">IIiI", blob, 8 + 16 * number)
            tags[tag] = (kind, data + offset, count)
    except struct.error as error:
        raise _unknown(f"{_DAMAGED}{error}") from error
    if data + length > len(blob):
        raise _unknown(f"{_DAMAGED}it is cut off")
    if any(offset < data for _, offset, _ in tags.values()):
        raise _unknown(f"{_DAMAGED}a tag's data lies before the data")
    return Header(blob, tags)


def _database(tree: Tree) -> str | None:
    """The path of rpm's database, or None. Raises FirstkeyError where it is one that is not read here."""
    for path in SQLITE:
        if tree.exists(path):
            return path
    for path in OTHERS:
        if tree.exists(path):
            raise _unknown(f"{path} is an rpm database of an older kind, which is not read here")
    return None


def digests(tree: Tree, file: str) -> Iterator[tuple[str, str, str]]:
    """Package, algorithm and digest of each package that brought `file`."""
    directory, _, name = file.rpartition("/")
    for blob in _blobs(tree, name):
        found = header(blob)
        names, directories = found.strings(BASE_NAMES), found.strings(DIRECTORY_NAMES)
        values, places = found.strings(FILE_DIGESTS), found.numbers(DIRECTORY_INDEXES)
        number = (found.numbers(DIGEST_ALGORITHM) or [1])[0]
        for base, place, value in zip(names, places, values):
            if base == name and place < len(directories) and directories[place] == f"{directory}/":
                yield (found.strings(NAME) or ["?"])[0], ALGORITHMS.get(number, "md5"), value


def version(tree: Tree, package: str) -> str | None:
    """VERSION-RELEASE of the installed package, or None."""
    for blob in _blobs(tree, package):
        found = header(blob)
        if found.strings(NAME) == [package]:
            return "-".join(found.strings(VERSION) + found.strings(RELEASE))
    return None


def _blobs(tree: Tree, needle: str) -> Iterator[bytes]:
    """The headers that have the text in them somewhere; none where there is no database."""
    import sqlite3

    path = _database(tree)
    if path is None:
        return
    wanted = needle.encode("utf-8", "surrogateescape")
    try:
        with closing(sqlite3.connect(_address(tree, path), uri=True)) as connection:
            for (blob,) in connection.execute("SELECT blob FROM Packages"):
                if wanted in blob:
                    yield blob
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
    place = quote_from_bytes(os.fsencode(tree.on_host(found.path)))
    return f"file:{place}?mode=ro&immutable=1"


def _unknown(why: str) -> FirstkeyError:
    return FirstkeyError(why, reason=image_reasons.PACKAGES_UNKNOWN)
