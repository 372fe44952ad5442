"""The client against bytes that no HTTP server would send: nothing in an answer is trusted."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from asking import HANG, ask
from raw_server import FIRST_KEY, INDEX, INSTANCE_ID, KEY, TOKEN, Pieces, RawServer, answer, ok, slowly

LIMIT = 65536  # DESIGN: a small limit on the size of an answer; the largest genuine one has 3 KiB

# --- what is an answer all the same -----------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        answer("HTTP/1.1 200 OK\nContent-Length: 3", b"i-1"),
        answer("HTTP/1.0 200 OK", b"i-1"),
        answer("HTTP/1.1 200 OK\nConnection: close", b"i-1"),
        answer("HTTP/1.1 200\nContent-Length: 3", b"i-1"),
        answer("HTTP/1.1 200 OK\ncontent-length: 4", b"i-1\n"),
        answer("HTTP/1.1 200 OK\nContent-Length: 5", b"i-1\r\n"),
        answer("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Encoding: identity", b"i-1"),
        answer("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Type: text/html; charset=utf-16", b"i-1"),
        answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"1\r\ni\r\n2;x=y\r\n-1\r\n0\r\n\r\n"),
        answer("HTTP/1.1 200 OK\nContent-Length: 3\nSet-Cookie: a=b", b"i-1"),
        answer("HTTP/1.1 200 OK\nContent-Length: 3\nLocation: http://192.0.2.1/", b"i-1"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"i-1"),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + ok(b"i-1"),
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\ni-1",
        # What follows is not looked at, however much it looks like another answer.
        answer("HTTP/1.1 200 OK\nContent-Length: 3", b"i-1EXTRA"),
        ok(b"i-1") + ok(b"i-2"),
        ok(b"i-1") + ok(b"evil=key"),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.sample(3)
def test_answers_that_are_good_enough(raw: bytes, keep: bool) -> None:
    """Old, sparse and sloppy servers are understood."""
    if keep and b"Length" not in raw and b"length" not in raw and b"chunked" not in raw:
        keep = False  # it ends with the connection
    with RawServer({INSTANCE_ID: raw}, keep=keep) as server:
        good = ask(server.url).good
    assert (good.instance_id, good.version, good.keys[0].text) == ("i-1", 2, KEY)
    assert not any("cookie" in headers for headers in server.headers(FIRST_KEY))


# --- what is not ------------------------------------------------------------------------------

BAD = "bad-answer"
LARGE = "answer-too-large"
LOST = "imds-unreachable"

NOT_AN_ANSWER = [
    (b"i-1\n", BAD),  # HTTP/0.9
    (b"\x16\x03\x01\x02\n\x00", BAD),
    (b"SSH-2.0-OpenSSH_9.9\r\n", BAD),
    (b"\0" * 500 + b"\n", BAD),
    (answer("HTTP/1.1 abc OK", b"i-1"), BAD),
    (answer("HTTP/1.1 99 OK", b"i-1"), BAD),
    (answer("HTTP/3 200 OK", b"i-1"), BAD),
    (answer("HTTP/1.1 103 Early Hints\nLink: </x>"), BAD),
    (answer("HTTP/1.1 204 No Content"), BAD),
    (ok(b"i-1", status="206 Partial Content"), BAD),
    (ok(b"i-1", status="203 Changed on the way"), BAD),
    (ok(gzip.compress(b"i-1", mtime=0), "Content-Encoding: gzip"), BAD),
    (ok(b"i-1", "Content-Encoding: br"), BAD),
    (answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\ni-1\r\n0\r\n\r\n"), BAD),
    (ok(b"i-1\0"), BAD),
    (ok(b"i-1\n\ni-2"), BAD),
    (ok(b" i-1"), BAD),
    (ok(b"i-" + b"1" * 1100), BAD),
    (ok("i-\u0661".encode()), BAD),
    (ok(b""), BAD),
    (b"", LOST),
    (b"\0", LOST),
    (b"HTTP/1.1 200", LOST),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", LOST),
    (answer("HTTP/1.1 200 OK\nContent-Length: 4", b"i-1"), LOST),
    (answer("HTTP/1.1 200 OK"), LOST),
    (answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"3\r\ni-1\r\n"), LOST),
    (answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"9\r\ni-1\r\n"), LOST),
    (answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"ffffffffff\r\ni-1\r\n"), LOST),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n", LARGE),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", BAD),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, BAD),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, LARGE),
    (b"x" * 100000, LARGE),
    (ok(b"i" * (LIMIT + 1)), LARGE),
    (answer("HTTP/1.1 200 OK", b"i" * 200000), LARGE),
    (answer("HTTP/1.1 200 OK\nContent-Length: 99999999999999999999999", b"i-1"), LARGE),
    (answer(f"HTTP/1.1 200 OK\nContent-Length: {1 << 40}", b"i-1"), LARGE),
    (
        answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", (b"4000\r\n" + b"i" * 0x4000 + b"\r\n") * 5),
        LARGE,
    ),
]


@pytest.mark.parametrize("raw, code", NOT_AN_ANSWER)
@pytest.mark.parametrize("request_line", [TOKEN, INSTANCE_ID])
@pytest.mark.sample(4)
def test_what_is_not_an_answer(request_line: str, raw: bytes, code: str) -> None:
    """Each has its reason, no other exception comes out, and nothing is taken from it."""
    with RawServer({request_line: raw}) as server:
        outcome = ask(server.url, attempts=1)
    assert outcome.code == code
    assert not server.headers(FIRST_KEY)


@pytest.mark.parametrize("chunks", [b"-5\r\ni-1\r\n0\r\n\r\n", b"-fffffffffffffffff\r\ni-1"])
@pytest.mark.parametrize("request_line", [TOKEN, INSTANCE_ID, FIRST_KEY])
def test_a_chunk_of_less_than_nothing(request_line: str, chunks: bytes) -> None:
    """Older versions of urllib3 fail in their own way there; newer ones call the answer cut off."""
    raw = answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunks)
    second = f"{INDEX}1/openssh-key"
    with RawServer({INDEX: ok(b"0=bad\n1=good"), second: ok(KEY), request_line: raw}) as server:
        outcome = ask(server.url, attempts=1)
    if request_line == FIRST_KEY:
        bad, good = outcome.good.keys
        assert (bad.text, good.text) == (b"", KEY)
        assert bad.refusal
        assert bad.refusal.reason.code in (BAD, LOST)
    else:
        assert outcome.code in (BAD, LOST)


@pytest.mark.parametrize("raw, code", [(raw, code) for raw, code in NOT_AN_ANSWER if code != LOST])
@pytest.mark.sample(3)
def test_what_is_not_a_key(raw: bytes, code: str) -> None:
    """A key that is no answer costs only itself, and no time."""
    second = f"{INDEX}1/openssh-key"
    with RawServer({INDEX: ok(b"0=bad\n1=good"), FIRST_KEY: raw, second: ok(KEY)}) as server:
        outcome = ask(server.url)
    first, other = outcome.good.keys
    assert other.text == KEY
    assert not outcome.of_kind("retry")
    assert first.refusal is None or (first.text, first.refusal.reason.code) == (b"", code)


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 3\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: -3",
        "Content-Length: three",
        "Content-Length: 3\nTransfer-Encoding: chunked",
        "Content-Length: 3\nTransfer-Encoding: gzip",
        "Content-Length : 3",
        "no colon",
        "X: a\n  folded",
        "X-\0: nul",
        "\x85: line of Unicode",
        ": no name",
        "Content-Length: \xb3",
    ],
)
def test_headers_that_contradict_themselves(headers: str) -> None:
    """What servers disagree about is taken or refused, but nothing else comes of it."""
    with RawServer({INSTANCE_ID: answer(f"HTTP/1.1 200 OK\n{headers}", b"i-1")}) as server:
        outcome = ask(server.url, attempts=1)
    assert outcome.code in ("ok", BAD, LOST)
    if outcome.answer:
        assert outcome.answer.instance_id == "i-1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"to\nken",
        b"to\r\nX-Evil: yes",
        b"token\0",
        b"to ken",
        b" token",
        b"\xff\xfe",
        "t\u00f6ken".encode(),
        b"x" * 1025,
        b"<html>",
    ],
)
def test_what_is_not_a_token(body: bytes) -> None:
    """It would become a header of the next request, so nothing but one visible word is taken."""
    with RawServer({TOKEN: ok(body)}) as server:
        outcome = ask(server.url)
    if body == b"<html>":
        assert outcome.code == "ok"  # one visible word; the service decides what it takes
        return
    assert outcome.code == BAD
    assert server.requests[1:] == []
    assert "what came in place of a token is none" in str(outcome.error)


@pytest.mark.parametrize("body", [b"token\n", b"token\r\n", b"x" * 1024, b"!~"])
def test_what_is_a_token(body: bytes) -> None:
    """A line's end is no part of it."""
    with RawServer({TOKEN: ok(body)}) as server:
        assert ask(server.url).good
        (headers,) = server.headers(INSTANCE_ID)
    assert headers["x-aws-ec2-metadata-token"] == body.decode().strip()


