"""What should not be in an image, by where it is: the places, what is left there, and taking it out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from firstkey import NamedTuple
from firstkey.image import changes, secrets, whose
from firstkey.image.scan import Named, Sighting
from firstkey.image.subject import Image
from firstkey.image.verdict import Finding, Unknown, Verdict
from firstkey.reasons import FirstkeyError
from firstkey.system.mounts import is_at_or_below
from firstkey.system.walk import Found

REMOVE, EMPTY, WIPE = "remove", "empty", "wipe"
"""What seal does: EMPTY keeps the file for the service that writes it, WIPE overwrites it before removal."""
ANYWHERE = "*/"
LIMIT = 16 * 1024 * 1024
_BRACES = re.compile(r"\{([^{}]*)\}")


class Place(NamedTuple):
    """Where something may be left, as a pattern of `Image.glob` (several, with braces), and what it is.

    A pattern of `*/` and the end of a path fits wherever the scan sees a file of that name. What is to be
    wiped is a secret in a file, and none if a package brought it. `kept`: seal leaves it to a person, perhaps
    with sentences of its own (`says`, `advice`) and a severity. `whole`: a directory there is one leftover;
    otherwise each file in it is one. `empty_counts`: a file with nothing in it counts as well.
    `named`: a pattern for the whole name; `seen`: the kind that the scan must have seen it to be; `holds`:
    what must be in it. With any of the three only a file counts: any user may give such names.
    """

    pattern: str
    what: str
    how: str = REMOVE
    holds: re.Pattern[bytes] | None = None
    kept: bool = False
    says: str = ""
    advice: str = ""
    severity: str | None = None
    whole: bool = False
    empty_counts: bool = False
    named: re.Pattern[str] | None = None
    seen: str | None = None

    @property
    def watch(self) -> Named | None:
        """What the scan watches for, where the place may be anywhere."""
        name = self.pattern.rpartition("/")[2]
        return Named(ANYWHERE + name, frozenset((name,))) if self.pattern.startswith(ANYWHERE) else None


def unbraced(*patterns: str) -> tuple[str, ...]:
    """The patterns without braces, which mean what they do in a shell: `/{a,b}` is /a and /b."""
    while any(map(_BRACES.search, patterns)):
        parts = [(*_BRACES.split(pattern, maxsplit=1), "", "")[:3] for pattern in patterns]
        patterns = tuple(start + each + end for start, choices, end in parts for each in choices.split(","))
    return tuple(dict.fromkeys(patterns))


def watches(places: Iterable[Place]) -> tuple[Named, ...]:
    """What the scan watches for."""
    return tuple(dict.fromkeys(place.watch for place in _each(places) if place.watch))


def _each(places: Iterable[Place]) -> Iterator[Place]:
    """The places, each with one pattern."""
    for place in places:
        yield from (place._replace(pattern=pattern) for pattern in unbraced(place.pattern))


class Match(NamedTuple):
    """One thing that is left: where it really is, and by which path it is one."""

    path: str
    place: Place
    name: str


class Survey(NamedTuple):
    """All that is left, and what could not be looked at."""

    matches: tuple[Match, ...]
    unknowns: tuple[Unknown, ...]


def survey(image: Image, places: Iterable[Place]) -> Survey:
    """What there is at these places, unless it was come to through a link that may lead to anything."""
    unknowns: list[Unknown] = []
    matches: dict[str, Match] = {}
    for place in _each(places):
        paths: Iterable[str]
        if place.watch:
            seen = image.sightings(place.watch.kind)
            paths = (sighting.path for sighting in seen if fnmatchcase(sighting.path, place.pattern))
        else:
            paths = image.glob(place.pattern, unknowns)
        for path in paths:
            for found, name in _left(image, path, place, unknowns):
                if whose.is_meant(image, found, name):
                    matches.setdefault(found.path, Match(found.path, place, name))
                else:
                    unknowns.append(whose.not_taken(name, found.path))
    return Survey(tuple(matches.values()), tuple(unknowns))


def look(image: Image, places: Iterable[Place]) -> Verdict:
    """A finding for each thing that is left, with what seal does about it."""
    found = survey(image, places)
    place_of = {match.path: match.place for match in found.matches}
    plain = [
        finding(image, path, place.what, f"This is {place.what}.", place.how)
        for path, place in place_of.items()
        if place.how != WIPE
    ]
    seen = (Sighting(path, place.what) for path, place in place_of.items() if place.how == WIPE)
    secret = secrets.verdict(image, seen, "credentials")
    findings = [_in_own_words(image, each, place_of[each.path]) for each in (*plain, *secret.findings)]
    return Verdict(tuple(findings), (*secret.unknowns, *found.unknowns), remark=secret.remark)


def finding(image: Image, path: str, what: str, reason: str, how: str = REMOVE) -> Finding:
    """What is left there, and why it should not be; with what seal does about it."""
    if how == EMPTY:
        # A link to what is emptied stays: a service may go on writing through it.
        return Finding(path, reason, changes=(changes.Empty(path, what),))
    removal = changes.Remove(path, what, wiping=how == WIPE, links=image.links_to(path))
    return Finding(path, reason, changes=(removal,))


def _in_own_words(image: Image, found: Finding, place: Place) -> Finding:
    """Of what is kept, a finding for a person in the place's own words, with the line that is meant."""
    if not place.kept:
        return found
    found = found._replace(changes=(), severity=place.severity)
    if not place.says:
        return found
    content = image.read(found.path, limit=LIMIT) or b""
    match = place.holds.search(content) if place.holds else None
    line = content.count(b"\n", 0, match.start()) + 1 if match else None
    return found._replace(reason=place.says, remedy=place.advice, line=line)


def _left(image: Image, path: str, place: Place, unknowns: list[Unknown]) -> Iterator[tuple[Found, str]]:
    """What the path leads to, or what is in that directory, each with its name by that path."""
    found = image.follow(path, unknowns)
    if found is None:
        return
    # A link stands for the one directory that is meant, and not for any, nor for all that it lies in.
    is_known = path == place.pattern and not place.whole and not is_at_or_below(path, found.path)
    if not stat.S_ISDIR(found.status.st_mode):
        if _counts(image, path, found, place, unknowns):
            yield found, path
    elif place.named or place.seen or place.holds or place.watch or place.how == WIPE:
        return
    elif whose.leads_elsewhere(image, path, found.path) or (found.links and not is_known):
        unknowns.append(whose.not_taken(path, found.path))
    elif place.whole:
        yield found, path
    else:
        for inside, _ in image.below(found.path):
            name = path + inside[len(found.path) :]
            within = image.follow(inside, unknowns)
            if within and stat.S_ISDIR(within.status.st_mode):
                unknowns.append(whose.not_taken(name, within.path))
            elif within and _counts(image, name, within, place, unknowns):
                yield within, name


def _counts(image: Image, path: str, found: Found, place: Place, unknowns: list[Unknown]) -> bool:
    """Whether it is a file with all that the place asks for: a socket, pipe or device holds nothing."""
    if not stat.S_ISREG(found.status.st_mode) or not (found.status.st_size or place.empty_counts):
        return False
    if place.named and not place.named.fullmatch(os.path.basename(path)):
        return False
    if place.seen and all(seen.path != found.path for seen in image.sightings(place.seen)):
        return False
    try:
        return place.holds is None or bool(place.holds.search(image.read(found.path, limit=LIMIT) or b""))
    except FirstkeyError as error:
        unknowns.append(Unknown(found.path, error.refusal))
        return False
