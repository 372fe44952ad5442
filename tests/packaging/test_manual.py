"""The manual pages: whole, and in the form that the tools want."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed import TOP, Installed

from firstkey import reasons
from firstkey.cli.usage import COMMANDS
from firstkey.metadata.emulator import FAULTS, usage
from firstkey.settings import SETTINGS, text_of

PAGES = ["/usr/share/man/man8/firstkey.8", "/usr/share/man/man5/firstkey.conf.5"]

pytestmark = pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc, which is not installed")


def lint(page: Path) -> list[str]:
    """What mandoc has to say, but for what depends on the pages that this machine has."""
    done = subprocess.run(
        ["mandoc", "-T", "lint", str(page)], check=False, capture_output=True, text=True, timeout=60
    )
    return [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]


def text(page: Path) -> str:
    """The page as a person reads it, with lines of 78 characters."""
    argv = ["mandoc", "-T", "utf8", "-O", "width=78", str(page)]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    return re.sub(r".\x08", "", shown)


def words(page: Path) -> str:
    """The text without its line breaks."""
    return " ".join(text(page).split())


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_found(installed: Installed, page: str) -> None:
    """By mandoc's lint, style included."""
    assert lint(installed.path(page)) == []


def test_lint_finds_something_where_there_is_something(tmp_path: Path) -> None:
    """The test above can fail."""
    page = tmp_path / "page.8"
    page.write_text(".Dd November 24, 2026\n.Dt PAGE 8\n.Os\n.Sh NAME\n.Nm page\n.Nonsense\n")
    assert lint(page)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.sample(8)
def test_each_option_is_explained(installed: Installed, command: str) -> None:
    """What a command's help tells is in the manual, in the command's own part or in the common one."""
    help_text = installed.firstkey(command, "--help").stdout
    page = text(installed.path(PAGES[0]))
    own = page.split(f"\n   firstkey {command}\n")[1].split("\n   firstkey ")[0]
    common = page.split("\n   Options of most commands\n")[1].split("\nSWITCHING")[0]
    for option in set(re.findall(r"(?<!\S)--[a-z-]+", help_text.split("\noptions:\n")[1].split("\n\n")[0])):
        assert re.search(rf"^     (-\w, |-\w \w+, )?{option}\b", own + common, re.MULTILINE), option


def part(page: str, command: str) -> str:
    """What the manual has of a command."""
    return (
        page.split(f"\n   firstkey {command}\n")[1]
        .split("\n   firstkey ", maxsplit=1)[0]
        .split("\n   Options of", maxsplit=1)[0]
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.sample(8)
def test_what_stands_below_the_options_is_there_in_its_form(installed: Installed, command: str) -> None:
    """Prose word for word, exit statuses too; below a colon, lines that stay lines."""
    below = installed.firstkey(command, "--help").stdout.split("\noptions:\n")[1].partition("\n\n")[2]
    own = part(text(installed.path(PAGES[0])), command)
    said = " ".join(own.split()).replace("- ", "-").lower()
    for block in filter(None, below.split("\n\n")):
        assert " ".join(block.split()).replace("- ", "-").lower() in said
        for line in block.partition(":\n")[2].splitlines():
            assert line.strip() in map(str.strip, own.splitlines())


def test_each_fault_has_lines_of_its_own(installed: Installed) -> None:
    """The list of faults can be read, as that of `firstkey imds --help` can."""
    lines = part(text(installed.path(PAGES[0])), "imds").splitlines()
    for name, kind in FAULTS.items():
        named = next(
            number for number, line in enumerate(lines) if line.split(" [")[0].strip() == usage(name)
        )
        assert lines[named + 1].strip() == kind.summary


def test_sentences_begin_and_end_as_sentences_do(installed: Installed) -> None:
    """A question has its own end, and a name its own small letter."""
    page = installed.path(PAGES[0])
    assert "and if not, why.\n" in part(text(page), "doctor")
    assert "known_hosts lines of this host" in part(text(page), "known-hosts")
    assert not re.search(r"[?!:]\.|Known_hosts", text(page))


def test_each_reason_is_explained_with_its_remedy(installed: Installed) -> None:
    """The published list of reason codes is in the manual, word for word."""
    page = words(installed.path(PAGES[0])).replace("- ", "-")
    for reason in reasons.ALL.values():
        expected = " ".join(f"{reason.code} {reason.meaning} What to do: {reason.remedy}".split())
        assert expected.replace("- ", "-") in page


def test_each_setting_is_explained_with_its_default(installed: Installed) -> None:
    """And with what it does, as the comments of the shipped file have it."""
    page = words(installed.path(PAGES[1]))
    shipped = (TOP / "packaging/firstkey.conf").read_text()
    for setting in SETTINGS:
        comment = re.search(rf"((?:^# .*\n)+)#{setting.key}=", shipped, re.MULTILINE)
        assert comment, setting.key
        sentence = comment[1].replace("\n# ", " ").removeprefix("# ").partition(". ")[0].strip()
        assert f"{setting.key}={text_of(setting.default)} {sentence}" in page


def test_pages_say_what_becomes_of_cloud_init(installed: Installed) -> None:
    """An operator who has both finds out who does what."""
    page = words(installed.path(PAGES[0]))
    assert "BESIDE CLOUD-INIT" in page
    for word in ("cloud-init.service", "cloud-init-network.service", "ssh_deletekeys", "disable_root"):
        assert word in page


@pytest.mark.slow
def test_generating_needs_no_packages() -> None:
    """The standard library is enough, as it is where an rpm is built; a wrong name is refused."""
    program = [sys.executable, "-IS", str(TOP / "packaging/generate.py")]
    assert subprocess.run([*program, "bash"], check=True, capture_output=True, timeout=60).stdout
    assert subprocess.run([*program, "tcsh"], check=False, capture_output=True, timeout=60).returncode == 2
