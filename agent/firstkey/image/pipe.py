"""What crosses from the process that looks to the one that acts: values, as JSON. Strict on the way in."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from firstkey import NamedTuple, reasons
from firstkey.image import rules, shadow
from firstkey.image.changes import (
    AMI_TOOLS,
    MANAGERS,
    Empty,
    Link,
    Lock,
    Remove,
    SetSshd,
    Update,
    Write,
)
from firstkey.image.door import Seen
from firstkey.image.plan import Left, Plan, Spot, Step
from firstkey.image.scan import Scan
from firstkey.image.verdict import Doubt, Finding, Verdict
from firstkey.image.watches import Sighting
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.system.mounts import Mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from firstkey.image.changes import Change


class Form(NamedTuple):
    """How a value is written, and read back: that raises KeyError, TypeError or ValueError."""

    write: Callable[[Any], object]
    read: Callable[[Any], Any]


def read(form: Form, plain: object) -> Any:  # noqa: ANN401 - what the form is of
    """The value back. Raises FirstkeyError for anything but what the form writes."""
    try:
        return form.read(plain)
    except (KeyError, TypeError, ValueError) as error:
        message = f"something came out of the box that is none of its answers: {error!r}"
        raise FirstkeyError(message, reason=reasons.INTERNAL_ERROR) from error


# --- forms of forms -------------------------------------------------------------------------------


def _exactly(kind: type) -> Form:
    """Of that type; a truth value is no number."""

    def read(plain: object) -> object:
        if type(plain) is not kind:
            raise TypeError(plain)
        return plain

    return Form(read, read)


def _one_of(*values: str) -> Form:
    return Form(str, lambda plain: values[values.index(plain)])


def _maybe(form: Form) -> Form:
    return Form(
        lambda value: None if value is None else form.write(value),
        lambda plain: None if plain is None else form.read(plain),
    )


def _several(form: Form, *, least: int = 0) -> Form:
    def read(plain: object) -> object:
        if not isinstance(plain, list) or len(plain) < least:
            raise TypeError(plain)
        return tuple(map(form.read, plain))

    return Form(lambda values: [form.write(each) for each in values], read)


def _record(kind: Callable[..., object], *forms: Form) -> Form:
    """A list with a value for each field, of the first so many."""

    def read(plain: object) -> object:
        if not isinstance(plain, list) or len(plain) != len(forms):
            raise TypeError(plain)
        return kind(*(form.read(each) for form, each in zip(forms, plain)))

    return Form(lambda value: [form.write(each) for form, each in zip(forms, value)], read)


def _row(*forms: Form) -> Form:
    return _record(lambda *fields: fields, *forms)


# --- changes --------------------------------------------------------------------------------------


def _path(plain: Any) -> str:  # noqa: ANN401 - whatever JSON has
    path: str = TEXT.read(plain)
    if not path.startswith("/") or path == "/" or os.path.normpath(path) != path or "\0" in path:
        raise ValueError(path)
    return path


TEXT, FLAG, NUMBER = map(_exactly, (str, bool, int))
PATH = Form(_path, _path)
BYTES = Form(
    lambda value: base64.b64encode(value).decode("ascii"),
    lambda plain: base64.b64decode(TEXT.read(plain), validate=True),
)
SEEN = _maybe(_record(Seen, NUMBER, NUMBER, NUMBER, NUMBER, FLAG))
PATHS = _several(PATH)

_KINDS: dict[str, tuple[Any, tuple[Form, ...]]] = {
    "remove": (Remove, (PATH, TEXT, FLAG, PATHS, SEEN, _maybe(BYTES))),
    "empty": (Empty, (PATH, TEXT, PATHS, SEEN)),
    "write": (Write, (PATH, TEXT, _maybe(BYTES), BYTES, NUMBER, _maybe(_row(BYTES, BYTES)), SEEN)),
    "lock": (Lock, (PATH, TEXT, _one_of(shadow.LOCK, shadow.NO_LOGIN), TEXT)),
    "link": (Link, (PATH, TEXT, TEXT, _maybe(TEXT), SEEN)),
    "set-sshd": (SetSshd, (TEXT, TEXT, _several(_row(PATH, _maybe(BYTES), BYTES), least=1))),
    "update": (Update, (_one_of(*MANAGERS), _one_of(*AMI_TOOLS))),
}
"""Every kind of change, and the form of each of its fields."""
_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}


def _write_change(change: Change) -> dict[str, object]:
    name = _NAMES[type(change)]
    kind, forms = _KINDS[name]
    fields = zip(kind._fields, forms, change)  # type: ignore[call-overload]
    return {"kind": name, **{field: form.write(value) for field, form, value in fields}}


def _read_change(plain: dict[str, object]) -> Change:
    kind, forms = _KINDS[str(plain["kind"])]
    if plain.keys() != {"kind", *kind._fields}:
        raise ValueError(plain.keys())
    made: Change = kind(*(form.read(plain[field]) for field, form in zip(kind._fields, forms)))
    return made


CHANGE = Form(_write_change, _read_change)

# --- verdicts and plans ---------------------------------------------------------------------------


REFUSAL = Form(
    lambda refusal: [refusal.reason.code, refusal.detail],
    _record(lambda code, detail: Refusal(reasons.ALL[code], detail), TEXT, TEXT).read,
)
RULE = Form(lambda rule: rule.id, lambda plain: rules.by_id(TEXT.read(plain)))
SPOT = _record(Spot, RULE, TEXT, TEXT)
PLAN = _record(
    Plan,
    _several(_record(Step, RULE, CHANGE, FLAG)),
    _several(_record(Left, RULE, REFUSAL)),
    _several(SPOT),
    _several(SPOT),
    _several(TEXT),
)
DOUBTS = _several(_record(Doubt, TEXT, REFUSAL))
# What seal would do about a finding is no part of an audit's answer.
VERDICT = _record(
    Verdict,
    _several(_record(Finding, TEXT, TEXT, TEXT, _maybe(NUMBER), _maybe(TEXT))),
    DOUBTS,
    _maybe(TEXT),
    TEXT,
)
SIGHTINGS = _several(_record(Sighting, TEXT, TEXT, _maybe(NUMBER)))
BY_KIND = _several(_row(TEXT, SIGHTINGS))
SCAN = _record(
    Scan,
    Form(lambda found: BY_KIND.write(found.items()), lambda plain: dict(BY_KIND.read(plain))),
    DOUBTS,
    _several(_record(Mount, TEXT, TEXT, TEXT, TEXT)),
    NUMBER,
)
