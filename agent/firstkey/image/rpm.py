"""rpm's records, read without rpm: nothing in an image is run, and the host may have no rpm at all.

The database that today's distributions keep is SQLite's, and each row holds a package's header: an index of
tags, and their data (rpm's "header format" and rpmtag.h). Older databases (Berkeley DB) are not read here.

What an image says is its database may be made to be slow, or be no table at all: SQLite is given one plain
path, may read one table, and has a budget.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from firstkey import NamedTuple, image_reasons
from firstkey.reasons import FirstkeyError
from firstkey.system import walk

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

SQLITE = ("/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite")
OTHERS = ("/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db", "/usr/lib/sysimage/rpm/Packages.db")

LARGEST = 1024 * 1024 * 1024
"""Bytes of a database at most."""
STEPS = 20_000_000
"""Instructions of SQLite's machine for all rows; a thousand packages take a few thousand."""

# rpmtag.h
NAME, VERSION, RELEASE = 1000, 1001, 1002
FILE_DIGESTS, DIRECTORY_INDEXES, BASE_NAMES, DIRECTORY_NAMES = 1035, 1116, 1117, 1118
DIGEST_ALGORITHM = 5011
# rpmcrypto.h (RFC 4880, 9.4); without the tag it is md5
ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
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
        raise _damaged(str(error)) from error
    if data + length > len(blob):
        raise _damaged("it is cut off")
    if any(offset < data for _, offset, _ in tags.values()):
        raise _damaged("a tag's data lies before the data")
    return Header(blob, tags)


def _damaged(how: str) -> FirstkeyError:
    message = f"a package's header in the rpm database is damaged: {how}"
    return FirstkeyError(message, reason=image_reasons.PACKAGES_UNKNOWN)


def database(tree: Tree) -> str | None:
    """The path of rpm's database, or None. Raises FirstkeyError where it is one that is not read here."""
    for path in SQLITE:
        if tree.exists(path):
            return path
    for path in OTHERS:
        if tree.exists(path):
            message = f"{path} is an rpm database of an older kind, which is not read here"
            raise FirstkeyError(message, reason=image_reasons.PACKAGES_UNKNOWN)
    return None


def digests(tree: Tree, path: str, file: str) -> Iterator[tuple[str, str, str]]:
    """Package, algorithm and digest of each package that brought `file`."""
    directory, _, name = file.rpartition("/")
    for blob in _blobs(tree, path, name):
        found = header(blob)
        names, directories = found.strings(BASE_NAMES), found.strings(DIRECTORY_NAMES)
        values, places = found.strings(FILE_DIGESTS), found.numbers(DIRECTORY_INDEXES)
        number = (found.numbers(DIGEST_ALGORITHM) or [1])[0]
        for base, place, value in zip(names, places, values):
            if base == name and place < len(directories) and directories[place] == f"{directory}/":
                yield (found.strings(NAME) or ["?"])[0], ALGORITHMS.get(number, "md5"), value


def version(tree: Tree, path: str, package: str) -> str | None:
    """VERSION-RELEASE of the installed package, or None."""
    for blob in _blobs(tree, path, package):
        found = header(blob)
        if found.strings(NAME) == [package]:
            return "-".join(found.strings(VERSION) + found.strings(RELEASE))
    return None


def _blobs(tree: Tree, path: str, needle: str) -> Iterator[bytes]:
    """The headers that have the text in them somewhere."""
    import sqlite3

    wanted = needle.encode("utf-8", "surrogateescape")
    address, left = _address(tree, path)
    with _translated(path), closing(sqlite3.connect(address, uri=True)) as connection:
        connection.set_authorizer(_may)
        if any(hidden for *_, hidden in connection.execute("PRAGMA table_xinfo(Packages)")):
            raise _unreadable(path, "it has columns that are computed")
        # Without a word of Python in between: a signal's exception would be lost in a handler's.
        connection.set_progress_handler(lambda: 1, STEPS)
        for (blob,) in connection.execute("SELECT blob FROM Packages"):
            # Many rows may share their pages, so that there is more in them than in the file.
            left -= len(blob)
            if left < 0:
                raise _over_budget(path)
            if wanted in blob:
                yield blob


@contextmanager
def _translated(path: str) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except MemoryError as error:
        raise _over_budget(path) from error
    except TypeError as error:
        raise _unreadable(path, "a row holds no header") from error
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise _over_budget(path) from error
        raise _unreadable(path, str(error)) from error


def _may(action: int, name: str | None, _detail: object, _schema: object, source: str | None) -> int:
    """Whether SQLite may do it: read that table, and nothing by way of a view or trigger (`source`)."""
    import sqlite3

    wanted = {
        sqlite3.SQLITE_SELECT: None,
        sqlite3.SQLITE_READ: "Packages",
        sqlite3.SQLITE_PRAGMA: "table_xinfo",
    }
    is_wanted = action in wanted and wanted[action] == name
    return sqlite3.SQLITE_OK if is_wanted and source is None else sqlite3.SQLITE_DENY


def _address(tree: Tree, path: str) -> tuple[str, int]:
    """SQLite's address of the file at the end of all links, and its size.

    The name comes out of the image, and SQLite reads options behind a `?`: so it is quoted. Immutable: no
    lock or journal is made, and none that lies there is looked at.
    """
    from urllib.parse import quote_from_bytes

    found = walk.follow(tree, path)
    if found is None or not stat.S_ISREG(found.status.st_mode):
        raise _unreadable(path, "there is no file at its end")
    if found.status.st_size > LARGEST:
        raise _over_budget(path)
    place = quote_from_bytes(os.fsencode(tree.on_host(found.path)))
    return f"file:{place}?mode=ro&immutable=1", found.status.st_size


def _unreadable(path: str, why: str) -> FirstkeyError:
    message = f"the rpm database {path} cannot be read: {why}"
    return FirstkeyError(message, reason=image_reasons.PACKAGES_UNKNOWN)


def _over_budget(path: str) -> FirstkeyError:
    message = f"reading the rpm database {path} takes more work than it may"
    return FirstkeyError(message, reason=image_reasons.OVER_BUDGET)
