"""Changes as JSON: how a plan goes from the process that looks to the one that acts. Strict on the way in."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, reasons
from firstkey.image import shadow
from firstkey.image.changes import (
    AMI_TOOLS,
    MANAGERS,
    Empty,
    Link,
    Lock,
    Remove,
    RemoveHostKey,
    SetSshd,
    Update,
    Write,
)
from firstkey.image.door import Seen
from firstkey.reasons import FirstkeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change


class _Form(NamedTuple):
    """How the value of a field is written, and read back: that raises TypeError or ValueError."""

    write: Callable[[Any], object]
    read: Callable[[object], object]


def text(plain: object) -> str:
    """The string. Raises TypeError, as all of these, for what is none."""
    if not isinstance(plain, str):
        raise TypeError(plain)
    return plain


def flag(plain: object) -> bool:
    """The truth value."""
    if not isinstance(plain, bool):
        raise TypeError(plain)
    return plain


def _number(plain: object) -> int:
    if not isinstance(plain, int) or isinstance(plain, bool):
        raise TypeError(plain)
    return plain


def _path(plain: object) -> str:
    path = text(plain)
    if not path.startswith("/") or path == "/" or os.path.normpath(path) != path or "\0" in path:
        raise ValueError(path)
    return path


def _bytes(plain: object) -> bytes:
    return base64.b64decode(text(plain), validate=True)


def row(plain: object, length: int) -> list[object]:
    """The list of that length."""
    if not isinstance(plain, list) or len(plain) != length:
        raise TypeError(plain)
    return plain


def _seen(plain: object) -> Seen:
    device, inode, kind, uid, single = row(plain, len(Seen._fields))
    return Seen(_number(device), _number(inode), _number(kind), _number(uid), flag(single))


def _one_of(*values: str) -> _Form:
    def read(plain: object) -> object:
        if plain not in values:
            raise ValueError(plain)
        return plain

    return _Form(text, read)


def _maybe(form: _Form) -> _Form:
    return _Form(
        lambda value: None if value is None else form.write(value),
        lambda plain: None if plain is None else form.read(plain),
    )


def _row(*forms: _Form) -> _Form:
    return _Form(
        lambda value: [form.write(each) for form, each in zip(forms, value)],
        lambda plain: tuple(form.read(each) for form, each in zip(forms, row(plain, len(forms)))),
    )


def _several(form: _Form, *, least: int = 0) -> _Form:
    def read(plain: object) -> object:
        if not isinstance(plain, list) or len(plain) < least:
            raise TypeError(plain)
        return tuple(map(form.read, plain))

    return _Form(lambda values: [form.write(each) for each in values], read)


TEXT, FLAG, NUMBER, PATH = (_Form(read, read) for read in (text, flag, _number, _path))
BYTES = _Form(lambda value: base64.b64encode(value).decode("ascii"), _bytes)
SEEN = _maybe(_Form(list, _seen))
PATHS = _several(PATH)

_KINDS: dict[str, tuple[Any, tuple[_Form, ...]]] = {
    "remove": (Remove, (PATH, TEXT, FLAG, PATHS, SEEN)),
    "remove-host-key": (RemoveHostKey, (PATH, _maybe(BYTES), SEEN)),
    "empty": (Empty, (PATH, TEXT, PATHS, SEEN)),
    "write": (Write, (PATH, TEXT, _maybe(BYTES), BYTES, NUMBER, _maybe(_row(BYTES, BYTES)), SEEN)),
    "lock": (Lock, (PATH, TEXT, _one_of(shadow.LOCK, shadow.NO_LOGIN), TEXT)),
    "link": (Link, (PATH, TEXT, TEXT, _maybe(TEXT), SEEN)),
    "set-sshd": (SetSshd, (TEXT, TEXT, _several(_row(PATH, _maybe(BYTES), BYTES), least=1))),
    "update": (Update, (_one_of(*MANAGERS), _one_of(*AMI_TOOLS))),
}
"""Every kind of change, and the form of each of its fields."""
_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}


def as_json(change: Change) -> dict[str, Any]:
    """The change as values that JSON has; bytes in base64."""
    name = _NAMES[type(change)]
    kind, forms = _KINDS[name]
    fields = zip(kind._fields, forms, change)  # type: ignore[call-overload]
    return {"kind": name, **{field: form.write(value) for field, form, value in fields}}


def from_json(plain: object) -> Change:
    """The change back. Raises FirstkeyError for anything but what `as_json` writes."""
    try:
        if not isinstance(plain, dict):
            raise TypeError(plain)  # noqa: TRY301 - one sentence for all that may be wrong
        kind, forms = _KINDS[plain["kind"]]
        if plain.keys() != {"kind", *kind._fields}:
            raise ValueError(plain.keys())  # noqa: TRY301 - as above
        made: Change = kind(*(form.read(plain[field]) for field, form in zip(kind._fields, forms)))
    except (KeyError, TypeError, ValueError) as error:
        message = f"this is no change that seal makes: {error!r}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error
    return made
