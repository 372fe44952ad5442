"""The pages name what there is: commands, links, settings, reasons and events that exist."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import fork_server
import pytest
from installed import TOP, Installed, install
from pages import PAGES, anchors, blocks, commands, every_block, links, name_of, prose
from typed import NOT_TYPED, TYPED

import firstkey
from firstkey import events, image_reasons, login_reasons, reasons, settings
from firstkey.cli import usage
from firstkey.cli.render import OUTCOMES
from firstkey.cli.usage import COMMANDS
from firstkey.image import audit, rules
from firstkey.reasons import FirstkeyError

OWN_CHAPTERS = (image_reasons, login_reasons)
"""Both put their codes on the list when they are read."""

MANUALS = ["firstkey.8", "firstkey.conf.5"]

# A value that stands for one, and what it is given to the parser as.
PLACEHOLDERS = {"SECONDS": "1", "ADDRESS": "127.0.0.1", "ID": "machine-id", "N": "22", "DIR": "/"}


@pytest.fixture(scope="module")
def manuals(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A tree with the manual pages."""
    return install(tmp_path_factory.mktemp("manuals"))


def mistake(command: str, words: list[str]) -> str | None:
    """What the real parser has against a command line, or None."""
    if command == "help" and words[1:] == [] and words[0] in (*COMMANDS, "COMMAND"):
        return None
    if command not in COMMANDS:
        return f"there is no command {command}"
    # "..." and [OPTIONS] stand for what the reader has in mind.
    given = [PLACEHOLDERS.get(word, word) for word in words if word != "..." and not word.startswith("[")]
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            parse(command, given)
    except SystemExit as end:
        return said.getvalue() if end.code else None
    except FirstkeyError as error:
        return error.message
    return None


def parse(command: str, given: list[str]) -> None:
    """As the command itself would, and no further."""
    arguments = usage.parser(command).parse_args(given)
    if command in ("audit", "seal"):
        audit.chosen(arguments.rule, arguments.skip)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_on_the_page_is_one(page: Path) -> None:
    """In blocks and in the text, with each option: the real parser takes them."""
    text = page.read_text(encoding="utf-8")
    wrong = [
        f"firstkey {command} {' '.join(words)}: {found}"
        for command, words in named_commands(text)
        if (found := mistake(command, words))
    ]
    assert wrong == []


def named_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """What is meant as a command: all in blocks, and in the text what is set as code."""
    fenced = [
        # What a session shows is commands and what they print.
        code if language != "console" else "\n".join(re.findall(r"^\$ (.*)", code, re.MULTILINE))
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    rest = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", rest)
    for code in [*fenced, *(" ".join(piece.split()) for piece in inline)]:
        yield from commands(code)


def test_a_command_that_is_none_is_found() -> None:
    """The test above can fail."""
    ((command, words),) = commands("sudo firstkey seal --root /mnt --dry-ran   # look")
    assert "--dry-run" in (mistake(command, words) or "")
    ((command, words),) = commands("firstkey seel --yes | cat")
    assert mistake(command, words)
    ((command, words),) = commands('x="$(firstkey audit --exclude-list | paste)"')
    assert (command, words, mistake(command, words)) == ("audit", ["--exclude-list"], None)


@pytest.mark.parametrize("manual", MANUALS)
@pytest.mark.slow
def test_every_command_in_the_manual_is_one(manuals: Installed, manual: str) -> None:
    """The same for the manual pages, in whatever macro a command stands."""
    source = manuals.path(f"/usr/share/man/man{manual[-1]}/{manual}").read_text()
    lines = [line for line in source.splitlines() if not line.startswith((".Ss", ".Xr", ".Nd"))]
    plain = "\n".join(re.sub(r"^\.(?:Ic|Dl|Li|Cm) | [.,]$", "", line) for line in lines)
    plain = plain.replace("\\-", "-").replace("\\&", "")
    found = [(command, words) for command, words in commands(plain) if command in COMMANDS]
    assert found
    for command, words in found:
        options = [word for word in words if word.startswith("-")]
        assert mistake(command, words) is None or not options, (command, words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that there is, and to a heading that it has; nothing leads out of the project."""
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_relative_to(TOP), link
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_the_first_screen_of_the_readme() -> None:
    """A reader sees in 25 lines what it is, its verbs, its status, a quick start and three links."""
    first = (TOP / "README.md").read_text(encoding="utf-8").partition("\n## ")[0].rstrip()
    assert len(first.splitlines()) <= 25
    assert [link for link in re.findall(r"\]\((\S+?)\)", first) if not link.startswith("#")] == [
        "docs/first-image.md", "docs/security.md", "docs/README.md",
    ]  # fmt: skip
    assert re.findall(r"^- \*\*(\w+)\*\*", first, re.MULTILINE) == ["Boot", "Clone", "Publish", "Debug"]
    assert f"Version {firstkey.__version__}" in first


def test_every_page_is_in_the_index() -> None:
    """Whoever opens docs/ finds each of its pages."""
    index = TOP / "docs/README.md"
    assert {page.name for page in PAGES if page.parent == index.parent} - {index.name} <= set(links(index))


@pytest.mark.parametrize("block", every_block("ini"), ids=lambda block: f"{block.page}:{block.line}")
def test_every_configuration_on_the_pages_is_right(
    block: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`firstkey config --check` finds nothing; what is for somebody else names its own file first."""
    text: str = block.text  # type: ignore[attr-defined]
    place = re.match(r"# (/\S+|mkosi\.conf)\n", text)
    if place and "firstkey" not in place[1]:
        assert place[1].startswith(("/etc/systemd/", "mkosi.conf"))
        return
    file = tmp_path / "etc/firstkey/firstkey.conf.d/50-page.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert usage.run(["config", "--root", str(tmp_path), "--check"]) == 0, capsys.readouterr().err


def test_configurations_that_are_written_by_commands_are_right(tmp_path: Path) -> None:
    """The same for those between END and END in shell commands."""
    found = [
        text
        for block in every_block("sh")
        for text in re.findall(
            r"^cat >\S*firstkey\S* <<'END'\n(.*?)^END$", block.text, re.MULTILINE | re.DOTALL
        )
    ]
    assert len(found) >= 2
    for number, text in enumerate(found):
        file = tmp_path / str(number) / "etc/firstkey/firstkey.conf.d/50-page.conf"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        assert usage.run(["config", "--root", str(tmp_path / str(number)), "--check"]) == 0


KEYS = {setting.key for setting in settings.SETTINGS}
UNIT = (TOP / "systemd/firstkey.service").read_text(encoding="utf-8")
SYSTEMD = set(re.findall(r"^(\w+)=", UNIT, re.MULTILINE))
"""What the unit sets, and pages about it name."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    """`Word=` or `Word=value` set as code, where the word looks like one of the settings."""
    named = re.findall(r"`([A-Z][A-Za-z]+)=[^`]*`", prose(page))
    assert {name for name in named if name.isalpha() and not name.isupper()} <= KEYS | SYSTEMD | {
        "Ssh"
    }  # mkosi's


RULES = {rule.id for rule in rules.ALL}
VALUES = [setting.accepts for setting in settings.SETTINGS]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_reason_and_event_that_is_named_exists(page: Path) -> None:
    """Words like `no-key-pair` set as code, or in brackets at the end of a line of output."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:-[a-z0-9]+)+)`", prose(page)))
    named -= set(re.findall(r"[a-z]+(?:-[a-z0-9]+)+", " ".join(VALUES)))
    named |= set(re.findall(r"\(([a-z]+(?:-[a-z]+)+)\)$", text, re.MULTILINE))
    known = {*reasons.ALL, *events.ALL, *OUTCOMES, *RULES, *rules.PROFILES, *COMMANDS, *PROGRAMS}
    assert named - known == set()


