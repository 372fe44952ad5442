"""What a rule watches for while the files are scanned: by name, by first bytes, or by content.

The scanner compiles the watches of all rules into a few look-ups a file, so that no rule walks by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

from firstkey import NamedTuple
from firstkey.reasons import Refusal


class Named(NamedTuple):
    """Files of one of these names, whatever is in them, and links of those names, wherever they lead."""

    kind: str
    names: frozenset[str]


class Headed(NamedTuple):
    """Files that start with one of these; `judge` sees the head and says what it is, or None."""

    kind: str
    starts: tuple[bytes, ...]
    judge: Callable[[bytes], str | None]


class Needle(NamedTuple):
    """Files that have these bytes in them; `judge` sees what surrounds each place, or None.

    It is called with the content before and behind (as much as there is of it) and where the needle starts.
    Outside of what packages brought, unless `everywhere`: the bulk of a system costs time.
    """

    kind: str
    needle: bytes
    judge: Callable[[bytes, int], str | None]
    everywhere: bool = False


Watch = Union[Named, Headed, Needle]


class Sighting(NamedTuple):
    """A file that a rule watches for; `detail` is what the judge said of it, or nothing."""

    path: str
    detail: str
    line: int | None = None


OTHERS = "Tokens of other makers than AWS were"


class Scanned(NamedTuple):
    """What a scanner of the host's saw in the image, why it is no answer, and which scanner it was."""

    sightings: tuple[Sighting, ...] = ()
    refusal: Refusal | None = None
    remark: str = f"{OTHERS} not looked for; audit has a scanner look where one is installed (--secrets)."
