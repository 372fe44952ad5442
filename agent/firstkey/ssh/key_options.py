"""The options before a key in `authorized_keys` (sshd(8): AUTHORIZED_KEYS FILE FORMAT)."""

from __future__ import annotations

import re
from collections.abc import Iterator

FLAGS = frozenset(
    b"restrict cert-authority"
    b" agent-forwarding port-forwarding pty user-rc x11-forwarding touch-required verify-required"
    b" no-agent-forwarding no-port-forwarding no-pty no-user-rc no-x11-forwarding no-touch-required"
    b" no-verify-required".split()
)
"""Options that stand alone (auth-options.c: sshauthopt_parse), in lower case; they have no case for sshd."""

WITH_VALUE = frozenset(
    b"command environment expiry-time from permitlisten permitopen principals tunnel".split()
)
"""Options with a value in quotes."""

ONCE = frozenset(b"command from principals".split())
"""Of these, a second one is an error."""

MOST_JUDGED = 65536
"""Bytes of options of which the values are looked into; of more, only their form is. A person needs less, and
a user who puts a million addresses there must not hold up everybody's keys.
"""

# Inside the quotes only \" is an escape (misc.c: opt_dequote).
_OPTION = re.compile(rb'([^=,"]+)(="(?:\\"|[^"\\]|\\(?!"))*")?')

_COMMAS = re.compile(rb",*")


def is_authority(options: bytes) -> bool:
    """Whether the key behind the options may only sign certificates, and lets nobody in itself."""
    return b"cert-authority" in options.lower() and b"cert-authority" in map(_name, _split(options))


def useless(options: bytes) -> str | None:
    """The first thing in the options of a plain key for which sshd lets nobody in with it, from nowhere."""
    found = unknown(options)
    if found or not options or len(options) > MOST_JUDGED:
        return found
    for match in _split(options):
        if _name(match) == b"principals" or (_name(match) == b"from" and not _is_readable(_value(match))):
            return match[0][:40].decode("utf-8", "backslashreplace")
    return None


def unknown(options: bytes) -> str | None:
    """The first thing in the options that sshd does not understand: it then ignores the whole line.

    A newer sshd may know more options than these. None: all is well. A comma too many is no matter to sshd.
    """
    seen: set[bytes] = set()
    judged = len(options) <= MOST_JUDGED
    place = _behind_commas(options, 0)
    while place < len(options):
        match = _OPTION.match(options, place)
        if not match or not _is_understood(match, seen, judged=judged):
            return _excerpt(options, place)
        seen |= {_name(match)} & ONCE
        if options[match.end() : match.end() + 1] not in (b"", b","):
            return _excerpt(options, match.end())
        place = _behind_commas(options, match.end())
    return None


def _is_understood(match: re.Match[bytes], seen: set[bytes], *, judged: bool) -> bool:
    name = _name(match)
    if not match[2]:
        return name in FLAGS
    if name not in WITH_VALUE - seen or not judged:
        return name in WITH_VALUE - seen
    from firstkey.ssh import option_values  # few lines have options

    return option_values.is_taken(name.decode(), _value(match))


def _value(match: re.Match[bytes]) -> str:
    return match[2][2:-1].replace(b'\\"', b'"').decode("utf-8", "surrogateescape")


def _is_readable(sources: str) -> bool:
    """Whether sshd can match a client with the list at all."""
    from firstkey.ssh import patterns

    blocks = ",".join(source for source in sources.split(",") if "/" in source)
    try:
        patterns.host_matches(patterns.Client("192.0.2.1", "192.0.2.1"), blocks)
    except patterns.BadPattern:
        return False
    return True


def _excerpt(options: bytes, place: int) -> str:
    return options[place : place + 40].split(b",")[0].decode("utf-8", "backslashreplace")


def _split(options: bytes) -> Iterator[re.Match[bytes]]:
    """The options one by one, as far as they can be told apart."""
    match = _OPTION.match(options, _behind_commas(options, 0))
    while match:
        yield match
        match = _OPTION.match(options, _behind_commas(options, match.end()))


def _behind_commas(options: bytes, start: int) -> int:
    # By their places: to cut off option after option would copy a line as often as it has options, and a user
    # who put a million there would hold up everybody's keys.
    found = _COMMAS.match(options, start)
    return found.end() if found else start


def _name(match: re.Match[bytes]) -> bytes:
    return match[1].lower()
