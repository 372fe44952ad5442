"""What the package managers say a file is: read from their records inside the tree, nothing is run.

A file that a package brought and that is as the package brought it holds nobody's secret, only test keys and
examples that are public already. The digest must agree: a path that belongs to a package proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.image import rpm
from firstkey.system import walk
from firstkey.system.files import translated

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

DPKG = "/var/lib/dpkg/info"
DPKG_STATUS = "/var/lib/dpkg/status"
APK = "/lib/apk/db/installed"
LIMIT = 256 * 1024 * 1024


class Digest(NamedTuple):
    """Which package brought a file, and the digest of what it brought."""

    package: str
    algorithm: str
    value: str


class Packages:
    """The records of the tree's package manager, whichever it is."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._wheels: dict[str, dict[str, Digest]] = {}

    def paths(self) -> frozenset[str] | None:
        """Every path that a package brought, or None where the records do not tell quickly (rpm, apk)."""
        if not self._tree.exists(DPKG):
            return None
        lists = b"\n".join(content for _, content in self._dpkg_files(".list"))
        return frozenset(lists.decode("utf-8", "surrogateescape").split("\n"))

    def owner(self, path: str, content: bytes) -> str | None:
        """The package that brought exactly this content to exactly this path, or None."""
        import hashlib

        # Where /lib is a link to /usr/lib, a package may still call it /lib.
        spellings = {path, path.removeprefix("/usr")}
        for digest in chain(
            *map(self._dpkg, spellings),
            self._apk(path),
            self._of_wheels(path),
            (Digest(*digest) for digest in rpm.digests(self._tree, path)),
        ):
            if hashlib.new(digest.algorithm, content, usedforsecurity=False).hexdigest() == digest.value:
                return digest.package
        return None

    def version(self, package: str) -> str | None:
        """The version of an installed package, or None."""
        for paragraph in self._dpkg_status:
            if f"Package: {package}\n" in paragraph:
                fields = deb822(paragraph)
                if fields.get("Package") == package and fields.get("Status", "").endswith(" installed"):
                    return fields.get("Version")
        return rpm.version(self._tree, package)

    def _dpkg(self, path: str) -> Iterator[Digest]:
        """What the packages' md5sums say of the file, and the status of configuration (deb-conffiles(5))."""
        needle = os.fsencode(f"  {path[1:]}\n")
        for name, content in self._md5sums:
            before, found, _ = content.partition(needle)
            if found:
                package = name.removesuffix(".md5sums").partition(":")[0]
                yield Digest(package, "md5", before[-32:].decode("ascii", "replace"))
        for paragraph in self._dpkg_status:
            above, line, behind = paragraph.partition(f"\n {path} ")
            if line:
                yield Digest(deb822(above).get("Package", ""), "md5", behind[:32])

    @cached_property
    def _md5sums(self) -> list[tuple[str, bytes]]:
        return list(self._dpkg_files(".md5sums"))

    def _dpkg_files(self, end: str) -> Iterator[tuple[str, bytes]]:
        """The files of dpkg's own directory that have such names."""
        with self._tree.open(DPKG) or nullcontext() as directory:
            for name in directory.names() if directory else ():
                if directory and name.endswith(end):
                    with translated(f"read {DPKG}/{name}"), walk.stream(name, directory.fd) as file:
                        yield name, file.read(LIMIT)

    def _of_wheels(self, path: str) -> Iterator[Digest]:
        """What the lists of Python's packages say of a file in site-packages or its like (PyPA: RECORD)."""
        directory = os.path.dirname(path)
        while directory != "/":
            if directory.endswith("-packages"):  # a list elsewhere could vouch for all that is in a home
                if directory not in self._wheels:
                    self._wheels[directory] = dict(self._recorded(directory))
                yield from filter(None, (self._wheels[directory].get(path),))
            directory = os.path.dirname(directory)

    def _recorded(self, directory: str) -> Iterator[tuple[str, Digest]]:
        """The files of each package in that directory. One that did not come from an index is somebody's own
        work, and proves nothing of what is in it (PyPA: direct_url.json).
        """
        import base64

        for name in self._tree.names(directory):
            place = f"{directory}/{name}"
            if not name.endswith(".dist-info") or self._tree.exists(f"{place}/direct_url.json"):
                continue
            content = self._tree.read(f"{place}/RECORD", limit=LIMIT) or b""
            for line in content.decode("utf-8", "surrogateescape").splitlines():
                file, _, digest = line.rpartition(",")[0].rpartition(",sha256=")
                if len(digest) == 43 and digest.isascii():
                    value = base64.urlsafe_b64decode(digest + "=").hex()
                    yield f"{directory}/{file}", Digest(name.partition("-")[0], "sha256", value)

    @cached_property
    def _dpkg_status(self) -> list[str]:
        """A paragraph for each package."""
        content = self._tree.read(DPKG_STATUS, limit=LIMIT) or b""
        return content.decode("utf-8", "surrogateescape").split("\n\n")

    def _apk(self, path: str) -> Iterator[Digest]:
        """Alpine's records: F: is a directory, R: a name in it, Z:Q1 its sha1 in base64."""
        import base64

        package = directory = name = ""
        for line in (self._tree.read(APK, limit=LIMIT) or b"").decode("utf-8", "replace").split("\n"):
            letter, _, value = line.partition(":")
            package = value if letter == "P" else package
            directory = value if letter == "F" else directory
            name = value if letter == "R" else name
            if letter == "Z" and value.startswith("Q1") and f"/{directory}/{name}" == path:
                yield Digest(package, "sha1", base64.b64decode(value[2:]).hex())


def deb822(paragraph: str) -> dict[str, str]:
    """The fields of a paragraph (deb822(5)); lines of a long one lose their first blank."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in paragraph.split("\n"):
        if line.startswith((" ", "\t")):
            fields.setdefault(name, [""]).append(line[1:])
        else:
            name, _, value = line.partition(":")
            fields[name] = [value.strip()]
    return {name: "\n".join(lines) for name, lines in fields.items()}
