"""What keeps sshd from letting somebody in with a key that is there: a shell, options, owners and modes.

Options are those before a key (sshd(8)). StrictModes (sshd_config(5); misc.c: safe_path) means: the file of
keys and each directory above it, up to the home or else the root, must be the user's or root's, and nobody
else may write it. Debian's and Ubuntu's sshd lets a group write in which there is only the user.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator

from firstkey import NamedTuple

NO_SHELLS = frozenset({"nologin", "false", "true", "sync", "shutdown", "halt"})
"""Programs that stand as a shell in passwd(5) so that there is none."""


def is_no_shell(shell: str) -> bool:
    """Whether the program only ends the session."""
    return shell.rpartition("/")[2] in NO_SHELLS


# --- the options before a key ---------------------------------------------------------------------

# auth-options.c: sshauthopt_parse. They have no case for sshd; here they are in lower case.
_FLAGS = frozenset(
    b"restrict cert-authority"
    b" agent-forwarding port-forwarding pty user-rc x11-forwarding touch-required verify-required"
    b" no-agent-forwarding no-port-forwarding no-pty no-user-rc no-x11-forwarding no-touch-required"
    b" no-verify-required".split()
)
_ONCE = frozenset(b"command from principals".split())
_WITH_VALUE = _ONCE.union(b"environment expiry-time permitlisten permitopen tunnel".split())

# Inside the quotes only \" is an escape (misc.c: opt_dequote).
_OPTION = re.compile(rb'([^=,"]+)(="(?:\\"|[^"\\]|\\(?!"))*")?(?=,|\Z)')
_NO_COMMA = re.compile(rb"[^,]")


class Option(NamedTuple):
    """One of the options: where it begins, its name in lower case (none where it is broken) and value."""

    place: int
    name: bytes
    value: str | None = None


def each_option(options: bytes) -> Iterator[Option]:
    """The options one by one, up to a broken one. A comma too many is no matter to sshd."""
    # By their places: to cut off option after option would copy a line as often as it has options.
    end = 0
    while begin := _NO_COMMA.search(options, end):
        match = _OPTION.match(options, begin.start())
        if match is None:
            yield Option(begin.start(), b"")
            return
        text, end = match[2], match.end()
        value = text[2:-1].replace(b'\\"', b'"').decode("utf-8", "surrogateescape") if text else None
        yield Option(begin.start(), match[1].lower(), value)


def is_authority(options: bytes) -> bool:
    """Whether the key behind the options may only sign certificates, and lets nobody in itself."""
    if b"cert-authority" not in options.lower():
        return False
    return any(each.name == b"cert-authority" and each.value is None for each in each_option(options))


def flaw(options: bytes) -> str | None:
    """The first option that sshd does not know, or knows only once, or whose value it does not take."""
    seen: set[bytes] = set()
    for option in each_option(options):
        name, value = option.name, option.value
        if name not in (_FLAGS if value is None else _WITH_VALUE - seen):
            return excerpt(options, option)
        if value is not None and name in _VALUES and not _VALUES[name](value):
            return excerpt(options, option)
        seen |= {name} & _ONCE
    return None


def useless(options: bytes) -> str | None:
    """The first thing in the options of a plain key for which sshd takes no key by the line."""
    principals = (option for option in each_option(options) if option.name == b"principals")
    return flaw(options) or next((excerpt(options, option) for option in principals), None)


def excerpt(options: bytes, option: Option) -> str:
    """How the option begins, for people."""
    return options[option.place : option.place + 40].split(b",")[0].decode("utf-8", "backslashreplace")


# --- the values of options ------------------------------------------------------------------------

_VARIABLE = re.compile(r"[A-Za-z0-9_]+=.*", re.DOTALL)
_MOMENT = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z|UTC)?", re.IGNORECASE)
_PLACE = re.compile(r"(?:\[[^]]*\]|(?!\[)[^:/]*)[:/](.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,10}")
_LONGEST_HOST = 1024
_MOST_TUNNELS = 0x7FFFFFFD


def moment(text: str) -> float:
    """YYYYMMDD[HHMM[SS]][Z] in seconds since the epoch; local time without the Z (sshd(8): expiry-time).

    Raises ValueError.
    """
    import calendar
    import time

    match = _MOMENT.fullmatch(text)
    if not match or (match[3] and not match[2]):
        raise ValueError(f"{text[:40]!a} is no time like 20301231 or 203012311200Z")
    try:
        parts = time.strptime(f"{match[1]}{match[2] or '0000'}{match[3] or '00'}", "%Y%m%d%H%M%S")
        return float(calendar.timegm(parts) if match[4] else time.mktime(parts))
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!a} is no time that there is") from None


def _is_time(value: str) -> bool:
    try:
        return moment(value) > 0
    except ValueError:
        return False


def _is_tunnel(value: str) -> bool:
    """A number of a tun device, or any (misc.c: a2tun)."""
    return value.lower() == "any" or (bool(_NUMBER.fullmatch(value)) and int(value) <= _MOST_TUNNELS)


def _is_place(value: str) -> bool:
    """HOST:PORT, with any port as * (auth-options.c: handle_permit)."""
    match = _PLACE.fullmatch(value)
    return match is not None and match.start(1) <= _LONGEST_HOST and _is_port(match[1])


def _is_listener(value: str) -> bool:
    """The same, or a port alone."""
    return _is_place(value if ":" in value else f"*:{value}")


def _is_port(text: str) -> bool:
    if text == "*":
        return True
    if _NUMBER.fullmatch(text):
        return 0 < int(text) <= 65535
    import socket

    try:
        return bool(text) and socket.getservbyname(text, "tcp") > 0
    except (OSError, ValueError):
        return False


_VALUES: dict[bytes, Callable[[str], object]] = {
    b"environment": _VARIABLE.fullmatch,
    b"expiry-time": _is_time,
    b"permitlisten": _is_listener,
    b"permitopen": _is_place,
    b"tunnel": _is_tunnel,
}
"""What sshd takes as the value of an option."""


# --- owners and modes -----------------------------------------------------------------------------

GROUP_WRITE, OTHERS_WRITE = stat.S_IWGRP, stat.S_IWOTH


class Part(NamedTuple):
    """A file or a directory on its path, links followed."""

    path: str
    uid: int
    gid: int
    mode: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Flaw(NamedTuple):
    """A part for which sshd ignores the file: another user's, or with the write bits of others."""

    part: Part
    is_foreign: bool
    writers: int


def flaws(
    parts: Iterable[Part], owners: Collection[int], home: str | None, *, may_share: Callable[[int], bool]
) -> list[Flaw]:
    """What is wrong, in the order in which sshd walks: the file, then upwards, nothing above the home.

    `owners` are root and the user; `home` is the home's path without links. `may_share` tells of a group
    whether it may write: where sshd is lenient and nobody but the user is in it.
    """
    found = []
    for part in parts:
        writers = part.mode & (GROUP_WRITE | OTHERS_WRITE)
        if writers & GROUP_WRITE and may_share(part.gid):
            writers &= ~GROUP_WRITE
        if writers or part.uid not in owners:
            found.append(Flaw(part, part.uid not in owners, writers))
        if part.path == home:
            break
    return found


def is_lenient(os_release: bytes) -> bool:
    """Whether the system's sshd lets a user's own group write, by os-release(5): Debian's and its kin do."""
    for line in os_release.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        if key in ("ID", "ID_LIKE") and "debian" in value.strip("\"'").split():
            return True
    return False
