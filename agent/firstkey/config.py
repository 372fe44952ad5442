"""The configuration: from the files to checked values.

Nothing in a file is an error here. What is unknown or bad becomes a warning with its file and line, and
the earlier value or the default stands: a typo in an image must not lock its owner out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from firstkey import settings
from firstkey.config_format import Origin, Source, sections
from firstkey.config_reader import ConfigWarning, Reader
from firstkey.errors import ConfigError, FirstkeyError
from firstkey.named_tuple import NamedTuple

__all__ = [
    "Config",
    "ConfigWarning",
    "Effective",
    "Files",
    "HostKeys",
    "Image",
    "Imds",
    "Keys",
    "Origin",
    "Source",
    "User",
    "describe",
    "load",
    "read",
    "select",
]

# In order of precedence, as systemd's own tools have it (systemd-system.conf(5), the paths in the synopsis).
DIRECTORIES = ("/etc/firstkey", "/run/firstkey", "/usr/local/lib/firstkey", "/usr/lib/firstkey")
NAME = "firstkey.conf"

_LIMIT = 64 * 1024  # bytes a file; the vendor's, all comments, has a tenth of that

_Value = TypeVar("_Value")


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


class Config(NamedTuple):
    """All settings.

    `origins` tells of each that a file set, by section and key, which lines did: those that a list adds up
    from, or one. `sources` are the files that were read, in that order.
    """

    imds: Imds
    keys: Keys
    host_keys: HostKeys
    users: Mapping[str, User]
    image: Image
    warnings: tuple[ConfigWarning, ...]
    origins: Mapping[tuple[str, str], tuple[Origin, ...]]
    sources: tuple[str, ...]

    def user(self, name: str) -> User:
        """The settings of this user: its own section's, or the defaults."""
        return self.users.get(name) or _built(User, f"User {name}", {}, name=name)


class Effective(NamedTuple):
    """One setting as it stands, in words: `origins` is empty where no file mentions it."""

    section: str
    key: str
    value: str
    default: str
    origins: tuple[Origin, ...]


class Files(Protocol):
    """The files that `load` needs; `system.files.Tree` has them."""

    def read(self, path: str, *, limit: int) -> bytes | None:
        """What is in the file; None where there is none, nothing for a link to /dev/null."""

    def names(self, path: str) -> list[str]:
        """The names in the directory, none where it is absent."""


def load(files: Files, *, explicit: str | None = None) -> Config:
    """The configuration of this system, or of the one file that `explicit` names, drop-ins left out.

    Raises ConfigError where `explicit` cannot be read. Any other file that cannot be read is a warning.
    """
    if explicit is not None:
        return read([_named(files, explicit)])
    warnings: list[ConfigWarning] = []
    mains = (_found(files, f"{directory}/{NAME}", warnings) for directory in DIRECTORIES)
    main = next((source for source in mains if source), None)
    drop_ins = [_found(files, path, warnings) for path in select(_listing(files, warnings))]
    return read([source for source in (main, *drop_ins) if source], warnings=warnings)


def select(listing: Mapping[str, Sequence[str]]) -> list[str]:
    """The drop-ins that count, in the order in which they are read, given the names in each directory.

    The directories come in order of precedence. As systemd has it, files are sorted by name whatever their
    directory, and a name in an earlier directory masks the same name in a later one (an empty file or a link
    to /dev/null does nothing but that).
    """
    chosen: dict[str, str] = {}
    for directory, names in listing.items():
        for name in names:
            if name.endswith(".conf") and not name.startswith("."):
                chosen.setdefault(name, f"{directory}/{name}")
    return [chosen[name] for name in sorted(chosen)]


def read(sources: Sequence[Source], *, warnings: Sequence[ConfigWarning] = ()) -> Config:
    """The configuration that these files add up to, later ones over earlier ones; it never raises.

    `warnings` are those of finding the files: they come first among the result's.
    """
    reader = Reader(warnings)
    for source in sources:
        for section in sections(source, reader.warn):
            reader.take(section)
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
        sources=tuple(source.path for source in sources),
    )


def describe(config: Config) -> list[Effective]:
    """Every setting with the value that holds, its default and where it was set, in the table's order.

    A `[User NAME]` section is there for each of the configured users, whether a file has it or not.
    """
    users = dict.fromkeys((*config.keys.users, *config.users))
    values: list[tuple[str, tuple[Any, ...]]] = [
        ("IMDS", config.imds),
        ("Keys", config.keys),
        ("HostKeys", config.host_keys),
        *((f"User {name}", config.user(name)) for name in users),
        ("Image", config.image),
    ]
    return [row for section, value in values for row in _rows(config, section, value)]


def _rows(config: Config, section: str, value: tuple[Any, ...]) -> Iterator[Effective]:
    for key, setting in settings.SECTIONS[section.partition(" ")[0]].items():
        text = settings.text_of(getattr(value, setting.field))
        origins = config.origins.get((section, key), ())
        yield Effective(section, key, text, settings.text_of(setting.default), origins)


def _built(
    kind: Callable[..., _Value], section: str, values: Mapping[tuple[str, str], Any], **given: str
) -> _Value:
    """The section's value, each of its fields as set or else as the table's default has it."""
    table = settings.SECTIONS[section.partition(" ")[0]].values()
    fields = {setting.field: values.get((section, setting.key), setting.default) for setting in table}
    return kind(**given, **fields)


def _named(files: Files, path: str) -> Source:
    hint = "Give --config the path of a file that you can read."
    try:
        text = files.read(path, limit=_LIMIT)
    except FirstkeyError as error:
        raise ConfigError(error.message, hint=hint) from error
    if text is None:
        raise ConfigError(f"{path} does not exist", hint=hint)
    return Source(path, text)


def _found(files: Files, path: str, warnings: list[ConfigWarning]) -> Source | None:
    try:
        text = files.read(path, limit=_LIMIT)
    except FirstkeyError as error:
        warnings.append(ConfigWarning(path, 0, f"the file is ignored: {error.message}"))
        return Source(path, b"")  # It is there, so it masks its namesakes all the same.
    return None if text is None else Source(path, text)


def _listing(files: Files, warnings: list[ConfigWarning]) -> dict[str, list[str]]:
    directories = [f"{above}/{NAME}.d" for above in DIRECTORIES]
    return {directory: _names(files, directory, warnings) for directory in directories}


def _names(files: Files, directory: str, warnings: list[ConfigWarning]) -> list[str]:
    try:
        return files.names(directory)
    except FirstkeyError as error:
        warnings.append(ConfigWarning(directory, 0, f"its files are ignored: {error.message}"))
        return []
