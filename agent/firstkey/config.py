"""The configuration: from the files to checked values.

The format is that of systemd's own files (systemd.syntax(7)): comments have lines of their own, a
backslash at the end of a line continues it, sections and keys may repeat.

Nothing in a file is an error here. What is unknown or bad becomes a warning with its file and line, and
the earlier value or the default stands: a typo in an image must not lock its owner out.
"""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, NamedTuple, reasons, settings
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.settings import SECTIONS, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    from firstkey.settings import Files

    _Value = TypeVar("_Value")

# In order of precedence, as systemd's own tools have it (systemd-system.conf(5), the paths in the synopsis).
DIRECTORIES = ("/etc/firstkey", "/run/firstkey", "/usr/local/lib/firstkey", "/usr/lib/firstkey")
NAME = "firstkey.conf"
USERS = ("Keys", "Users")

LIMIT = 64 * 1024  # bytes a file; the vendor's, all comments, has a tenth of that
_MAXIMUM_WARNINGS = 100  # a file that is something else altogether must not flood the journal


class Imds(NamedTuple):
    """How the metadata service is asked. Times in seconds; version is `auto`, `2` or `1`."""

    endpoints: tuple[str, ...]
    version: str
    token_ttl: int
    request_timeout: float
    boot_timeout: float


class Keys(NamedTuple):
    """What becomes of the launch keys. `revoke` is `previous-instance` or `never`."""

    users: tuple[str, ...]
    revoke: str
    redirect_root: bool

    @property
    def holders(self) -> tuple[str, ...]:
        """The users, and root where its copy of the keys only redirects."""
        return tuple(dict.fromkeys((*self.users, "root"))) if self.redirect_root else self.users


class HostKeys(NamedTuple):
    """Which host keys there are. `types` is `("auto",)` or types; `regenerate` as the settings table says.

    `background` are the types that sshd does not wait for, if there is one of another type.
    """

    types: tuple[str, ...]
    background: tuple[str, ...]
    regenerate: str
    console: bool


class User(NamedTuple):
    """One user's settings. `sudo` and `authorized_keys_file` (sshd's pattern) may be empty: not set."""

    name: str
    create: bool
    groups: tuple[str, ...]
    shell: str
    sudo: str
    authorized_keys_file: str


class Image(NamedTuple):
    """What the image says about itself; each may be empty."""

    publisher: str
    contact: str
    description: str


class Source(NamedTuple):
    """One configuration file: its path, for messages, and what is in it."""

    path: str
    text: bytes


class Origin(NamedTuple):
    """Where something was said: the file and the line, counted from 1 (0: the file as a whole)."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


Section = tuple[Origin, str, list[tuple[Origin, str, str]]]
"""Where a section stands, its name, and what is assigned under it: where, key and value, not yet judged."""


class ConfigWarning(NamedTuple):
    """Something in a file that does not count, and what stands instead."""

    origin: Origin
    detail: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.detail}"

    @property
    def refusal(self) -> Refusal:
        """The same for the report."""
        return Refusal(reasons.CONFIG_INVALID, str(self))


class Config(NamedTuple):
    """All settings. `origins` has the lines that set each: all that a list adds up from, or one."""

    imds: Imds
    keys: Keys
    host_keys: HostKeys
    users: Mapping[str, User]
    image: Image
    warnings: tuple[ConfigWarning, ...]
    origins: Mapping[tuple[str, str], tuple[Origin, ...]]

    def user(self, name: str) -> User:
        """The settings of this user: its own section's, or the defaults."""
        return self.users.get(name) or _built(User, f"User {name}", {}, name=name)


