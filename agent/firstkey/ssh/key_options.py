"""The options before a key (sshd(8)), as sshd reads them: which it takes, and what they mean for a login.

They decide nothing about what is written: a line with the key is the key's, whatever stands before it. They
tell a person why sshd takes no key by the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from firstkey import NamedTuple


class KeyOptions(NamedTuple):
    """What the options before a key mean for a login with it.

    `flaw` is the first thing that sshd does not take: it passes over the whole line. A newer sshd may know
    more options than these. `sources` (from=) are as `host_matches` reads them; `expires` is in seconds since
    the epoch; `command` runs whatever the client asks for. `is_authority`: the key signs certificates, and
    lets nobody in itself. sshd refuses a plain key with `principals`.
    """

    command: str | None = None
    sources: str | None = None
    principals: str | None = None
    expires: float | None = None
    has_terminal: bool = True
    is_authority: bool = False
    flaw: str | None = None


def parse_options(options: str) -> KeyOptions:
    """The meaning of the options, as far as they can be told apart."""
    found: dict[str, Any] = {}
    for place, name, value in _each(options):
        is_known = name in _FLAGS
        if value is not None:
            is_known = name in _VALUES and _KEPT.get(name) not in found and bool(_VALUES[name](value))
        if not is_known:
            found.setdefault("flaw", options[place : place + 40].split(",", 1)[0])
        if value is None and name in ("restrict", "no-pty", "pty"):
            found["has_terminal"] = name == "pty"
        elif value is None and name == "cert-authority":
            found["is_authority"] = True
        elif is_known and value is not None and name == "expiry-time":
            found["expires"] = min(moment(value), found.get("expires", moment(value)))
        elif value is not None and name in _KEPT:
            found.setdefault(_KEPT[name], value)
    return KeyOptions(**found)


def useless(options: str) -> str | None:
    """The first thing in the options of a plain key for which sshd takes no key by the line."""
    found = parse_options(options)
    return found.flaw or (None if found.principals is None else f'principals="{found.principals:.25}"')


# Inside the quotes only \" is an escape (misc.c: opt_dequote).
_OPTION = re.compile(r'([^=,"]+)(="(?:\\"|[^"\\]|\\(?!"))*")?(?=,|\Z)')
_NO_COMMA = re.compile(r"[^,]")


def _each(options: str) -> Iterator[tuple[int, str, str | None]]:
    """Where each option begins, its name in lower case (none of a broken one, the last then), and its value.

    A comma too many is no matter to sshd.
    """
    # By their places: to cut off option after option would copy a line as often as it has options.
    end = 0
    while begin := _NO_COMMA.search(options, end):
        match = _OPTION.match(options, begin.start())
        if match is None:
            yield begin.start(), "", None
            return
        end = match.end()
        yield begin.start(), match[1].lower(), match[2] and match[2][2:-1].replace('\\"', '"')


# --- the values of options ------------------------------------------------------------------------

_VARIABLE = re.compile(r"[A-Za-z0-9_]+=.*", re.DOTALL)
_MOMENT = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z|UTC)?", re.ASCII | re.IGNORECASE)
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


def _anything(_value: str) -> bool:
    return True


# auth-options.c: sshauthopt_parse. They have no case for sshd; here they are in lower case.
_SWITCHES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding", "touch-required",
             "verify-required")  # fmt: skip
_FLAGS = {"restrict", "cert-authority", *_SWITCHES, *(f"no-{name}" for name in _SWITCHES)}
_VALUES: dict[str, Callable[[str], object]] = {
    "command": _anything,
    "environment": _VARIABLE.fullmatch,
    "expiry-time": _is_time,
    "from": _anything,
    "permitlisten": _is_listener,
    "permitopen": _is_place,
    "principals": _anything,
    "tunnel": _is_tunnel,
}
"""What sshd takes as the value of an option."""
_KEPT = {"command": "command", "from": "sources", "principals": "principals"}
"""The options that sshd takes only once."""
