"""The pages about images say what the rules say, and show commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firstkey.cli import usage
from firstkey.image import audit, rules
from firstkey.image.rule import Rule
from firstkey.image.rules import residue

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guidelines.md").read_text()
RECIPES = (DOCS / "recipes.md").read_text()
RULES = (DOCS / "rules.md").read_text()


def section(title: str) -> str:
    """What stands below a rule's heading, its lines joined."""
    text = PAGE.split(f"\n### {title}\n", 1)[1]
    return " ".join(re.split(r"\n#{2,3} ", text, maxsplit=1)[0].split())


def test_every_rule_has_a_heading_in_its_guideline() -> None:
    """One heading a rule, in the rules' own order, and none for a rule that is gone."""
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert headings == [rule.title for rule in rules.ALL]
    for guideline, title in rules.GUIDELINES.items():
        heading = title if guideline == "beyond" else f"{guideline}: {title}"
        text = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
        expected = [rule.title for rule in rules.ALL if rule.guideline == guideline]
        assert re.findall(r"^### (.*)$", text, re.MULTILINE) == expected


@pytest.mark.parametrize("rule", rules.ALL, ids=lambda rule: rule.id)
def test_the_page_says_what_the_rule_says(rule: Rule) -> None:
    """Id, severity, how it is repaired, and the prose."""
    option = f"repaired with --{rule.option}" if rule.option else "repaired by seal"
    how = "reported only" if rule.by_hand else option
    assert section(rule.title) == f"`{rule.id}`, {rule.severity}, {how} {rule.prose}"


@pytest.mark.parametrize("page", [PAGE, RECIPES], ids=["guidelines", "recipes"])
def test_commands_on_the_pages_exist(page: str) -> None:
    """Every `firstkey audit` and `firstkey seal` on the pages is one that the command line takes."""
    shown = page.replace("{{ .MountPath }}", "/mnt").replace('"', "")
    commands = re.findall(r"firstkey (audit|seal)((?: --?[\w-]+(?: [\w$/.][\w$/.-]*)?)*)", shown)
    assert len(commands) >= 4
    for command, options in commands:
        arguments = usage.parser(command).parse_args(options.split())
        audit.chosen(arguments.rule, arguments.skip)


def test_the_example_of_a_rule_is_one_and_short() -> None:
    """It stands in the code as it is shown, and takes fewer than 40 lines."""
    entry = RULES.split("```python\n", 1)[1].split("```", 1)[0]
    assert entry in Path(residue.__file__).read_text()
    assert entry.count("\n") < 40


def test_every_rule_has_a_source() -> None:
    """Each is named for a point of some list, or stands here; and no list names one that is gone."""
    tables = "".join(
        line for line in RULES.split("\n## ")[2].splitlines(keepends=True) if line.startswith("|")
    )
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", tables))
    ids = {rule.id for rule in rules.ALL}
    assert named - ids == set()
    assert ids - named == OWN


OWN = {"debconf-passwords", "everything-seen", "firstkey-state", "installer-files", "sudo-timestamps"}
"""What is on no list that we know."""


def test_links_between_the_pages_lead_somewhere() -> None:
    """A page that is named is there."""
    for page in (PAGE, RECIPES, RULES):
        for target in re.findall(r"\]\(([\w.]+)\)", page):
            assert (DOCS / target).exists()