def load(files: Files, places: tuple[str, ...] = DIRECTORIES) -> Config:
    """The configuration in these directories of a system. A file that cannot be read is a warning."""
    warnings: list[ConfigWarning] = []

    def content(path: str) -> bytes | None:
        try:
            return files.read(path, limit=LIMIT)
        except FirstkeyError as error:
            warnings.append(ConfigWarning(Origin(path, 0), f"the file is ignored: {error.message}"))
            return b""  # It is there, so it masks its namesakes all the same.

    def names(directory: str) -> list[str]:
        try:
            return files.names(directory)
        except FirstkeyError as error:
            warnings.append(ConfigWarning(Origin(directory, 0), f"its files are ignored: {error.message}"))
            return []

    found = settings.layers(content, names, places, NAME)
    return read([Source(*each) for each in found], warnings=warnings)


def read(sources: Sequence[Source], *, warnings: Sequence[ConfigWarning] = ()) -> Config:
    """The configuration that these files add up to, later ones over earlier ones; it never raises.

    `warnings` are those of finding the files: they come first among the result's.
    """
    reader = _Reader(warnings)
    for source in sources:
        reader.read(source)
    reader.check_users()
    values = reader.values
    return Config(
        imds=_built(Imds, "IMDS", values),
        keys=_built(Keys, "Keys", values),
        host_keys=_built(HostKeys, "HostKeys", values),
        users={name: _built(User, f"User {name}", values, name=name) for name in reader.users},
        image=_built(Image, "Image", values),
        warnings=tuple(reader.warnings),
        origins=reader.origins,
    )


def _built(
    kind: Callable[..., _Value], section: str, values: Mapping[tuple[str, str], Any], **given: str
) -> _Value:
    """The section's value, each of its fields as set or else as the table's default has it."""
    table = SECTIONS[section.partition(" ")[0]].values()
    fields = {setting.field: values.get((section, setting.key), setting.default) for setting in table}
    return kind(**given, **fields)


class _Reader:
    """Takes one file after the other, later ones over earlier ones.

    `values` and `origins` hold what was set and by which lines, by section (`Keys`, `User deploy`) and key;
    `users` has the place of each user's first section.
    """

    def __init__(self, warnings: Iterable[ConfigWarning] = ()) -> None:
        self.warnings = list(warnings)
        self.values: dict[tuple[str, str], Any] = {}
        self.origins: dict[tuple[str, str], tuple[Origin, ...]] = {}
        self.users: dict[str, Origin] = {}

    def _warn(self, origin: Origin, detail: str) -> None:
        if len(self.warnings) == _MAXIMUM_WARNINGS:
            detail = "there are more mistakes from here on than are listed"
        if len(self.warnings) <= _MAXIMUM_WARNINGS:
            self.warnings.append(ConfigWarning(origin, detail))

    def read(self, source: Source) -> None:
        """Put what the file says over what stands so far."""
        for origin, name, assignments in sections(source, self._warn):
            section = self._section(name, origin)
            for where, key, text in assignments if section else ():
                self._assign(str(section), key, text, where)

    def check_users(self) -> None:
        """Warn of users' sections without effect: to be called after the last file."""
        users = self.values.get(USERS, SECTIONS["Keys"]["Users"].default)
        if USERS in self.origins and USERS not in self.values:
            self._warn(self.origins[USERS][-1], f"Users= is empty; Users={' '.join(users)} stands")
        for name, origin in self.users.items():
            if name not in users:
                self._warn(origin, f"[User {name}] has no effect: Users= in [Keys] does not name {name}")
        if self.values.pop(("User root", "Create"), False):
            (origin,) = self.origins.pop(("User root", "Create"))
            self._warn(origin, "Create=yes is ignored in [User root]: root exists already; Create=no stands")

    def _section(self, name: str, origin: Origin) -> str | None:
        """The section's name with single blanks, or None, and a warning, where there is no such section."""
        kind, *names = name.split()
        if kind not in SECTIONS or (names and kind != "User"):
            known = " ".join(f"[{each}]" for each in SECTIONS).replace("[User]", "[User NAME]")
            self._warn(origin, f"there is no section {_quoted(name)} (there are {known}); it is ignored")
            return None
        if kind != "User":
            return kind
        try:
            user = settings.account_name(" ".join(names))
        except ValueError:
            detail = f"[User NAME] needs the name of one account, not {_quoted(' '.join(names))}"
            self._warn(origin, f"{detail}; the section is ignored")
            return None
        self.users.setdefault(user, origin)
        return f"User {user}"

    def _assign(self, section: str, key: str, text: str, origin: Origin) -> None:
        """Put one value over what stands; a list grows, and has each line that it came of."""
        kind = section.partition(" ")[0]
        setting = SECTIONS[kind].get(key)
        if not setting:
            homes = [name for name, known in SECTIONS.items() if key in known]
            hint = f"it belongs in [{homes[0]}]" if homes else f"there are {' '.join(SECTIONS[kind])}"
            self._warn(origin, f"[{section}] has no setting {_quoted(key)} ({hint}); the line is ignored")
            return
        place = (section, key)
        if text in setting.resets:
            self.values.pop(place, None)
            if setting.may_be_empty:
                self.values[place] = ()
            self.origins[place] = (origin,)
            return
        good, bad = _parsed(setting, text)
        if good and setting.is_list:
            earlier = self.values.get(place, ())
            self.values[place] = tuple(dict.fromkeys((*earlier, *good)))
            self.origins[place] = (*(self.origins[place] if earlier else ()), origin)
        elif good:
            self.values[place], self.origins[place] = good[0], (origin,)
        if bad:
            words = " ".join(bad)
            comment = " (a comment needs a line of its own)" if re.search(r"(?<!\S)[#;]", words) else ""
            stands = _shortened(settings.text_of(self.values.get(place, setting.default)))
            takes = f"{key}= takes {setting.accepts}, not {_quoted(words)}{comment}"
            self._warn(origin, f"{takes}; {key}={stands} stands")