PROGRAMS = {
    # Other projects' programs, packages, subcommands and types.
    "cloud-init", "create-tags", "get-console-output", "ssh-keygen", "ssh-ed25519", "ssh-keyscan",
    "systemd-nspawn", "systemd-python", "systemd-repart", "python-daemon", "prohibit-password",
    "without-password", "firstkey-keys", "amazon-ebs", "shell-local", "amazon-chroot",
    "systemd-sysusers", "sshd-keygen",
}  # fmt: skip


LANGUAGES = {"python", "sh", "console", "text", "ini", "hcl", "yaml", "json"}

# --- what is typed --------------------------------------------------------------------------------


def test_every_block_of_commands_is_typed_or_says_why_not() -> None:
    """And what is listed is there: a list that nobody keeps is worth nothing."""
    there = [block.name for block in every_block("sh", "console")]
    assert len(there) == len(set(there)), "two blocks begin alike, so a list cannot tell them apart"
    typed = [name for story in TYPED.values() for name in story]
    assert sorted([*typed, *NOT_TYPED]) == sorted(there)


def test_every_story_is_told_by_a_test() -> None:
    """A story without one would be a list of commands that nobody runs."""
    sources = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for story in TYPED:
        assert f'of_story("{story}")' in sources


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_stands_in_blocks_that_say_what_it_is(page: Path) -> None:
    """An indented block says nothing of its language, and would be passed over here."""
    assert re.search(r"\n\n(?: {4}|\t)(?![-*\d ])", prose(page)) is None
    assert {block.language for block in blocks(page)} <= LANGUAGES


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["--help", *COMMANDS])
@pytest.mark.sample(4)
def test_help_fits_into_a_terminal(command: str) -> None:
    """Nothing of it is longer than the 80 columns of a serial console."""
    argv = [command, *(["--help"] if command in COMMANDS else [])]
    done = fork_server.firstkey(*argv, environ={**os.environ, "COLUMNS": "80"})
    assert (done.status, done.err) == (0, b"")
    assert [line for line in done.out.decode().splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.sample(4)
def test_examples_in_help_are_commands(command: str) -> None:
    """What is shown to be copied is taken by the parser."""
    said = fork_server.firstkey(command, "--help", environ=os.environ).out.decode()
    examples = re.search(r"^(?:examples|For images .*):\n\n?(.*?)(?:\n\n|\Z)", said, re.MULTILINE | re.DOTALL)
    assert examples
    found = list(commands(examples[1]))
    assert found
    for name, words in found:
        assert mistake(name, words) is None


@pytest.mark.parametrize("command", ["audit --rule lgos", "seal --skip lgos"])
def test_a_mistyped_rule_is_suggested(command: str, tmp_path: Path) -> None:
    """As commands, options, sections and settings are."""
    done = fork_server.firstkey(*command.split(), "--root", str(tmp_path), environ=os.environ)
    assert done.status == 2
    assert "there is no rule 'lgos'; did you mean 'logs'? (bad-usage)" in done.err.decode()
