"""The settings: one table of all there are, and how the text of each is read.

Everything that names a setting is held to this table: defaults, `firstkey config`, manual and shipped file
(packaging/firstkey.conf), whose comments say what each is for.

And the form that this file shares with systemd's own: which files and drop-ins count, and what a line is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial

from firstkey import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol, TypeVar

    _Value = TypeVar("_Value")
    Parser = Callable[[str], Any]
    Read = Callable[[str], bytes | None]
    Names = Callable[[str], list[str]]

    class Files(Protocol):
        """The files of a system; `system.tree.Tree` has them."""

        def read(self, path: str, *, limit: int) -> bytes | None:
            """What is in the file; None where there is none, nothing for a link to /dev/null."""

        def names(self, path: str) -> list[str]:
            """The names in the directory, none where it is absent."""


# poll(2) takes its time limit as milliseconds in an int, so a time must stay below 24 days.
_LONGEST_TIME = 7 * 86400.0

# systemd.time(7), "Parsing Time Spans". Months and years, which it has besides, are too long for any setting.
_SECONDS = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 7 * 86400.0),
}
_BOOLEANS = {
    **dict.fromkeys(("1", "yes", "y", "true", "t", "on"), True),
    **dict.fromkeys(("0", "no", "n", "false", "f", "off"), False),
}


class Setting(NamedTuple):
    """One setting.

    `section` is `User` for those of `[User NAME]`; `field` is its name in the values of `config`. A default
    that is a tuple makes it a list, and `parse` then reads one item of it. `parse` raises ValueError where
    the text is not what `accepts` says.
    """

    section: str
    key: str
    field: str
    default: Any
    parse: Parser
    accepts: str
    may_be_empty: bool = False
    """Of a list: an empty text means no item, and not the default."""

    @property
    def is_list(self) -> bool:
        """Whether assignments add up to a list of words."""
        return isinstance(self.default, tuple)

    @property
    def resets(self) -> tuple[str, ...]:
        """The texts that bring the default back: nothing, and a list's keyword for its default."""
        return ("", "auto") if self.default == ("auto",) else ("",)


def _checked(good: object, value: _Value) -> _Value:
    if not good:
        raise ValueError
    return value


_TIME = r"([0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)\s*([a-zA-Zµμ]*)"


def seconds(text: str) -> float:
    """A time span in seconds: `30`, `5s`, `1h 30min`, `500ms`; the units are systemd.time(7)'s."""
    parts = re.findall(_TIME, text)
    leftover = re.sub(_TIME, "", text).strip()
    _checked(parts and not leftover and all(unit in _SECONDS for _, unit in parts), text)
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 6)


def _time(*, least: float) -> Parser:
    def parse(text: str) -> float:
        value = seconds(text)
        return _checked(least <= value <= _LONGEST_TIME, value)

    return parse


def _token_ttl(text: str) -> int:
    value = seconds(text)
    return int(_checked(1 <= value <= 21600 and value.is_integer(), value))


def boolean(text: str) -> bool:
    """A truth value in one of the words that systemd takes, in any case."""
    return _checked(text.lower() in _BOOLEANS, _BOOLEANS.get(text.lower(), False))


def _one_of(*choices: str) -> tuple[Parser, str]:
    """What reads a setting with these values, and what the setting accepts in words."""
    return lambda text: _checked(text in choices, text), f"{', '.join(choices[:-1])} or {choices[-1]}"


