"""What the metadata service may answer: from bytes to values, and nothing but ValueError otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firstkey.metadata import inquiry

VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
TOKENS = st.text(VISIBLE, min_size=1, max_size=inquiry.TOKEN_LIMIT)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
ENDS = st.sampled_from(["", "\n", "\r\n", "\n\n"])
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=inquiry.NAME_LIMIT)
NUMBERS = st.lists(st.integers(0, 10**9 - 1), unique=True, max_size=inquiry.MOST_KEYS)
# Bytes that come close to what is meant, beside those that do not.
NEARLY = st.binary(max_size=200) | st.text("0123456789=i-\n\r abc\0\x1b\u2028", max_size=60).map(str.encode)


def refusal(parse: Callable[[bytes], object], body: bytes) -> str:
    """What is said of a body that is not taken; nothing of one that is."""
    try:
        parse(body)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("parse", [inquiry.parse_token, inquiry.parse_instance_id, inquiry.parse_index])
@given(body=NEARLY)
@example(body=b"\xff" * 70000)
@example(body=b"9" * 70000)
@example(body=b"=" * 70000)
@example(body="\u0660=arabic zero".encode())
@example(body="1\u00b2=squared".encode())
def test_nothing_but_value_error_comes_out(parse: Callable[[bytes], object], body: bytes) -> None:
    """Whatever comes in; and the error is one short line that can be printed anywhere."""
    said = refusal(parse, body)
    assert said.isprintable()
    assert said.isascii()
    assert len(said) < 400


@given(text=TOKENS, end=ENDS)
def test_tokens(text: str, end: str) -> None:
    """What was sent is what goes back."""
    assert inquiry.parse_token((text + end).encode()) == text


@given(body=NEARLY | st.binary(min_size=1000, max_size=1100))
def test_a_token_can_be_a_header(body: bytes) -> None:
    """Nothing that ends a header line, and nothing too long; and what is none is not told to anybody."""
    if refusal(inquiry.parse_token, body):
        assert refusal(inquiry.parse_token, body) == "what came in place of a token is none"
    else:
        assert re.fullmatch(r"[!-~]{1,1024}", inquiry.parse_token(body))


@given(text=IDS, end=ENDS)
def test_instance_ids(text: str, end: str) -> None:
    """What was sent is what is known."""
    assert inquiry.parse_instance_id((text + end).encode()) == text


@given(body=NEARLY)
def test_an_instance_id_is_a_plain_word(body: bytes) -> None:
    """It goes into a file, a journal field and comparisons."""
    if refusal(inquiry.parse_instance_id, body):
        return
    text = inquiry.parse_instance_id(body)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text)
    assert not text.startswith(("-", "."))


def seen(body: bytes) -> list[tuple[str, str, bytes]]:
    """The keys of a list, as far as it tells them."""
    return [(key.number, key.name, key.text) for key in inquiry.parse_index(body)]


@given(numbers=NUMBERS, data=st.data(), end=ENDS, separator=st.sampled_from(["\n", "\r\n"]))
def test_lists_of_keys(numbers: list[int], data: st.DataObject, end: str, separator: str) -> None:
    """Every line is one key, in the order of the numbers; a name may have = and any language in it."""
    names = {number: data.draw(NAMES) for number in numbers}
    body = separator.join(f"{number}={name}" for number, name in names.items()) + (end if numbers else "")
    assert seen(body.encode()) == [(str(number), names[number], b"") for number in sorted(names)]


@given(body=NEARLY)
def test_a_list_of_keys_can_be_asked_for(body: bytes) -> None:
    """Numbers are numbers, each once; a name has no line's end and no control character."""
    lines = () if refusal(inquiry.parse_index, body) else inquiry.parse_index(body)
    listed = [line for line in lines if not (line.text or line.refusal)]
    assert all(re.fullmatch(r"[0-9]{1,9}", key.number) for key in listed)
    assert len({key.number for key in listed}) == len(listed)
    assert not any(re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", key.name) for key in listed)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html>",
        b"<html>\n\n</html>\n",
        b"0",
        b"=launch",
        b"-1=launch",
        b" 0=launch",
        b"../../user-data=launch",
        b"0/../../../user-data=launch",
        b"0=\x1b[31mred",
        b"0=\0",
        b"1234567890=launch",
        b"\n".join(b"%d=key" % number for number in range(65)),
        "0=right\u2028wrong".encode(),
    ],
)
def test_what_is_no_list_of_keys(body: bytes) -> None:
    """Nothing is asked for."""
    with pytest.raises(ValueError, match="list of keys"):
        inquiry.parse_index(body)


@pytest.mark.parametrize(
    "body, numbers, bad",
    [
        (b"0=launch\nnonsense", ["0"], ["nonsense"]),
        (b"x\n1=b\n<html>\n0=a\n../../0=c", ["0", "1"], ["x", "<html>", "../../0=c"]),
        (b"0=launch\n0=launch", ["0"], []),
        (b"1/\n0/\n../", ["0", "1"], ["../"]),
        (b"0=launch\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5", ["0"], ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]),
    ],
)
def test_a_good_line_beside_a_bad_one(body: bytes, numbers: list[str], bad: list[str]) -> None:
    """It is asked for; the bad one, which would decide on the path, is not."""
    listed = inquiry.parse_index(body)
    assert [key.number for key in listed] == numbers + ["?"] * len(bad)
    refused = [key.refusal.detail for key in listed if key.refusal]
    assert [detail.partition(" is no line")[0] for detail in refused] == list(map(repr, bad))


def test_the_key_lines_themselves() -> None:
    """As CloudStack and Exoscale answer."""
    first, second = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0b launch", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB"
    lines = [("0", "", f"{first}\n".encode()), ("1", "", f"{second}\n".encode())]
    assert seen(f"{first}\r\n{second}\n".encode()) == lines


def test_empty_lines_between() -> None:
    """They are nothing."""
    assert seen(b"\n0=a\r\n\r\n1=b\n\n") == [("0", "a", b""), ("1", "b", b"")]


def test_the_same_number_in_two_ways_is_two_paths() -> None:
    """00 and 0 are asked for as they were written."""
    assert [key.number for key in inquiry.parse_index(b"00=a\n0=b")] == ["00", "0"]


def test_a_long_name_is_cut() -> None:
    """It is for people to read; the key is what counts."""
    ((_, name, _),) = seen(b"0=" + b"x" * 1000)
    assert name == "x" * 255


def test_a_name_that_is_not_utf_8() -> None:
    """It does not cost the key."""
    ((number, name, _),) = seen(b"0=Schl\xfcssel")
    assert (number, name) == ("0", "Schl\ufffdssel")


@given(body=st.binary(max_size=200))
def test_quoted(body: bytes) -> None:
    """Any bytes can be shown in a terminal."""
    assert inquiry.quoted(body).isprintable()
    assert inquiry.quoted(body).isascii()
    assert len(inquiry.quoted(body)) < 1000
