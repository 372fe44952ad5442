"""The commonest rule: things that should not be in an image, by where they are, and taking them out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple
from firstkey.image import changes, whose
from firstkey.image.rule import FIRST, Rule, by_hand
from firstkey.image.verdict import WARNING, Doubt, Finding, Verdict
from firstkey.system.mounts import is_at_or_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder, Example
    from firstkey.image.subject import Image
    from firstkey.image.watches import Watch
    from firstkey.system.walk import Found

REMOVE = "remove"
EMPTY = "empty"


class Place(NamedTuple):
    """Where something may be left, as a pattern of `Image.glob`, and what it is.

    `whole`: a directory there is one leftover; otherwise each file in it is one. `empty_counts`: a file
    with nothing in it tells something as well. `named`: a pattern for the whole name; `seen`: the kind that
    the scan must have seen it to be; `holds`: a pattern for the whole content. With any of the three only a
    file counts: such names are anybody's to give.
    """

    pattern: str
    what: str
    how: str = REMOVE
    whole: bool = False
    empty_counts: bool = False
    named: re.Pattern[str] | None = None
    seen: str | None = None
    holds: re.Pattern[bytes] | None = None


def places(what: str, *patterns: str, **more: Any) -> tuple[Place, ...]:  # noqa: ANN401 - fields of a Place
    """Several places of one thing."""
    return tuple(Place(pattern, what, **more) for pattern in patterns)


class Spot(NamedTuple):
    """One thing that is left: where it really is, and by which path it is one."""

    path: str
    place: Place
    name: str


class Survey(NamedTuple):
    """All that is left, and what could not be looked at."""

    spots: tuple[Spot, ...]
    doubts: tuple[Doubt, ...]


def survey(image: Image, places: Iterable[Place]) -> Survey:
    """What there is at these places."""
    doubts: list[Doubt] = []
    spots: dict[str, Spot] = {}
    for place in places:
        for path in image.glob(place.pattern, doubts):
            for spot in _left(image, path, place, doubts):
                spots.setdefault(spot.path, spot)
    return Survey(tuple(spots.values()), tuple(dict.fromkeys(doubts)))


def _left(image: Image, path: str, place: Place, doubts: list[Doubt]) -> Iterator[Spot]:
    found = image.follow(path, doubts)
    if found is None:
        return
    if not stat.S_ISDIR(found.status.st_mode):
        if _counts(found, place) and _is_proved(image, path, found, place):
            yield from _meant(image, Spot(found.path, place, path), found, doubts)
    elif place.named or place.seen or place.holds:
        return
    elif whose.is_aside(image, path, found.path) or (found.links and not _is_known(path, found, place)):
        doubts.append(whose.not_taken(path, found.path))
    elif place.whole:
        yield Spot(found.path, place, path)
    else:
        for inside, _ in image.below(found.path):
            name = path + inside[len(found.path) :]
            yield from _left_inside(image, Spot(inside, place, name), doubts)


def _left_inside(image: Image, spot: Spot, doubts: list[Doubt]) -> Iterator[Spot]:
    found = image.follow(spot.path, doubts)
    if found and stat.S_ISDIR(found.status.st_mode):
        doubts.append(whose.not_taken(spot.name, found.path))
    elif found and _counts(found, spot.place):
        yield from _meant(image, spot._replace(path=found.path), found, doubts)


def _meant(image: Image, spot: Spot, found: Found, doubts: list[Doubt]) -> Iterator[Spot]:
    """The spot, unless it was come to through a link that may lead to anything."""
    if whose.is_meant(image, found, spot.name):
        yield spot
    else:
        doubts.append(whose.not_taken(spot.name, found.path))


def _is_known(path: str, found: Found, place: Place) -> bool:
    """Whether the link stands for the one directory that is meant, and not for all that it lies in."""
    return path == place.pattern and not place.whole and not is_at_or_below(path, found.path)


def _counts(found: Found, place: Place) -> bool:
    """A socket, pipe or device holds nothing."""
    return stat.S_ISREG(found.status.st_mode) and (found.status.st_size > 0 or place.empty_counts)


def _is_proved(image: Image, path: str, found: Found, place: Place) -> bool:
    if place.named and not place.named.fullmatch(os.path.basename(path)):
        return False
    if place.holds and not place.holds.fullmatch(image.read(found.path) or b""):
        return False
    return place.seen is None or any(seen.path == found.path for seen in image.sightings(place.seen))


def checker(*places: Place, spare: Callable[[str], bool] | None = None) -> Callable[[Image], Verdict]:
    """A rule's check: a finding for each thing that is left at these places, but for what `spare` names."""

    def check(image: Image) -> Verdict:
        seen = survey(image, places)
        return Verdict(tuple(_finding(spot) for spot in _wanted(seen, spare)), seen.doubts)

    return check


def remover(*places: Place, spare: Callable[[str], bool] | None = None) -> Callable[[Image], list[Change]]:
    """The remedy that goes with it."""

    def remedy(image: Image) -> list[Change]:
        return [_change(image, spot) for spot in _wanted(survey(image, places), spare)]

    return remedy


def _wanted(seen: Survey, spare: Callable[[str], bool] | None) -> list[Spot]:
    return [spot for spot in seen.spots if spare is None or not spare(spot.path)]


def _finding(spot: Spot) -> Finding:
    path = changes.quoted(spot.path)
    command = f"truncate -s 0 {path}" if spot.place.how == EMPTY else f"rm -rf -- {path}"
    return Finding(spot.path, f"This is {spot.place.what}.", command)


def _change(image: Image, spot: Spot) -> Change:
    """A link to what is removed goes with it; to what is emptied, whoever writes it may still write."""
    if spot.place.how == EMPTY:
        return changes.Empty(spot.path, spot.place.what)
    return changes.Remove(spot.path, spot.place.what, links=image.links_to(spot.path))


class Table(NamedTuple):
    """A rule that is its places, in one entry; the fields that `Rule` has mean the same here.

    `failing` and `passing` are files with their content, and directories (None). `advice` is what a person is
    to do where seal does nothing, in place of the command that removes what is found.
    """

    id: str
    title: str
    prose: str
    places: tuple[Place, ...]
    failing: Mapping[str, str | bytes | None]
    passing: Mapping[str, str | bytes | None]
    guideline: str = "beyond"
    severity: str = WARNING
    advice: str = ""
    spare: Callable[[str], bool] | None = None
    watches: tuple[Watch, ...] = ()
    stage: int = FIRST
    option: str | None = None
    after: str | None = None

    def rule(self) -> Rule:
        """The rule."""
        return Rule(
            id=self.id,
            title=self.title,
            guideline=self.guideline,
            severity=self.severity,
            prose=self.prose,
            check=self._check,
            remedy=by_hand if self.advice else remover(*self.places, spare=self.spare),
            failing=example(self.failing),
            passing=example(self.passing),
            watches=self.watches,
            stage=self.stage,
            option=self.option,
            after=self.after,
        )

    def _check(self, image: Image) -> Verdict:
        verdict = checker(*self.places, spare=self.spare)(image)
        if not self.advice:
            return verdict
        return verdict._replace(
            findings=tuple(found._replace(remedy=self.advice) for found in verdict.findings)
        )


def example(files: Mapping[str, str | bytes | None]) -> Example:
    """A tree of these files, with their content, and directories (None)."""

    def build(tree: Builder) -> None:
        for path, content in files.items():
            if content is None:
                tree.directory(path)
            else:
                tree.file(path, content)

    return build
