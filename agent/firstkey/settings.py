"""The settings: one table of all there are, and how the text of each is read.

Everything that names a setting is held to this table: defaults, `firstkey config`, manual and shipped file
(packaging/firstkey.conf), whose comments say what each is for.
"""

from __future__ import annotations

import re

from firstkey import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _Value = TypeVar("_Value")
    Parser = Callable[[str], Any]

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
        if self.may_be_empty:
            return ()
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

    `ALL` is refused although useradd may take it: in sudoers(5) it means everybody.
    """
    good = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?", text) and text != "ALL"
    return _checked(good, text)


ENDPOINT = re.compile(
    r"http://(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)(%[A-Za-z0-9_.-]{1,15})?\])(?::([0-9]{1,5}))?/?"
)
"""An endpoint's parts: IPv4 or IPv6 address, `%ZONE`, port."""


def endpoint(text: str) -> str:
    """An address of the metadata service, `http://IP[:PORT]`: never a name that must be looked up.

    A link-local one may name its interface: `http://[fe80::a9fe:a9fe%eth0]` (RFC 4007, section 11).
    """
    import _socket  # the C module: `socket` costs a run with nothing to do more than all its own modules

    parts = ENDPOINT.fullmatch(text)
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
