"""The commonest rule: things that should not be in an image, by where they are, and taking them out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from firstkey.image import changes
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.named_tuple import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change
    from firstkey.image.subject import Image

REMOVE = "remove"
EMPTY = "empty"


class Place(NamedTuple):
    """Where something may be left, as a pattern of `Image.glob`, and what it is.

    `whole`: a directory there is one leftover; otherwise each file in it is one. `empty_counts`: a file
    with nothing in it tells something as well.
    """

    pattern: str
    what: str
    how: str = REMOVE
    whole: bool = False
    empty_counts: bool = False


class Spot(NamedTuple):
    """One thing that is left."""

    path: str
    place: Place


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
            if not image.is_elsewhere(path):
                for left in _left(image, path, place):
                    spots.setdefault(left, Spot(left, place))
    return Survey(tuple(spots.values()), tuple(dict.fromkeys(doubts)))


def _left(image: Image, path: str, place: Place) -> Iterable[str]:
    status = image.status(path)
    if status is None:
        return []
    if stat.S_ISDIR(status.st_mode) and not place.whole:
        return [inside for inside, found in image.below(path) if _counts(found, place)]
    return [path] if stat.S_ISDIR(status.st_mode) or _counts(status, place) else []


def _counts(status: os.stat_result, place: Place) -> bool:
    """A link leads to what is looked at for itself; a socket, pipe or device holds nothing."""
    return stat.S_ISREG(status.st_mode) and (status.st_size > 0 or place.empty_counts)


def checker(*places: Place, spare: Callable[[str], bool] | None = None) -> Callable[[Image], Verdict]:
    """A rule's check: a finding for each thing that is left at these places, but for what `spare` names."""

    def check(image: Image) -> Verdict:
        seen = survey(image, places)
        return Verdict(tuple(_finding(spot) for spot in _wanted(seen, spare)), seen.doubts)

    return check


def remover(*places: Place, spare: Callable[[str], bool] | None = None) -> Callable[[Image], list[Change]]:
    """The remedy that goes with it."""

    def remedy(image: Image) -> list[Change]:
        return [_change(spot) for spot in _wanted(survey(image, places), spare)]

    return remedy


def _wanted(seen: Survey, spare: Callable[[str], bool] | None) -> list[Spot]:
    return [spot for spot in seen.spots if spare is None or not spare(spot.path)]


def _finding(spot: Spot) -> Finding:
    path = changes.quoted(spot.path)
    command = f"truncate -s 0 {path}" if spot.place.how == EMPTY else f"rm -rf -- {path}"
    return Finding(spot.path, f"This is {spot.place.what}.", command)


def _change(spot: Spot) -> Change:
    kind = changes.Empty if spot.place.how == EMPTY else changes.Remove
    return kind(spot.path, spot.place.what)
