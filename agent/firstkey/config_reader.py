"""Sections and assignments -> what each setting comes to, by the table in `settings`.

What is unknown or bad is told and changes nothing: the earlier value or the default stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from firstkey import reasons, settings
from firstkey.config_format import Assignment, Origin, Section, quoted, shortened
from firstkey.named_tuple import NamedTuple
from firstkey.reasons import Refusal
from firstkey.settings import SECTIONS, Setting

# A file that is something else altogether must not flood the journal.
_MAXIMUM_WARNINGS = 100


class ConfigWarning(NamedTuple):
    """Something in a file that does not count, and what stands instead. Line 0: the file as a whole."""

    path: str
    line: int
    detail: str

    def __str__(self) -> str:
        return f"{Origin(self.path, self.line)}: {self.detail}"

    @property
    def refusal(self) -> Refusal:
        """The same for the report."""
        return Refusal(reasons.CONFIG_INVALID, str(self))


class Reader:
    """Takes one section after the other, later ones over earlier ones.

    `values` and `origins` hold what was set and by which lines, by section (`Keys`, `User deploy`) and key;
    `users` tells of each user with a section of their own where the first one stands.
    """

    def __init__(self, warnings: Iterable[ConfigWarning] = ()) -> None:
        self.warnings = list(warnings)
        self.values: dict[tuple[str, str], Any] = {}
        self.origins: dict[tuple[str, str], tuple[Origin, ...]] = {}
        self.users: dict[str, Origin] = {}

    def warn(self, origin: Origin, detail: str) -> None:
        """Keeps the warning, unless there are too many already."""
        if len(self.warnings) < _MAXIMUM_WARNINGS:
            self.warnings.append(ConfigWarning(*origin, detail))
        elif len(self.warnings) == _MAXIMUM_WARNINGS:
            self.warnings.append(
                ConfigWarning(*origin, "there are more mistakes from here on than are listed")
            )

    def take(self, section: Section) -> None:
        """Puts the section's assignments over what stands so far."""
        name = self._name(section)
        if name is None:
            return
        for assignment in section.assignments:
            setting = SECTIONS[name.partition(" ")[0]].get(assignment.key)
            if setting:
                self._assign((name, setting.key), setting, assignment)
            else:
                self.warn(assignment.origin, _unknown_key(name, assignment.key))

    def check_users(self) -> None:
        """Tells of users' sections that do nothing: to be called after the last section."""
        users = self.values.get(("Keys", "Users"), SECTIONS["Keys"]["Users"].default)
        for name, origin in self.users.items():
            if name not in users:
                self.warn(origin, f"[User {name}] has no effect: Users= in [Keys] does not name {name}")
        if self.values.pop(("User root", "Create"), False):
            (origin,) = self.origins.pop(("User root", "Create"))
            self.warn(origin, "Create=yes is ignored in [User root]: root exists already; Create=no stands")

    def _name(self, section: Section) -> str | None:
        """The section's name with single blanks, or None, and a warning, where there is no such section."""
        kind, *names = section.name.split()
        if kind not in SECTIONS or (names and kind != "User"):
            self.warn(section.origin, _unknown_section(kind, section.name))
            return None
        if kind != "User":
            return kind
        try:
            user = settings.account_name(" ".join(names))
        except ValueError:
            detail = f"[User NAME] needs the name of one account, not {quoted(' '.join(names))}"
            self.warn(section.origin, f"{detail}; the section is ignored")
            return None
        self.users.setdefault(user, section.origin)
        return f"User {user}"

    def _assign(self, place: tuple[str, str], setting: Setting, assignment: Assignment) -> None:
        if assignment.value in setting.resets:
            self.values.pop(place, None)
            self.origins[place] = (assignment.origin,)
            return
        if setting.may_be_empty and not assignment.value:
            self.values[place], self.origins[place] = (), (assignment.origin,)
            return
        good, bad = _parsed(setting, assignment.value)
        if good:
            self._put(place, setting, good, assignment.origin)
        if bad:
            self.warn(assignment.origin, self._bad_value(place, setting, bad))

    def _put(self, place: tuple[str, str], setting: Setting, good: list[Any], origin: Origin) -> None:
        """A list grows, and has each line that it came of; any other value is the last line's."""
        if setting.is_list:
            earlier = self.values.get(place, ())
            self.values[place] = tuple(dict.fromkeys((*earlier, *good)))
            self.origins[place] = (*(self.origins[place] if earlier else ()), origin)
        else:
            self.values[place], self.origins[place] = good[0], (origin,)

    def _bad_value(self, place: tuple[str, str], setting: Setting, bad: list[str]) -> str:
        text = " ".join(bad)
        comment = " (a comment needs a line of its own)" if re.search(r"(?<!\S)[#;]", text) else ""
        stands = shortened(settings.text_of(self.values.get(place, setting.default)))
        takes = f"{setting.key}= takes {setting.accepts}, not {quoted(text)}{comment}"
        return f"{takes}; {setting.key}={stands} stands"


def _unknown_section(kind: str, name: str) -> str:
    meant = _meant(kind, SECTIONS)
    hint = f" (did you mean [{'User NAME' if meant == 'User' else meant}]?)" if meant else ""
    return f"there is no section {quoted(name)}{hint}; it is ignored"


def _unknown_key(name: str, key: str) -> str:
    kind = name.partition(" ")[0]
    meant = _meant(key, SECTIONS[kind])
    homes = [section for section, known in SECTIONS.items() if key in known]
    hint = f" (it belongs in [{homes[0]}])" if homes else f" (did you mean {meant}=?)" if meant else ""
    return f"[{name}] has no setting {quoted(key)}{hint}; the line is ignored"


def _meant(word: str, known: Iterable[str]) -> str | None:
    """Which of the known words this one resembles most, if any."""
    from difflib import get_close_matches

    proper = {name.lower(): name for name in known}
    close = get_close_matches(word[:40].lower(), proper, n=1)
    return proper[close[0]] if close else None


def _parsed(setting: Setting, text: str) -> tuple[list[Any], list[str]]:
    """The good values in the text and the words that are none; only a list has more than one word."""
    good, bad = [], []
    for word in _words(text) if setting.is_list else [text]:
        try:
            good.append(setting.parse(word))
        except ValueError:  # noqa: PERF203 - one bad word must not spoil the good ones beside it
            bad.append(word)
    return good, bad


def _words(text: str) -> list[str]:
    """The words of a list. What looks like a comment behind them is one word, lest it name users."""
    words, *comment = re.split(r"(?<!\S)(?=[#;])", text, maxsplit=1)
    return [*words.split(), *comment]
