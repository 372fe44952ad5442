"""What the options before a key in `authorized_keys` (sshd(8)) mean for a login with that key.

Over one option that it does not know, or finds twice where once is meant, sshd passes over the whole line.
"""

from __future__ import annotations

import re

from firstkey.errors import FirstkeyError
from firstkey.login_reasons import KEY_OPTIONS_INVALID
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import option_values
from firstkey.ssh.key_options import FLAGS, ONCE, WITH_VALUE

_NAME = re.compile(r"[A-Za-z0-9-]+")
_COMMAS = re.compile(r",*")
_QUOTED = re.compile(r'="((?:\\"|[^"])*)"')


class KeyOptions(NamedTuple):
    """What the options of one line mean for a login with its key. Times in seconds since the epoch."""

    command: str | None = None
    """Runs whatever the client asks for; there is no shell but this."""
    sources: str | None = None
    """from=: the clients that may use the key, as `patterns.host_matches` reads them."""
    expires: float | None = None
    terminal: bool = True
    authority: bool = False
    """The key signs certificates; by itself it lets nobody in."""
    principals: bool = False
    """Only for an authority; sshd refuses a plain key that has it."""


def parse(text: str) -> KeyOptions:
    """The meaning of the options. Raises FirstkeyError(key-options-invalid) where sshd ignores the line."""
    found = KeyOptions()
    seen: set[str] = set()
    place = _behind_commas(text, 0)
    while place < len(text):
        name, value, place = _next(text, place)
        if name.encode("ascii") in ONCE and name in seen:
            raise _invalid(f"{name} stands there twice")
        seen.add(name)
        found = _with(found, name, value)
    return found


def _next(text: str, start: int) -> tuple[str, str | None, int]:
    """One option: its lower-case name, its value if it has one, and where the next one begins."""
    name = _NAME.match(text, start)
    word = name[0].lower() if name else ""
    quoted = _QUOTED.match(text, start + len(word))
    wants_value = word.encode("ascii") in WITH_VALUE
    if wants_value and not quoted:
        raise _invalid(f"{word} needs a value in double quotes")
    if not wants_value and word.encode("ascii") not in FLAGS:
        raise _invalid(f"{text[start : start + 40].partition(',')[0]!a} is no option that sshd knows")
    end = quoted.end() if quoted and wants_value else start + len(word)
    if text[end : end + 1] not in ("", ","):
        raise _invalid(f"{text[end : end + 20]!a} stands behind {word}")
    value = quoted[1].replace('\\"', '"') if quoted and wants_value else None
    return word, value, _behind_commas(text, end)


def _behind_commas(text: str, start: int) -> int:
    found = _COMMAS.match(text, start)
    return found.end() if found else start


def _with(found: KeyOptions, name: str, value: str | None) -> KeyOptions:
    if name in ("restrict", "no-pty"):
        return found._replace(terminal=False)
    if name == "pty":
        return found._replace(terminal=True)
    if name == "cert-authority":
        return found._replace(authority=True)
    if name == "principals":
        return found._replace(principals=True)
    if name == "command":
        return found._replace(command=value)
    if name == "from":
        return found._replace(sources=value)
    return _with_detail(found, name, value or "")


def _with_detail(found: KeyOptions, name: str, value: str) -> KeyOptions:
    if name == "expiry-time":
        try:
            moment = option_values.moment(value)
        except ValueError as error:
            raise _invalid(f"expiry-time={error}") from None
        return found._replace(expires=min(moment, found.expires) if found.expires else moment)
    if not option_values.is_taken(name, value):
        raise _invalid(f"{name}={value[:40]!a} is nothing that sshd takes")
    return found


def _invalid(why: str) -> FirstkeyError:
    return FirstkeyError(f"sshd passes over the line: {why}", reason=KEY_OPTIONS_INVALID)