def _parsed(setting: Setting, text: str) -> tuple[list[Any], list[str]]:
    """The good values in the text and the words that are none; only a list has more than one word."""
    words = [text]
    if setting.is_list:
        # What looks like a comment behind the words is one word, lest it name users.
        first, *comment = re.split(r"(?<!\S)(?=[#;])", text, maxsplit=1)
        words = [*first.split(), *comment]
    good, bad = [], []
    for word in words:
        try:
            good.append(setting.parse(word))
        except ValueError:  # noqa: PERF203 - one bad word must not spoil the good ones beside it
            bad.append(word)
    return good, bad


def sections(source: Source, warn: Callable[[Origin, str], None]) -> list[Section]:
    """The sections of one file in their order; `warn` gets every line that cannot be read."""
    found: list[Section] = []
    # Whose settings follow a broken header is not known: they must not go to the section above.
    is_readable = False
    # Otherwise a backslash too many could swallow a header, and so hand the settings of one user to another.
    for number, raw in settings.lines(source.text, up_to_headers=True):
        origin = Origin(source.path, number)
        line, fault = _checked(raw)
        if raw.startswith(b"["):
            is_readable = not fault
        elif not is_readable:
            fault = fault or f"{_quoted(line)} is in no section that can be read"
        if fault:
            warn(origin, f"{fault}; the line is ignored")
        elif raw.startswith(b"["):
            found.append((origin, line[1:-1].strip(), []))
        else:
            key, _, value = line.partition("=")
            found[-1][2].append((origin, key.rstrip(), value.strip()))
    return found


def _checked(raw: bytes) -> tuple[str, str]:
    """The line as text, and what keeps it from being `[SECTION]` or `KEY=VALUE`, if anything."""
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        return "", "the line is not UTF-8"
    if not line.replace("\t", " ").isprintable():
        return line, f"{_quoted(line)} has characters that cannot be printed"
    if re.fullmatch(r"\[\s*[^\[\]\s][^\[\]]*\]|[^\s=\[][^\s=]*\s*=.*", line):
        return line, ""
    return line, f"{_quoted(line)} is neither [SECTION] nor KEY=VALUE"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _quoted(text: str) -> str:
    """For a message: shortened, in quotes, anything unprintable spelled out."""
    return repr(_shortened(text))
