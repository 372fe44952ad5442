"""The options before a key (sshd(8)), as sshd reads them: which it takes, and what they mean for a login.

They decide nothing about what is written: a line with the key is the key's, whatever stands before it. They
tell a person why sshd takes no key by the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from firstkey import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any


class KeyOptions(NamedTuple):
    """What the options before a key mean for a login with it.

    `flaw` is the first thing that sshd does not take: it passes over the whole line. A newer sshd may know
    more options than these. `sources` (from=) are as `host_matches` reads them; `expires` is in seconds since
    the epoch; `command` runs whatever the client asks for. `is_authority`: the key may only sign
    certificates. sshd refuses a plain key with `principals`.
    """

    command: str | None = None
    sources: str | None = None
    principals: str | None = None
    expires: float | None = None
    has_terminal: bool = True
    is_authority: bool = False
    flaw: str | None = None


def parse_options(options: str) -> KeyOptions:
    """The meaning of the options, as far as they can be read."""
    found: dict[str, Any] = {}
    for place, name, value in _each(options):
        if value is None:
            is_known = name in _FLAGS
            if name in ("restrict", "no-pty", "pty"):
                found["has_terminal"] = name == "pty"
            elif name == "cert-authority":
                found["is_authority"] = True
        elif name in _KEPT:
            is_known = _KEPT[name] not in found
            found.setdefault(_KEPT[name], value)
        else:
            is_known = name in _VALUES and bool(_VALUES[name](value))
            if is_known and name == "expiry-time":
                found["expires"] = min(_moment(value), found.get("expires", _moment(value)))
        if not is_known:
            found.setdefault("flaw", options[place : place + 40].split(",", 1)[0])
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
_MOMENT = re.compile(r"(\d{8})(?:(\d{4})(\d{2})?)?(Z|UTC)?", re.ASCII | re.IGNORECASE)
_PLACE = re.compile(r"(?:\[[^]]*\]|(?!\[)[^:/]*)[:/](.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,10}")
_LONGEST_HOST = 1024
_MOST_TUNNELS = 0x7FFFFFFD


def _moment(text: str) -> float:
    """YYYYMMDD[HHMM[SS]][Z] in seconds since the epoch; local time without the Z (sshd(8): expiry-time).

    0 for what is no such time, or is before the epoch.
    """
    import calendar
    import time

    match = _MOMENT.fullmatch(text)
    with suppress(ValueError, OverflowError):
        if match:
            parts = time.strptime(f"{match[1]}{match[2] or '0000'}{match[3] or '00'}", "%Y%m%d%H%M%S")
            return max(0.0, calendar.timegm(parts) if match[4] else time.mktime(parts))
    return 0.0


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


# auth-options.c: sshauthopt_parse. They have no case for sshd; here they are in lower case.
_SWITCHES = ("agent-forwarding", "port-forwarding", "pty", "user-rc", "x11-forwarding", "touch-required",
             "verify-required")  # fmt: skip
_FLAGS = {"restrict", "cert-authority", *_SWITCHES, *(f"no-{name}" for name in _SWITCHES)}
_VALUES: dict[str, Callable[[str], object]] = {
    "environment": _VARIABLE.fullmatch,
    "expiry-time": _moment,
    "permitlisten": _is_listener,
    "permitopen": _is_place,
    "tunnel": _is_tunnel,
}
"""What sshd takes as the value of an option."""
_KEPT = {"command": "command", "from": "sources", "principals": "principals"}
"""The options that sshd takes only once, with any value."""
