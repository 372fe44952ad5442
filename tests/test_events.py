"""The catalogue of events: identities, sentences, and fields that cannot forge anything."""

from __future__ import annotations

import re
import string

import pytest

from firstkey import events, reasons
from firstkey.events import ALL, Event

REASON = "no-such-user"


def fields_of(event: Event) -> set[str]:
    """The fields that the event's sentence needs."""
    return {name for _, name, _, _ in string.Formatter().parse(event.template) if name}


def filled(event: Event) -> dict[str, str]:
    """A value for each field; the reason is one from the published list."""
    return {name: REASON if name == "reason" else f"<{name}>" for name in fields_of(event)}


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_every_event_speaks(event: Event) -> None:
    """Each event has an identity, a level, and a sentence that holds all its fields."""
    assert re.fullmatch(r"[0-9a-f]{32}", event.message_id)
    assert events.ERR <= event.priority <= events.DEBUG
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", event.name)
    assert getattr(events, event.name.replace("-", "_").upper()) is event
    message = event(**filled(event)).message
    assert all(value in message for value in filled(event).values())
    assert message.endswith((".", ">"))


@pytest.mark.parametrize("event", [event for event in ALL.values() if fields_of(event)], ids=lambda e: e.name)
def test_missing_field_is_refused(event: Event) -> None:
    """An entry without a field of its sentence is a programming error, told at once."""
    for missing in fields_of(event):
        fields = filled(event)
        del fields[missing]
        with pytest.raises(TypeError, match=missing):
            event(**fields)


def test_identities_are_fixed() -> None:
    """Names and MESSAGE_IDs are unique, and those of the main events are what was published."""
    assert len({event.message_id for event in ALL.values()}) == len(ALL)
    # A second event of the same name would have taken the place of the first.
    defined = [event for event in vars(events).values() if isinstance(event, Event)]
    assert [event.name for event in defined] == list(ALL)
    assert events.KEY_ADDED.message_id == "d54c009d3b114cc9abb982ee3528482e"
    assert events.KEY_REVOKED.message_id == "03ba5e0f693b49dfac9236d11cd0d1e4"
    assert events.HOST_KEY_MADE.message_id == "13625825d5064ed6845b66b21090a99c"
    assert events.HOST_KEY_REPLACED.message_id == "0545f279aae140449c766850c821402e"
    assert events.USER_FAILED.message_id == "64a51c7d18654416a521adb7677da21f"


def test_remedy_comes_with_the_reason() -> None:
    """What went wrong says what to do next; a remedy that is given wins over the list's."""
    fields = {"user": "ann", "reason": REASON, "detail": "there is no user ann"}
    entry = events.USER_FAILED(**fields)
    remedy = reasons.ALL[REASON].remedy
    assert entry.fields["remedy"] == remedy
    assert entry.message.endswith(f"({REASON}). What to do: {remedy}")
    assert events.USER_FAILED(**fields, remedy="Ask Ann.").message.endswith("What to do: Ask Ann.")


def test_routine_says_no_remedy() -> None:
    """A note that nobody has to act on stays one sentence, and keeps the remedy as a field."""
    entry = events.HOST_KEY_SKIPPED(type="ed25519", reason="keygen-refused", detail="FIPS")
    assert "What to do" not in entry.message
    assert entry.fields["remedy"]


def test_empty_detail_leaves_no_gap() -> None:
    """A detail that there is not leaves no space at the end."""
    assert events.IMDS_UNREACHABLE_AT_DEADLINE(seconds=30, detail="").message.endswith("firstkey asks again.")


def test_more_fields_are_welcome() -> None:
    """Fields beyond the sentence are kept for the journal, numbers as text."""
    assert events.STOPPING(detail="", files=3).fields == {"detail": "", "files": "3"}


@pytest.mark.parametrize(
    "hostile,shown",
    [
        ("a\nb", r"a\nb"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b2J", r"\x9b2J"),
        ("\rover", r"\rover"),
        ("nul\0", r"nul\x00"),
        ("abc\u202edef", r"abc\u202edef"),
        ("iso\u2066late", r"iso\u2066late"),
        ("line\u2028para\u2029", r"line\u2028para\u2029"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("byte\udc80", r"byte\x80"),
        ("grüße {user} 鍵", "grüße {user} 鍵"),
    ],
)
def test_fields_are_visible(hostile: str, shown: str) -> None:
    """Nothing in a field can break the line, move a cursor or turn the text; ordinary text is as it was."""
    entry = events.USER_CREATED(user=hostile)
    assert entry.fields["user"] == shown
    assert entry.message == f"The user {shown} was created."
    assert entry.message.isprintable()


def test_fields_are_short() -> None:
    """An answer of any length makes a short entry, and says that it was cut."""
    entry = events.USER_CREATED(user="x" * 100_000)
    assert len(entry.fields["user"]) == events.FIELD_LIMIT
    assert entry.fields["user"].endswith("x…")
    assert len(events.USER_CREATED(user="\0" * 100_000).fields["user"]) <= 4 * events.FIELD_LIMIT


def test_field_names_suit_the_journal() -> None:
    """Every field becomes a journal field: capitals, 64 characters at most (systemd.journal-fields(7))."""
    for event in ALL.values():
        for name in fields_of(event):
            assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", f"FIRSTKEY_{name.upper()}")


def test_changes_of_trust_are_noticed() -> None:
    """Who may log in and which key the host shows are never told below notice."""
    for name in ("key-added", "key-revoked", "host-key-made", "host-key-replaced", "sudoers-written"):
        assert ALL[name].priority <= events.NOTICE
    assert events.HOST_KEY_REPLACED.priority == events.WARNING
    assert events.IMDS_FALLBACK.priority == events.WARNING