def test_an_empty_list_is_no_key_pair_only_if_it_says_how_long_it_is() -> None:
    """A connection that was cut behind the headers would look the same."""
    with RawServer({INDEX: ok(b"")}) as server:
        assert ask(server.url).good.keys == ()
    with RawServer({INDEX: answer("HTTP/1.1 200 OK")}) as server:
        assert ask(server.url, attempts=1).code == LOST


# --- size and time ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        f"HTTP/1.1 200 OK\nContent-Length: {1 << 32}",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK",
    ],
)
def test_no_claim_of_a_size_takes_memory(head: str) -> None:
    """What an answer says of its length is not believed either."""
    ask("http://127.0.0.1:1", wait=0)  # whatever is loaded once
    tracemalloc.start()
    with RawServer({INSTANCE_ID: answer(head, f"{1 << 32:x}\r\n".encode() + b"i" * 1000)}) as server:
        outcome = ask(server.url, attempts=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.code in (LARGE, LOST, BAD)
    assert peak < 4 << 20


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "body": lambda: itertools.chain([answer("HTTP/1.1 200 OK")], itertools.repeat(b"i")),
    "headers": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X: y\r\n")),
    "one header": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x")),
    "status line": lambda: itertools.repeat(b"H"),
    "chunks": lambda: itertools.chain(
        [answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked")], itertools.repeat(b"1\r\ni\r\n")
    ),
    "100": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("kind", sorted(ENDLESS))
@pytest.mark.parametrize("version", ["auto", "2"])
@pytest.mark.sample(3)
def test_an_answer_that_drips_for_ever_ends_with_the_deadline(kind: str, version: str) -> None:
    """Each byte would start an ordinary timeout anew."""

    def drip(_: int) -> Pieces:
        return slowly(ENDLESS[kind](), 0.02)

    with RawServer({INSTANCE_ID: drip}) as server:
        outcome = ask(server.url, wait=0.5, request_timeout=2 * HANG, version=version)
    assert outcome.code == LOST
    assert 0.35 < outcome.seconds < HANG


@pytest.mark.parametrize("kind", sorted(ENDLESS))
@pytest.mark.sample(3)
def test_an_answer_that_pours_for_ever_ends_with_the_limit(kind: str) -> None:
    """No deadline is needed for that."""
    with RawServer({INSTANCE_ID: lambda _: itertools.chain(ENDLESS[kind](), [])}) as server:
        outcome = ask(server.url)
    assert outcome.code == (BAD if kind == "headers" else LARGE)


# --- connections ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("headers", [(), ("Connection: close",), ("Connection: keep-alive",)])
def test_each_request_has_a_connection_of_its_own(headers: tuple[str, ...], keep: bool) -> None:
    """Whatever the service offers: then nothing can be in the way of the next answer."""
    with RawServer({INSTANCE_ID: ok(b"i-1", *headers)}, keep=keep) as server:
        assert ask(server.url).good
        assert (server.connections, len(server.requests)) == (4, 4)
        assert {headers["connection"] for headers in server.headers(INSTANCE_ID)} == {"close"}


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    """Two answers on one connection, the second a moment later."""
    late = [ok(b"i-1"), ok(b"9=evil")]
    with RawServer({INSTANCE_ID: lambda _: slowly(iter(late), 0.1)}, keep=True) as server:
        good = ask(server.url).good
    assert [key.name for key in good.keys] == ["launch"]


def test_a_connection_that_cannot_be_had_again() -> None:
    """A service that goes away between two requests: asked again, from the start."""
    with RawServer() as server:
        server.close_after(TOKEN)
        outcome = ask(server.url, attempts=1)
    assert (outcome.code, outcome.good if outcome.answer else None) == (LOST, None)
