"""The values of the options before a key in `authorized_keys`: which of them sshd takes.

Over one that it does not take it passes over the whole line (auth-options.c: sshauthopt_parse).
"""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"[A-Za-z0-9_]+=.*", re.DOTALL)
_MOMENT = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z|UTC)?", re.IGNORECASE)
_PLACE = re.compile(r"(?:\[[^]]*\]|(?!\[)[^:/]*)[:/](.*)", re.DOTALL)
_LONGEST_HOST = 1024
_MOST_TUNNELS = 0x7FFFFFFD
_NUMBER = re.compile(r"[0-9]{1,10}")


def is_taken(name: str, value: str) -> bool:
    """Whether sshd takes the value, without its quotes, for the option, named in lower case."""
    check = _CHECKS.get(name)
    return check is None or check(value)


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


def _is_variable(value: str) -> bool:
    return bool(_VARIABLE.fullmatch(value))


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


_CHECKS = {
    "environment": _is_variable,
    "expiry-time": _is_time,
    "permitlisten": _is_listener,
    "permitopen": _is_place,
    "tunnel": _is_tunnel,
}
