"""The key's line in a file of keys: whether it is there, and whether its options let this login through."""

from __future__ import annotations

import time
from binascii import b2a_base64
from io import BytesIO
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey import login_reasons as why
from firstkey.login import storage
from firstkey.login.finding import OK, Finding, note, obstacle, passed, unknown
from firstkey.ssh import authorized_keys, key_options, restrictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.context import Context
    from firstkey.login.view import Seen

CHECK = "key-line"
FROM = "key-from"
"""The key is there, for some clients."""
PIECE = 40
"""So many characters of a key's data are its own alone: those before are the same for all of its type."""


class Line(NamedTuple):
    """A line with the key: its number, and the options before the key, as which it begins for a person."""

    number: int
    options: str


def findings(context: Context, seen: Seen) -> Iterator[Finding]:
    """The first line that lets the key in; else what is wrong with each that has it, or that none has."""
    content = seen.content or b""
    judged = [judge(context, line, seen.path) for line in _lines(context, content)]
    good = next((found for found in judged if all(finding.status == OK for finding in found)), None)
    if good:
        yield from good
    elif judged:
        yield from (finding for found in judged for finding in found)
    else:
        yield _absent(context, seen, content)


def judge(context: Context, line: Line, path: str) -> list[Finding]:
    """What the options of one line mean for this login, in sshd's order (auth2-pubkeyfile.c)."""
    place = f"{path}:{line.number}"
    options = key_options.parse_options(line.options)
    if options.flaw is not None:
        detail = f"sshd passes over the line: {options.flaw!a} is nothing that it takes"
        return [obstacle(CHECK, why.KEY_OPTIONS_INVALID, detail, path=place, line=line.options)]
    if options.is_authority or options.principals is not None:
        detail = "cert-authority or principals is before the key: that is for certificates"
        return [obstacle(CHECK, why.KEY_OPTIONS_INVALID, detail, path=place, line=line.options)]
    if options.expires is not None and options.expires < context.now:
        detail = f"the line expired at {moment(options.expires)}; the clock says {moment(context.now)}"
        return [obstacle(CHECK, why.KEY_EXPIRED, detail, path=place, line=line.options)]
    found = [passed(CHECK, f"{context.key.fingerprint} is there", path=place)]
    if options.sources is not None:
        found = [_source(context, options.sources, place, line.options)]
    if options.command is not None:
        detail = f"command= before the key runs {options.command[:80]!r} in place of a shell"
        found.append(obstacle("forced-command", why.FORCED_COMMAND, detail, path=place, line=line.options))
    elif not options.has_terminal:
        detail = "the options before the key allow no terminal"
        found.append(note("terminal", why.NO_TERMINAL, detail, path=place))
    return found


def moment(seconds: float) -> str:
    """Date and time for people, in the machine's own zone, as options in the file are."""
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(seconds))


def _source(context: Context, sources: str, place: str, text: str) -> Finding:
    try:
        fits = restrictions.host_matches(context.client, sources)
    except restrictions.BadPattern as error:
        return obstacle(CHECK, why.KEY_NOT_FROM_HERE, f"from= cannot be read: {error}", path=place, line=text)
    if fits is None:
        detail = f"from={sources[:80]!r} before the key: only from some places"
        return unknown(CHECK, why.CLIENT_DEPENDENT, detail, path=place, line=text)
    if fits:
        return passed(FROM, f"{context.key.fingerprint} is there, and from= allows the client", path=place)
    address = context.client.address if context.client else ""
    detail = f"from={sources[:80]!r} before the key does not allow {address}"
    return obstacle(CHECK, why.KEY_NOT_FROM_HERE, detail, path=place, line=text)


def _lines(context: Context, content: bytes) -> list[Line]:
    return [
        Line(number, entry.options)
        for number, entry in authorized_keys.keyed(content)
        if entry.key.fingerprint == context.key.fingerprint
    ]


def _absent(context: Context, seen: Seen, content: bytes) -> Finding:
    """Nothing that sshd would take for the key; perhaps something that was meant to be it."""
    kept = storage.at(context.site, seen.canonical)
    install = context.how_to_install(seen.path, kept)
    spoilt = _spoilt(context, content)
    if spoilt:
        number, detail = spoilt
        place = f"{seen.path}:{number}"
        return obstacle(CHECK, why.KEY_OPTIONS_INVALID, kept.about(detail), path=place, command=install)
    count = sum(1 for _ in authorized_keys.keyed(content))
    others = f"among its {count} key{'' if count == 1 else 's'}" if count else "there, nor any other key"
    detail = f"{context.key.fingerprint} is not {others}"
    return obstacle(CHECK, why.KEY_NOT_INSTALLED, kept.about(detail), path=seen.path, command=install)


def _spoilt(context: Context, content: bytes) -> tuple[int, str] | None:
    if context.key.key is None:
        return None
    data = b2a_base64(context.key.key.blob, newline=False)
    for number, raw in enumerate(BytesIO(content), start=1):
        if data in raw:
            commented = raw.lstrip().startswith(b"#")
            what = "is commented out" if commented else "has something before it that sshd does not know"
            return number, f"the key is there, but {what}"
        if data[-PIECE:] in raw or data[:-PIECE].rstrip(b"=") in raw:
            return number, "a piece of the key is there: its line was broken or cut"
    return None
