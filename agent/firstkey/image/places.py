"""What should not be in an image, by where it is: the places, what is left there, and taking it out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple
from firstkey.image import changes, secrets, whose
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.image.watches import Named, Sighting
from firstkey.reasons import FirstkeyError
from firstkey.system.mounts import is_at_or_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.image.changes import Change
    from firstkey.image.subject import Image
    from firstkey.system.walk import Found

REMOVE, EMPTY, WIPE = "remove", "empty", "wipe"
"""What seal does: EMPTY keeps the file for whoever writes to it, WIPE overwrites it before it is removed."""
ANYWHERE = "*/"
LIMIT = 16 * 1024 * 1024


class Place(NamedTuple):
    """Where something may be left, as a pattern of `Image.glob`, and what it is.

    A pattern of `*/` and the end of a path fits wherever the scan sees a file of that name. What is to be
    wiped is a secret in a file, and none if a package brought it. `kept`: seal leaves it to a person, perhaps
    with sentences of its own (`says`, `advice`; `{}` is the path) and a severity.
    `whole`: a directory there is one leftover; otherwise each file in it is one. `empty_counts`: a file
    with nothing in it tells something as well. `named`: a pattern for the whole name; `seen`: the kind that
    the scan must have seen it to be; `holds`: what must be in it. With any of the three only a file counts:
    such names are anybody's to give.
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


def places(what: str, *patterns: str, **more: Any) -> tuple[Place, ...]:  # noqa: ANN401 - fields of a Place
    """Several places of one thing; braces mean what they do in a shell: `/{a,b}` is /a and /b."""
    return tuple(Place(path, what, **more) for pattern in patterns for path in _braceless(pattern))


def _braceless(pattern: str) -> Iterator[str]:
    before, brace, choices = pattern.partition("{")
    choices, _, behind = choices.partition("}")
    for choice in choices.split(","):
        yield from _braceless(before + choice + behind) if brace else (before,)


def watches(places: Iterable[Place]) -> tuple[Named, ...]:
    """What the scan watches for."""
    return tuple(dict.fromkeys(place.watch for place in places if place.watch))


class Match(NamedTuple):
    """One thing that is left: where it really is, and by which path it is one."""

    path: str
    place: Place
    name: str


class Survey(NamedTuple):
    """All that is left, and what could not be looked at."""

    matches: tuple[Match, ...]
    doubts: tuple[Doubt, ...]


def survey(image: Image, places: Iterable[Place]) -> Survey:
    """What there is at these places, unless it was come to through a link that may lead to anything."""
    doubts: list[Doubt] = []
    matches: dict[str, Match] = {}
    for place in places:
        for path in _paths(image, place, doubts):
            for found, name in _left(image, path, place, doubts):
                if whose.is_meant(image, found, name):
                    matches.setdefault(found.path, Match(found.path, place, name))
                else:
                    doubts.append(whose.not_taken(name, found.path))
    return Survey(tuple(matches.values()), tuple(dict.fromkeys(doubts)))


def look(image: Image, places: Iterable[Place]) -> Verdict:
    """A finding for each thing that is left, with what seal does about it."""
    found = survey(image, places)
    kept = {match.path: match.place for match in found.matches if match.place.kept}
    plain = [_finding(image, match) for match in found.matches if match.place.how != WIPE]
    seen = (Sighting(match.path, match.place.what) for match in found.matches if match.place.how == WIPE)
    secret = secrets.verdict(image, secrets.sorted_out(image, seen), "credentials")
    findings = [
        _for_a_person(image, finding, kept[finding.path]) if finding.path in kept else finding
        for finding in (*plain, *secret.findings)
    ]
    return Verdict(tuple(findings), (*secret.doubts, *found.doubts), remark=secret.remark)


def _paths(image: Image, place: Place, doubts: list[Doubt]) -> Iterable[str]:
    if place.watch is None:
        return image.glob(place.pattern, doubts)
    seen = image.sightings(place.watch.kind)
    return (sighting.path for sighting in seen if fnmatchcase(sighting.path, place.pattern))


def _left(image: Image, path: str, place: Place, doubts: list[Doubt]) -> Iterator[tuple[Found, str]]:
    """What the path leads to, or what is in that directory, each with its name by that path."""
    found = image.follow(path, doubts)
    if found is None:
        return
    if not stat.S_ISDIR(found.status.st_mode):
        if _counts(found, place) and _is_proved(image, path, found, place, doubts):
            yield found, path
    elif place.named or place.seen or place.holds or place.watch or place.how == WIPE:
        return
    elif whose.is_aside(image, path, found.path) or (found.links and not _is_known(path, found, place)):
        doubts.append(whose.not_taken(path, found.path))
    elif place.whole:
        yield found, path
    else:
        for inside, _ in image.below(found.path):
            name = path + inside[len(found.path) :]
            within = image.follow(inside, doubts)
            if within and stat.S_ISDIR(within.status.st_mode):
                doubts.append(whose.not_taken(name, within.path))
            elif within and _counts(within, place):
                yield within, name


def _is_known(path: str, found: Found, place: Place) -> bool:
    """Whether the link stands for the one directory that is meant, and not for all that it lies in."""
    return path == place.pattern and not place.whole and not is_at_or_below(path, found.path)


def _counts(found: Found, place: Place) -> bool:
    """A socket, pipe or device holds nothing."""
    return stat.S_ISREG(found.status.st_mode) and (found.status.st_size > 0 or place.empty_counts)


def _is_proved(image: Image, path: str, found: Found, place: Place, doubts: list[Doubt]) -> bool:
    if place.named and not place.named.fullmatch(os.path.basename(path)):
        return False
    if place.seen and all(seen.path != found.path for seen in image.sightings(place.seen)):
        return False
    try:
        return place.holds is None or bool(place.holds.search(image.read(found.path, limit=LIMIT) or b""))
    except FirstkeyError as error:
        doubts.append(Doubt(found.path, error.refusal))
        return False


def _finding(image: Image, match: Match) -> Finding:
    path, what = match.path, match.place.what
    done: Change
    if match.place.how == EMPTY:
        # A link to what is emptied stays: whoever writes through it may still write.
        done = changes.Empty(path, what)
    else:
        done = changes.Remove(path, what, links=image.links_to(path))
    return Finding(path, f"This is {what}.", changes=(done,))


def _for_a_person(image: Image, finding: Finding, place: Place) -> Finding:
    """The finding in the place's own words, with the line that is meant; seal does nothing about it."""
    finding = finding._replace(changes=(), severity=place.severity)
    if not place.says:
        return finding
    content = image.read(finding.path, limit=LIMIT) or b""
    match = place.holds.search(content) if place.holds else None
    line = content.count(b"\n", 0, match.start()) + 1 if match else None
    return finding._replace(reason=place.says, remedy=place.advice, line=line)
