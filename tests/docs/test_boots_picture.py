"""The picture of boots side by side is what the bench drew of real ones, and the page says the same."""

from __future__ import annotations

import re

import timelines
from installed import TOP

import firstkey

SVG = (TOP / "docs/boots.svg").read_text(encoding="utf-8")
PAGE = (TOP / "docs/boot.md").read_text(encoding="utf-8")
PICTURE = timelines.read(SVG)


def test_the_picture_is_what_the_bench_draws() -> None:
    """Byte for byte, out of its own titles: where the drawing changes, it is drawn again (`--picture`)."""
    assert timelines.draw(PICTURE) == SVG


def test_it_shows_all_of_them() -> None:
    """This version of firstkey, and a cloud-init of each suite."""
    titles = [boot.title for boot in PICTURE.timelines]
    assert titles[0] == f"firstkey {firstkey.__version__} on Debian {timelines.SHOWN[0].suite}"
    assert [title.split(" on ")[1] for title in titles] == [
        f"Debian {peer.suite}" for peer in timelines.SHOWN
    ]
    assert all(re.fullmatch(r"cloud-init \d+\.\d\S* on Debian \w+", title) for title in titles[1:])


def test_sshd_waits_for_each_and_answers_after_it() -> None:
    """As units are ordered: so the moments are of one clock."""
    for boot in PICTURE.timelines:
        units = {bar.name: bar for bar in boot.bars if bar.kind == timelines.UNIT}
        sshd = units.pop("ssh.service")
        before = [unit for unit in units.values() if unit.end <= sshd.start]
        assert before, boot.title
        assert sshd.start <= boot.port <= boot.login, boot.title


def test_the_page_says_the_same() -> None:
    """The figures, and how and when they were taken."""
    assert timelines.in_words(PICTURE) in " ".join(PAGE.split())
