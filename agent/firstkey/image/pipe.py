"""What crosses from the process that looks to the one that acts: values, as JSON. Strict on the way in."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any

from firstkey import reasons
from firstkey.image import rules, shadow
from firstkey.image.changes import AMI_TOOLS, MANAGERS, Link, Lock, Remove, SetSshd, Update, Write
from firstkey.image.door import Seen
from firstkey.image.rule import Rule
from firstkey.image.scan import Scan, Sighting
from firstkey.image.seal import Left, Match, Plan, Step
from firstkey.image.verdict import Finding, Unknown, Verdict
from firstkey.reasons import FirstkeyError, Reason, Refusal
from firstkey.system.mounts import Mount

Read = Callable[[Any], Any]
"""Reads a value back from what it was written as. Raises KeyError, TypeError or ValueError."""


def write(value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """The value as JSON: a list of its fields, but an object with its kind for a change."""
    if isinstance(value, Rule):
        return value.id
    if isinstance(value, Reason):
        return value.code
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, Finding):
        value = value[:-1]  # what seal would do about it is no part of an audit's answer
    plain = list(map(write, value)) if isinstance(value, tuple) else value
    name = _NAMES.get(type(value))
    return {"kind": name, **dict(zip(value._fields, plain))} if name else plain


def read(shape: Any, plain: object) -> Any:  # noqa: ANN401 - whatever JSON has
    """The value back. Raises FirstkeyError for anything but what is written of such values.

    A shape is a type (exactly that), a list of one shape (any number of those), a tuple (what makes the
    value, and the shape of each of its arguments), or a function that reads the value.
    """
    try:
        return _value(shape, plain)
    except (KeyError, TypeError, ValueError) as error:
        message = f"something came out of the box that is none of its answers: {error!r}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error


def _value(shape: Any, plain: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(shape, (list, tuple)) and not isinstance(plain, list):
        raise TypeError(plain)
    if isinstance(shape, list):
        return tuple(_value(shape[0], each) for each in plain)
    if isinstance(shape, tuple):
        make, *fields = shape
        if len(plain) != len(fields):
            raise TypeError(plain)
        return make(*map(_value, fields, plain))
    if not isinstance(shape, type):
        return shape(plain)
    if type(plain) is not shape:  # a truth value is no number
        raise TypeError(plain)
    return plain


def _row(*values: object) -> tuple[object, ...]:
    return values


def _maybe(shape: object) -> Read:
    return lambda plain: None if plain is None else _value(shape, plain)


def _one_of(*values: str) -> Read:
    return lambda plain: values[values.index(plain)]


def _path(plain: object) -> str:
    path: str = _value(str, plain)
    if not path.startswith("/") or path == "/" or os.path.normpath(path) != path or "\0" in path:
        raise ValueError(path)
    return path


def _bytes(plain: object) -> bytes:
    return base64.b64decode(_value(str, plain), validate=True)


def _files(plain: object) -> tuple[object, ...]:
    files: tuple[object, ...] = _value([(_row, _path, _maybe(_bytes), _bytes)], plain)
    if not files:
        raise ValueError(plain)
    return files


_SEEN = _maybe((Seen, int, int, int, int, bool))
_KINDS: dict[str, tuple[Any, ...]] = {
    "remove": (Remove, _path, str, bool, [_path], _SEEN, _maybe(_bytes), bool),
    "write": (Write, _path, str, _maybe(_bytes), _bytes, int, _maybe((_row, _bytes, _bytes)), _SEEN),
    "lock": (Lock, _path, str, _one_of(shadow.LOCK, shadow.NO_LOGIN), str),
    "link": (Link, _path, str, str, _maybe(str), _SEEN),
    "set-sshd": (SetSshd, str, str, _files),
    "update": (Update, _one_of(*MANAGERS), _one_of(*AMI_TOOLS)),
}
"""Every kind of change, with the shapes of its fields."""
_NAMES = {kind: name for name, (kind, *_) in _KINDS.items()}


def _change(plain: dict[str, object]) -> object:
    kind, *_ = shape = _KINDS[str(plain["kind"])]
    if plain.keys() != {"kind", *kind._fields}:
        raise ValueError(plain.keys())
    return _value(shape, [plain[name] for name in kind._fields])


def _rule(plain: object) -> Rule:
    return rules.by_id(_value(str, plain))


_REFUSAL = (Refusal, lambda plain: reasons.ALL[_value(str, plain)], str)
_UNKNOWNS = [(Unknown, str, _REFUSAL)]
_BY_KIND = [(_row, str, [(Sighting, str, str, _maybe(int))])]

_STEPS, _LEFT, _FOUND = (
    [(Step, _rule, _change, bool)],
    [(Left, _rule, _REFUSAL)],
    [(Match, _rule, str, str, bool)],
)

PLAN = (Plan, _STEPS, _LEFT, _FOUND, [str], [_rule])
VERDICT = (Verdict, [(Finding, str, str, str, _maybe(int), _maybe(str))], _UNKNOWNS, _maybe(str), str)
SCAN = (Scan, lambda plain: dict(_value(_BY_KIND, plain)), _UNKNOWNS, [(Mount, str, str, str, str)], int)
