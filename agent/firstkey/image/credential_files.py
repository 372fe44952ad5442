"""Files that hold credentials, known by where they are and, where that is not enough, by what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey.image import secrets, whose
from firstkey.image.verdict import Doubt, Verdict
from firstkey.image.watches import Named, Sighting
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

LIMIT = 4 * 1024 * 1024

_KEY = rb"""["']?\s*[:=]\s*["']?(?!\$[{(]|%\(|<|\{\{)[^\s"'#]{3,}"""
"""A value, and no reference to something that is yet to be filled in."""


def holding(*words: str) -> re.Pattern[bytes]:
    """A pattern for any of the words with a value behind it: INI, YAML, JSON or shell, comments aside."""
    either = b"|".join(word.encode() for word in words)
    return re.compile(rb"^[^#;\n]*(?:" + either + rb")" + _KEY, re.IGNORECASE | re.MULTILINE)


URL = re.compile(rb"://[^/\s:@]+:[^/\s@]+@|https?://[A-Za-z0-9_-]{20,}:?@")
"""A user with a password in an address, or a token alone."""
VARIABLE = (
    rb"\w*(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|(?:APP|API|SECRET|PRIVATE|ACCESS|ENCRYPTION)_?KEY(?:_BASE)?)"
    rb"[ \t]*=[ \t]*[\"']?[^\s\"'#$%<{]{3}"
)
"""A secret in a program's environment, and no reference to something that is yet to be filled in."""
ANYTHING = re.compile(rb"\S")


class Credential(NamedTuple):
    """One kind of file. `tail` is the end of its path; its last part has no wildcards."""

    tail: str
    what: str
    secret: re.Pattern[bytes] | None = None
    """What makes it one; None: having anything in it at all."""

    @property
    def name(self) -> str:
        """The last part, by which the scan watches for it."""
        return self.tail.rpartition("/")[2]


def named(kind: str, table: Iterable[Credential]) -> Named:
    """The watch for a table's files."""
    return Named(kind, frozenset(entry.name for entry in table))


Places = Iterable[tuple[str, str]]
"""Patterns of `Image.glob`, and what is there."""
Contents = Iterable[tuple[str, str, "re.Pattern[bytes]"]]
"""The same, with what makes such a file one."""


def checker(
    kind: str, table: Iterable[Credential], places: Places, contents: Contents = ()
) -> Callable[[Image], Verdict]:
    """A rule's check over a table (by the scan), places, and places that depend on their content."""

    def check(image: Image) -> Verdict:
        found, doubts = _found(image, kind, table, (*_always(places), *contents))
        verdict = secrets.verdict(secrets.sorted_out(image, found))
        return verdict._replace(doubts=(*verdict.doubts, *doubts))

    return check


def remover(
    kind: str, table: Iterable[Credential], places: Places, contents: Contents = ()
) -> Callable[[Image], list[Change]]:
    """The remedy that goes with it."""

    def remedy(image: Image) -> list[Change]:
        found, _ = _found(image, kind, table, (*_always(places), *contents))
        return secrets.removals(
            image, [seen.path for seen in secrets.sorted_out(image, found).secrets], "credentials"
        )

    return remedy


def _always(places: Places) -> list[tuple[str, str, re.Pattern[bytes]]]:
    return [(pattern, what, ANYTHING) for pattern, what in places]


def _found(
    image: Image, kind: str, table: Iterable[Credential], contents: Contents
) -> tuple[list[Sighting], list[Doubt]]:
    doubts: list[Doubt] = []
    found: dict[str, Sighting] = {}
    for path, what, secret in _candidates(image, kind, table, contents, doubts):
        file = image.file(path, doubts)
        if file and file.status.st_size and _holds(image, file.path, secret, doubts):
            if whose.is_meant(image, file, path):
                found.setdefault(file.path, Sighting(file.path, what))
            else:
                doubts.append(whose.not_taken(path, file.path))
    return list(found.values()), list(dict.fromkeys(doubts))


def _candidates(
    image: Image, kind: str, table: Iterable[Credential], contents: Contents, doubts: list[Doubt]
) -> Iterator[tuple[str, str, re.Pattern[bytes]]]:
    for seen in image.sightings(kind):
        for entry in table:
            if seen.path.endswith(f"/{entry.name}") and fnmatchcase(seen.path, f"*/{entry.tail}"):
                yield seen.path, entry.what, entry.secret or ANYTHING
    for pattern, what, secret in contents:
        for path in image.glob(pattern, doubts):
            yield path, what, secret


def _holds(image: Image, path: str, secret: re.Pattern[bytes], doubts: list[Doubt]) -> bool:
    try:
        return bool(secret.search(image.read(path, limit=LIMIT) or b""))
    except FirstkeyError as error:
        doubts.append(Doubt(path, error.refusal))
        return False
