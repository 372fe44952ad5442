"""The bars of a boot in docs/, and its picture, are those that firstkey draws."""

from __future__ import annotations

from installed import TOP

from firstkey.cli import timeline
from firstkey.cli.timeline import Bar

BARS = [
    Bar("host keys: look", 5, 37), Bar("host keys: make", 38, 228), Bar("host keys: make", 38, 231),
    Bar("host keys: background", 38, 885), Bar("metadata", 51, 214), Bar("host keys: look", 229, 230),
    Bar("launch keys", 232, 258),
]  # fmt: skip
"""The phases of a real first boot, as its report has them."""


def test_the_page_shows_the_boot_as_status_draws_it() -> None:
    """Where the drawing changes, the page changes with it."""
    drawn = "\n".join(timeline.text(BARS, width=80))
    assert drawn in (TOP / "docs/boot.md").read_text(encoding="utf-8")


def test_the_picture_is_the_same_boot() -> None:
    """Where the drawing changes, the picture is made anew: its report is above."""
    drawn = "\n".join([*timeline.svg(BARS, title="firstkey on i-0123456789abcdef0: ok"), ""])
    assert drawn == (TOP / "docs/boot.svg").read_text(encoding="utf-8")
