"""The pages of docs/ that tell of every reason code, event, setting and rule: written from the code."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from firstkey import events, image_reasons, login_reasons, reasons
from firstkey.image import rules
from firstkey.image.rule import Rule
from firstkey.settings import Setting, text_of
from generator.manual import PACKAGING, explained

DOCS = os.path.join(os.path.dirname(PACKAGING), "docs")
CATALOG = os.path.join(os.path.dirname(PACKAGING), "systemd", "firstkey.catalog")
MADE_BY = (
    "<!-- Written by `python3 -BIS packaging/generate.py {name}`: change the code, and write it again. -->"
)
LEVELS = {events.ERR: "error", events.WARNING: "warning", events.NOTICE: "notice", events.INFO: "info"}

# What each page begins with, a paragraph on a line as Markdown wants it.
REASONS = (
    "Every failure, skip and refusal carries one of these words: in the journal (`FIRSTKEY_REASON=`), in the "
    "report, in the output of the commands. A code is never renamed or reused. NAME and FILE in a remedy "
    "stand for the user and the file that the message names."
)
EVENTS = (
    "Each event has a `MESSAGE_ID` that never changes, and a journal field for each word in braces: `{user}` "
    "is `FIRSTKEY_USER=`. `journalctl -x` shows the explanations below beside the entries; "
    "`journalctl MESSAGE_ID=...` finds all entries of one kind."
)
CONFIGURATION = (
    "`/etc/firstkey/firstkey.conf` and `/etc/firstkey/firstkey.conf.d/*.conf`, by systemd's rules of "
    "precedence. An unknown or wrong setting gives a warning, and the default is used. `firstkey config` "
    "shows the effective settings and their files, `firstkey config --check` makes an error of every warning."
)

_HEADING = re.compile(r"# --- (.+?) -+$")
_EVENT = re.compile(r'= _(?:error|warning|notice|info|debug)\("([a-z0-9-]+)"')
_CODE = re.compile(r"""^(?:\w+ = define\(|    )"([a-z0-9-]+)",$""")


class Chapter(NamedTuple):
    """What stands in a source file below one heading: the codes or names, in order."""

    title: str
    names: tuple[str, ...]


def reason_codes() -> str:
    """docs/reference-reasons.md."""
    lines = _head("Reason codes", "reference-reasons.md", REASONS)
    for chapter in _reason_chapters():
        lines += [f"## {chapter.title}", ""]
        for name in chapter.names:
            reason = reasons.ALL[name]
            lines += [f"### {name}", "", _safe(reason.meaning), "", f"What to do: {_safe(reason.remedy)}", ""]
    return _joined(lines)


def event_list() -> str:
    """docs/reference-events.md."""
    lines = _head("Events in the journal", "reference-events.md", EVENTS)
    explanations = _explanations()
    for chapter in _chapters(events.__file__, _EVENT):
        lines += [f"## {chapter.title}", ""]
        for name in chapter.names:
            event = events.ALL[name]
            level = LEVELS.get(event.priority, "debug")
            lines += [f"### {name}", "", f"`{event.message_id}`, {level}:", f"“{_safe(event.template)}”", ""]
            lines += [explanations[event.message_id], ""]
    return _joined(lines)


def configuration() -> str:
    """docs/reference-configuration.md."""
    lines = _head("Configuration", "reference-configuration.md", CONFIGURATION)
    section = ""
    for setting, text in explained():
        if setting.section != section:
            section = setting.section
            lines += [f"## [{'User NAME' if section == 'User' else section}]", ""]
        lines += [*_setting(setting, text), ""]
    return _joined(lines)


def guidelines() -> str:
    """docs/guidelines.md: its own first part, which people write, and then every rule by its guideline."""
    with open(os.path.join(DOCS, "guidelines.md"), encoding="utf-8") as file:
        text = file.read().split("\n## G1: ", 1)[0].rstrip("\n")
    lines = [text]
    for guideline, title in rules.GUIDELINES.items():
        lines += ["", "", f"## {title if guideline == 'beyond' else f'{guideline}: {title}'}"]
        for rule in rules.ALL:
            if rule.guideline == guideline:
                lines += ["", f"### {rule.title}", "", f"`{rule.id}`, {rule.severity}, {_seal(rule)}", ""]
                lines += textwrap.wrap(rule.prose, 118, break_long_words=False, break_on_hyphens=False)
    return _joined(lines)


def _seal(rule: Rule) -> str:
    """What seal does about it."""
    if rule.by_hand:
        return "reported only"
    return f"repaired with --{rule.option}" if rule.option else "repaired by seal"


def _head(title: str, name: str, words: str) -> list[str]:
    return [f"# {title}", "", MADE_BY.format(name=name), "", words, ""]


def _setting(setting: Setting, text: str) -> Iterator[str]:
    default = text_of(setting.default)
    yield f"### {setting.key}="
    yield ""
    yield f"Takes {_safe(setting.accepts)}. Default: {f'`{default}`' if default else 'not set'}."
    yield ""
    yield _safe(" ".join(text.split()))


def _reason_chapters() -> list[Chapter]:
    found = [
        *_chapters(reasons.__file__, _CODE),
        *_chapters(login_reasons.__file__, _CODE, title="Logging in"),
        *_chapters(image_reasons.__file__, _CODE, title="Sharing images"),
    ]
    told = {name for chapter in found for name in chapter.names}
    missing = set(reasons.ALL) - told
    if missing:
        raise ValueError(f"these reasons are in no chapter: {sorted(missing)}")
    return found


def _chapters(source: str, pattern: re.Pattern[str], *, title: str = "") -> list[Chapter]:
    """The names in a source file, below the headings that it has itself; `title` is for what has none."""
    with open(source, encoding="utf-8") as file:
        lines = file.read().splitlines()
    chapters: list[Chapter] = [Chapter(title, ())]
    for line in lines:
        heading, name = _HEADING.search(line), pattern.search(line)
        if heading:
            chapters.append(Chapter(heading[1][:1].upper() + heading[1][1:], ()))
        elif name:
            chapters[-1] = chapters[-1]._replace(names=(*chapters[-1].names, name[1]))
    return [chapter for chapter in chapters if chapter.names]


def _explanations() -> dict[str, str]:
    """The catalogue's texts by MESSAGE_ID, its fields as journal fields."""
    with open(CATALOG, encoding="utf-8") as file:
        entries = re.split(r"^-- ", file.read(), flags=re.MULTILINE)[1:]
    found = {}
    for entry in entries:
        message_id, rest = entry.split("\n", 1)
        body = rest.split("\n\n", 1)[1].strip()
        words = re.sub(r"@FIRSTKEY_(\w+)@", lambda match: "{" + match[1].lower() + "}", body)
        found[message_id] = "\n\n".join(_safe(" ".join(part.split())) for part in words.split("\n\n"))
    return found


def _safe(text: str) -> str:
    """Text that Markdown leaves as it is: no markup by accident, but for code between backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"
