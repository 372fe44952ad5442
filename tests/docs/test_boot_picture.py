"""The picture of a boot in docs/ is one that firstkey draws, and the text tells of the same boot."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from installed import TOP

from firstkey.cli import timeline
from firstkey.cli.timeline import Bar

PICTURE = (TOP / "docs/boot.svg").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"
WORDS = re.compile(r"(.+): \d+ ms, from (\d+) to (\d+) ms \(")


def bars() -> list[Bar]:
    """The phases, out of what the picture says of each bar."""
    titles = [str(row.findtext(f"{SVG}title")) for row in ET.fromstring(PICTURE).findall(f"{SVG}g")]
    found = [match for match in map(WORDS.match, titles) if match]
    return [Bar(match[1], int(match[2]), int(match[3])) for match in found]


def test_the_picture_is_what_status_draws() -> None:
    """Byte for byte: where the drawing changes, the picture is made anew on a machine (docs/boot.md)."""
    title = str(ET.fromstring(PICTURE).findtext(f"{SVG}title"))
    assert timeline.svg(bars(), title=title) == PICTURE


def test_the_text_has_the_same_bars() -> None:
    """Who cannot see the picture reads the same."""
    drawn = "\n".join(timeline.text(bars(), width=80))
    assert drawn in (TOP / "docs/boot.md").read_text(encoding="utf-8")


def test_it_shows_a_boot_that_made_keys_while_it_asked() -> None:
    """What the page says of it."""
    make = next(bar for bar in bars() if bar.name == "host keys: make")
    metadata = next(bar for bar in bars() if bar.name == "metadata")
    assert make.start < metadata.start < metadata.end < make.end
