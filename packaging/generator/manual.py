"""Manual pages: frames in mdoc(7) written by hand, and in them what only the program knows."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import NamedTuple

from firstkey import image_reasons, login_reasons, reasons  # noqa: F401 - for ALL to have them too
from firstkey.settings import SETTINGS, Setting, text_of
from generator import commands
from generator.commands import Command, Option

PACKAGING = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def firstkey() -> str:
    """The page in section 8, of the command."""
    parts = {"commands": _commands(commands.every()), "reasons": _reasons()}
    return _filled("firstkey.8.in", parts)


def firstkey_conf() -> str:
    """The page in section 5, of the configuration."""
    return _filled("firstkey.conf.5.in", {"settings": _settings()})


def _filled(frame: str, parts: dict[str, Iterator[str]]) -> str:
    """The frame with each line `@NAME@` replaced by the lines of that part."""
    with open(os.path.join(PACKAGING, "man", frame), encoding="utf-8") as file:
        lines = file.read().splitlines()
    filled: list[str] = []
    for line in lines:
        part = re.fullmatch(r"@(\w+)@", line)
        filled += parts.pop(part[1]) if part else [line]
    if parts:
        raise ValueError(f"{frame} has no place for: {' '.join(parts)}")
    return "\n".join(filled) + "\n"


# --- mdoc -----------------------------------------------------------------------------------------


def _prose(text: str) -> Iterator[str]:
    """Sentences that start lines of their own, and lines of 80 characters at most, as mdoc(7) wants them."""
    for sentence in re.split(r"(?<=[.:;!?]) +(?=[A-Z])", " ".join(text.split())):
        yield from map(_escaped, textwrap.wrap(sentence, 72, break_on_hyphens=False, break_long_words=False))


def _escaped(line: str) -> str:
    """Text that roff(7) leaves alone: what starts an option is a minus sign, to be copied, not a hyphen."""
    line = re.sub(r"(?<!\S)-(?=\S)", r"\\-", line.replace("\\", "\\e"))
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _literal(lines: Iterable[str]) -> Iterator[str]:
    yield ".Bd -literal -compact"
    yield from map(_escaped, lines)
    yield ".Ed"


# --- the commands ---------------------------------------------------------------------------------


def _commands(known: list[Command]) -> Iterator[str]:
    shared = _shared(known)
    for command in known:
        yield f".Ss firstkey {command.name}"
        yield from _prose(_sentence(command.summary))
        own = [option for option in command.options if option not in shared]
        if own:
            yield from _options(own)
        yield from _epilog(command.epilog)
    yield ".Ss Options of most commands"
    yield from _prose("All commands that look at a system take these; the others have only --help.")
    yield from _options(shared)


def _shared(known: list[Command]) -> list[Option]:
    """What most commands take is told once."""
    every = [option for command in known for option in command.options]
    return [option for option in dict.fromkeys(every) if every.count(option) > len(known) / 2]


def _sentence(text: str) -> str:
    """With an end, and with a capital unless it begins with a name such as known_hosts."""
    begin = text[:1].upper() if text.partition(" ")[0].rstrip(",:").isalpha() else text[:1]
    end = "" if not text or text.endswith((".", "?", "!", ":")) else "."
    return begin + text[1:] + end


def _options(options: list[Option]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for option in options:
        yield ".It " + " , ".join(_flag(name, option) for name in option.names)
        yield from _prose(_sentence(_choices(option) or option.help))
    yield ".El"


def _flag(name: str, option: Option) -> str:
    flag = f"Fl {name[1:]}"
    return f"{flag} Ar {option.value}" if option.value else flag


def _choices(option: Option) -> str:
    return f"{option.help}: {', '.join(option.choices)}" if option.choices else ""


def _epilog(text: str) -> Iterator[str]:
    """Indented lines keep their form behind a colon (`examples:`) or a blank line; anything else is prose."""
    for block in text.strip("\n").split("\n\n") if text else ():
        lines = block.splitlines()
        prose = list(takewhile(lambda line: not line.startswith(" "), lines))
        if prose and not prose[-1].endswith(":"):
            prose = lines
        yield ".Pp"
        yield from _prose(_sentence(" ".join(prose)))
        if lines[len(prose) :]:
            yield from _literal(lines[len(prose) :])


# --- reason codes ---------------------------------------------------------------------------------


def _reasons() -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for reason in reasons.ALL.values():
        yield f".It Li {reason.code}"
        yield from _prose(f"{reason.meaning} What to do: {reason.remedy}")
    yield ".El"


# --- the settings ---------------------------------------------------------------------------------


class Explained(NamedTuple):
    """A setting, and the comment above it in the file that the package installs."""

    setting: Setting
    text: str


def _settings() -> Iterator[str]:
    """By section; the prose is that of the commented file that the package installs."""
    sections: dict[str, list[Explained]] = {}
    for member in explained():
        sections.setdefault(member.setting.section, []).append(member)
    for section, members in sections.items():
        yield f".Ss Section {'User NAME' if section == 'User' else section}"
        yield ".Bl -tag -width Ds"
        for setting, text in members:
            default = text_of(setting.default)
            yield f".It Va {setting.key}=" + (f" Ns Li {default}" if default else "")
            yield from _prose(text)
        yield ".El"


def explained() -> Iterator[Explained]:
    """Each setting with the comment above it in firstkey.conf (tests/test_settings.py compares the two)."""
    with open(os.path.join(PACKAGING, "firstkey.conf"), encoding="utf-8") as file:
        text = file.read()
    for setting in SETTINGS:
        found = re.search(rf"((?:^# .*\n)+)#{setting.key}=", text, re.MULTILINE)
        if not found:
            raise ValueError(f"firstkey.conf has no comment above {setting.key}=")
        yield Explained(setting, re.sub(r"(?m)^# ", "", found[1]))