def account_name(text: str) -> str:
    """A name that a user or a group can have (useradd(8)): never a number, an option or a path.

    `ALL` is refused although useradd may take it: in sudoers(5) it means all users.
    """
    return _checked(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?", text) and text != "ALL", text)


ENDPOINT = r"http://(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)(%[A-Za-z0-9_.-]{1,15})?\])(?::([0-9]{1,5}))?/?"
"""An endpoint's parts: IPv4 or IPv6 address, `%ZONE`, port."""


def endpoint(text: str) -> str:
    """An address of the metadata service, `http://IP[:PORT]`: never a name that must be looked up.

    A link-local one may name its interface: `http://[fe80::a9fe:a9fe%eth0]` (RFC 4007, section 11).
    """
    import _socket  # the C module: `socket` costs a run with nothing to do more than all its own modules

    parts = re.fullmatch(ENDPOINT, text)
    if not parts:
        raise ValueError
    v4, v6, zone, port = parts.groups()
    _checked(not zone or re.match("(?i)fe[89ab][0-9a-f]:", v6), text)
    try:
        _socket.inet_pton(_socket.AF_INET if v4 else _socket.AF_INET6, v4 or v6)
    except OSError as error:
        raise ValueError from error
    return _checked(port is None or 1 <= int(port) <= 65535, text.rstrip("/"))


def _line(text: str) -> str:
    # A backslash at the end would continue the line in the sudoers file.
    return _checked(text.isprintable() and not text.endswith("\\"), text)


def _shell(text: str) -> str:
    # A colon would end the field in passwd(5).
    return _checked(text.isprintable() and re.fullmatch(r"/[^\s:]*[^\s:/]", text), text)


def _authorized_keys_file(text: str) -> str:
    """A pattern as sshd_config(5) has it; `~/` is what people write for its `%h/`."""
    pattern = re.sub(r"^~/", "%h/", text)
    good = re.fullmatch(r"(?:/|%h/)(?:[^\s%]|%[%huU])*(?<!/)", pattern)
    return _checked(good and text.isprintable(), pattern)


_SPAN = "a time such as 30, 5s or 2min"
_TEXT = (_line, "one line of text")

SETTINGS = (
    Setting("IMDS", "Endpoints", "endpoints", default=("http://169.254.169.254", "http://[fd00:ec2::254]"),
        parse=endpoint, accepts="http://IP or http://IP:PORT with a literal address"),
    Setting("IMDS", "Version", "version", "auto", *_one_of("auto", "2", "1")),
    Setting("IMDS", "TokenTTLSec", "token_ttl", default=21600,
        parse=_token_ttl, accepts="a time in whole seconds from 1 to 21600 (6 h)"),
    Setting("IMDS", "RequestTimeoutSec", "request_timeout", default=2.0,
        parse=_time(least=1e-3), accepts=f"{_SPAN}, from 1ms to 1 week"),
    Setting("IMDS", "BootTimeoutSec", "boot_timeout", default=30.0,
        parse=_time(least=0), accepts=f"{_SPAN}, from 0 to 1 week"),
    Setting("Keys", "Users", "users", default=("root",),
        parse=account_name, accepts="names of accounts"),
    Setting("Keys", "Revoke", "revoke", "previous-instance", *_one_of("previous-instance", "never")),
    Setting("Keys", "RedirectRoot", "redirect_root", default=False,
        parse=boolean, accepts="yes or no"),
    Setting("HostKeys", "Types", "types", default=("auto",),
        parse=_one_of("rsa", "ecdsa", "ed25519")[0], accepts="auto alone, or some of rsa, ecdsa and ed25519"),
    Setting("HostKeys", "Background", "background", default=("rsa",),
        parse=_one_of("rsa", "ecdsa", "ed25519")[0], accepts="some of rsa, ecdsa and ed25519, or nothing",
        may_be_empty=True),
    Setting("HostKeys", "Regenerate", "regenerate", "clones",
        *_one_of("clones", "missing", "new-instance", "never")),
    Setting("HostKeys", "Console", "console", default=True,
        parse=boolean, accepts="yes or no"),
    Setting("User", "Create", "create", default=False,
        parse=boolean, accepts="yes or no"),
    Setting("User", "Groups", "groups", default=(),
        parse=account_name, accepts="names of groups"),
    Setting("User", "Shell", "shell", default="/bin/bash",
        parse=_shell, accepts="an absolute path without blanks or colons"),
    Setting("User", "Sudo", "sudo", default="",
        parse=_line, accepts="the part of a sudoers line behind the user's name, on one line"),
    Setting("User", "AuthorizedKeysFile", "authorized_keys_file", default="",
        parse=_authorized_keys_file,
        accepts="a path that starts with / or ~/, has no blanks and no tokens but %h, %u, %U and %%"),
    Setting("Image", "Publisher", "publisher", "", *_TEXT),
    Setting("Image", "Contact", "contact", "", *_TEXT),
    Setting("Image", "Description", "description", "", *_TEXT),
)  # fmt: skip

SECTIONS: dict[str, dict[str, Setting]] = {}
for _setting in SETTINGS:
    SECTIONS.setdefault(_setting.section, {})[_setting.key] = _setting


def text_of(value: object) -> str:
    """A setting's value as it would stand in the file: reading it again gives the same value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, (int, float)):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


# --- the form of systemd's files ------------------------------------------------------------------

ADMINISTRATOR = "/etc/systemd/system"
# systemd.unit(5), UNIT FILE LOAD PATH; /lib is /usr/lib except on systems that are older.
PLACES = (ADMINISTRATOR, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
UNIT_LIMIT = 1024 * 1024


def layers(read: Read, listed: Names, places: tuple[str, ...], *names: str) -> list[tuple[str, bytes]]:
    """The first file with one of the names that is in one of the places, then its drop-ins: path and content.

    One that is empty masks all that come after it (systemd.unit(5)).
    """
    mains = ((f"{place}/{name}", read(f"{place}/{name}")) for name in names for place in places)
    found = [next((main for main in mains if main[1] is not None), ("", None))]
    drop_ins = by_name(listed, (f"{place}/{name}.d" for place in places for name in names))
    found += [(path, read(path)) for path in drop_ins]
    return [(path, content) for path, content in found if content is not None]


def by_name(listed: Names, directories: Iterable[str], ending: str = ".conf") -> list[str]:
    """The files with that ending, in the order of their names; the first directory's masks its namesakes."""
    chosen: dict[str, str] = {}
    for directory in directories:
        for name in listed(directory):
            if name.endswith(ending) and not name.startswith("."):
                chosen.setdefault(name, f"{directory}/{name}")
    return [path for _, path in sorted(chosen.items())]


def lines(text: bytes, *, up_to_headers: bool = False) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, continued ones joined, each with the number of its first line.

    Comments between the parts of a continued line are left out (systemd.syntax(7)). `up_to_headers`: unlike
    in systemd, a line that starts with `[` is always a header.
    """
    start, goes_on = 0, False
    held: list[bytes] = []
    text = re.sub(rb"(?m)^\xef\xbb\xbf", b"", text, count=1)  # the byte order mark, as systemd leaves it out
    # Two lines that are in no file: the first one ends a line that goes on, and with the other it is out.
    for number, raw in enumerate((*text.split(b"\n"), b"", b""), start=1):
        piece = raw.rstrip(b"\r").lstrip(b" \t")
        if piece.startswith((b"#", b";")):
            continue
        if held and (not goes_on or (up_to_headers and piece.startswith(b"["))):
            yield start, b"".join(held).rstrip(b" \t")
            held = []
        start = start if held else number
        # A backslash that is not itself escaped by another.
        goes_on = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1
        piece = piece[:-1] + b" " if goes_on else piece
        if held or piece.strip(b" \t"):
            held.append(piece)


def assignments(files: Files, *names: str) -> Iterator[tuple[str, str, str]]:
    """Each section, key and value of a unit (of any of these names) and its drop-ins, in their order.

    Raises FirstkeyError where one of the files cannot be read.
    """
    for _, content in layers(partial(files.read, limit=UNIT_LIMIT), files.names, PLACES, *names):
        section = ""
        for _, raw in lines(content):
            line = raw.decode("utf-8", "surrogateescape")
            key, equals, value = line.partition("=")
            if line.startswith("["):
                section = line.strip("[]")
            elif equals:
                yield section, key.rstrip(), value.strip()


def unit_settings(files: Files, *names: str) -> defaultdict[tuple[str, str], list[str]]:
    """What each setting of a unit comes to, by section and key; an empty value takes back those before it."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for section, key, value in assignments(files, *names):
        found[section, key].append(value)
        if not value:
            found[section, key].clear()
    return found
