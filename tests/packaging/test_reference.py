"""The pages of reference in docs/: written from the code, and still as the code has it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from installed import TOP

from firstkey import events, image_reasons, login_reasons, reasons
from firstkey.settings import SETTINGS

PAGES = ["reference-reasons.md", "reference-events.md", "reference-configuration.md", "rooms.svg"]
CHAPTERS = (image_reasons, login_reasons)
"""Both put their codes on the list when they are read."""


def written(page: str) -> str:
    """What the generator writes now."""
    argv = [sys.executable, "-BIS", str(TOP / "packaging" / "generate.py"), page]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def headings(page: str) -> list[str]:
    """What the page has an entry for."""
    return re.findall(r"^### (.+)$", (TOP / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_what_the_code_says(page: str) -> None:
    """Nobody has to remember: where the two differ, this says how to write the page again."""
    stands = (TOP / "docs" / page).read_text(encoding="utf-8")
    assert stands == written(page), f"python3 -BIS packaging/generate.py {page} > docs/{page}"


def test_every_code_event_and_setting_has_its_entry() -> None:
    """Each once, and none for what is gone."""
    assert sorted(headings(PAGES[0])) == sorted(reasons.ALL)
    assert headings(PAGES[1]) == list(events.ALL)
    assert headings(PAGES[2]) == [f"{setting.key}=" for setting in SETTINGS]


def test_code_is_left_as_it_is() -> None:
    """Markdown's own characters are escaped in prose, and only there."""
    text = (TOP / "docs" / PAGES[1]).read_text(encoding="utf-8")
    for code in re.findall(r"`([^`\n]*)`", text):
        assert "\\" not in code
    assert not re.search(r"(?<![\\\w`])\*\w", re.sub(r"`[^`\n]*`", "", text))
