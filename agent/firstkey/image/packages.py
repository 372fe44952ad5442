"""What the package managers say a file is: read from their records inside the tree, nothing is run.

A file that a package brought and that is as the package brought it holds no secret, only test keys and
examples that are public already. The digest must agree: a path that belongs to a package proves nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import chain

from firstkey.image import rpm
from firstkey.system.tree import Tree

Digest = tuple[str, str, str]
"""The package that brought a file, and the algorithm and digest of what it brought."""

DPKG = "/var/lib/dpkg/info"
DPKG_STATUS = "/var/lib/dpkg/status"
APK = "/lib/apk/db/installed"
LIMIT = 256 * 1024 * 1024


class Packages:
    """The records of the tree's package manager, whichever it is."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._wheels: dict[str, dict[str, Digest]] = {}

    def paths(self) -> frozenset[str] | None:
        """Every path that a package brought, or None where that takes long to read (rpm, apk)."""
        if not self._tree.exists(DPKG):
            return None
        lists = b"\n".join(content for _, content in self._dpkg_files(".list"))
        return frozenset(lists.decode("utf-8", "surrogateescape").split("\n"))

    def owner(self, path: str, content: bytes) -> str | None:
        """The package that brought exactly this content to exactly this path, or None."""
        import hashlib

        # Where /lib is a link to /usr/lib, a package may still call it /lib.
        spellings = {path, path.removeprefix("/usr")}
        records = (*map(self._dpkg, spellings), self._apk(path), self._of_wheels(path))
        for package, algorithm, value in chain(*records, rpm.digests(self._tree, path)):
            if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == value:
                return package
        return None

    def version(self, package: str) -> str | None:
        """The version of an installed package, or None."""
        for each in self._dpkg_status:
            if field(each, "Package") == package and field(each, "Status").endswith(" installed"):
                return field(each, "Version")
        return rpm.version(self._tree, package)

    def _dpkg(self, path: str) -> Iterator[Digest]:
        """What the packages' md5sums say of the file, and the status of configuration (deb-conffiles(5))."""
        needle = os.fsencode(f"  {path[1:]}\n")
        for name, content in self._md5sums:
            before, found, _ = content.partition(needle)
            if found:
                package = name.removesuffix(".md5sums").partition(":")[0]
                yield package, "md5", before[-32:].decode("ascii", "replace")
        for paragraph in self._dpkg_status:
            above, line, behind = paragraph.partition(f"\n {path} ")
            if line:
                yield field(above, "Package"), "md5", behind[:32]

    @cached_property
    def _md5sums(self) -> list[tuple[str, bytes]]:
        return list(self._dpkg_files(".md5sums"))

    def _dpkg_files(self, end: str) -> Iterator[tuple[str, bytes]]:
        """The files of dpkg's own directory that have such names."""
        for name in self._tree.names(DPKG):
            if name.endswith(end):
                yield name, self._tree.read(f"{DPKG}/{name}", limit=LIMIT) or b""

    def _of_wheels(self, path: str) -> Iterator[Digest]:
        """What the lists of Python's packages say of a file in site-packages or its like (PyPA: RECORD)."""
        for end in re.finditer("-packages(?=/)", path):  # a list elsewhere could vouch for all of a home
            directory = path[: end.end()]
            if directory not in self._wheels:
                self._wheels[directory] = dict(self._recorded(directory))
            yield from filter(None, (self._wheels[directory].get(path),))

    def _recorded(self, directory: str) -> Iterator[tuple[str, Digest]]:
        """The files of each package in that directory. One that did not come from an index is the
        builder's own work, and proves nothing of what is in it (PyPA: direct_url.json).
        """
        import base64

        for name in self._tree.names(directory):
            place = f"{directory}/{name}"
            if not name.endswith(".dist-info") or self._tree.exists(f"{place}/direct_url.json"):
                continue
            content = self._tree.read(f"{place}/RECORD", limit=LIMIT) or b""
            for line in content.decode("utf-8", "surrogateescape").splitlines():
                file, _, digest = line.rpartition(",")[0].rpartition(",sha256=")
                if re.fullmatch(r"[A-Za-z0-9_-]{43}", digest):
                    value = base64.urlsafe_b64decode(digest + "=").hex()
                    yield f"{directory}/{file}", (name.partition("-")[0], "sha256", value)

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
            is_digest = letter == "Z" and re.fullmatch(r"Q1[A-Za-z0-9+/]{27}=", value)
            if is_digest and f"/{directory}/{name}" == path:
                yield package, "sha1", base64.b64decode(value[2:]).hex()


def field(paragraph: str, name: str) -> str:
    """What the first line of a field says (deb822(5)); nothing where there is none."""
    found = re.search(rf"^{name}:(.*)", paragraph, re.MULTILINE)
    return found[1].strip() if found else ""
