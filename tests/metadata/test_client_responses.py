"""The client against `responses`: what it makes of each status, without a server that could be wrong.

`responses` stands in the place of HTTPAdapter.send, below the client's own adapter, so connections are
still made: to a socket that accepts and is never asked anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import requests
import responses
from asking import Outcome, ask
from raw_server import silent_server

TOKEN = "/latest/api/token"
INSTANCE_ID = "/latest/meta-data/instance-id"
INDEX = "/latest/meta-data/public-keys/"
KEY = f"{INDEX}0/openssh-key"


class Mock(NamedTuple):
    """The endpoint, and what it answers."""

    url: str
    calls: responses.RequestsMock

    def says(self, path: str, *answers: int | str | Exception) -> None:
        """Answer requests for the path like this, one after the other; a number is a status."""
        for one in answers:
            method = responses.PUT if path == TOKEN else responses.GET
            if isinstance(one, int):
                self.calls.add(method, self.url + path, status=one, body="<h1>error</h1>")
            else:
                self.calls.add(method, self.url + path, body=one)

    def is_good(self, *, but: str = "") -> None:
        """Answer like a metadata service, except for one path."""
        good = {TOKEN: "the-token", INSTANCE_ID: "i-1", INDEX: "0=launch", KEY: "ssh-ed25519 AAAA launch\n"}
        for path, body in good.items():
            if path != but:
                self.says(path, body)

    def ask(self, *, attempts: int = 1000) -> Outcome:
        return ask(self.url, attempts=attempts)

    @property
    def asked(self) -> list[str]:
        return [
            f"{call.request.method} {str(call.request.url).removeprefix(self.url)}"
            for call in self.calls.calls
        ]


@pytest.fixture
def mock() -> Iterator[Mock]:
    """An endpoint that accepts connections, and its answers."""
    with silent_server() as url, responses.RequestsMock(assert_all_requests_are_fired=False) as calls:
        yield Mock(url, calls)


def test_a_whole_answer(mock: Mock) -> None:
    """Four requests; the token goes with all but its own."""
    mock.is_good()
    good = mock.ask().good
    assert (good.instance_id, good.version, good.keys[0].text) == ("i-1", 2, b"ssh-ed25519 AAAA launch\n")
    assert mock.asked == [f"PUT {TOKEN}", f"GET {INSTANCE_ID}", f"GET {INDEX}", f"GET {KEY}"]
    sent = [call.request.headers for call in mock.calls.calls]
    assert sent[0]["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
    assert [headers.get("X-aws-ec2-metadata-token") for headers in sent] == [None, *["the-token"] * 3]


def test_a_bad_line_of_the_list_costs_no_good_key(mock: Mock) -> None:
    """It is a key of its own that is refused; nothing is asked for in its name."""
    mock.is_good(but=INDEX)
    mock.says(INDEX, "../../user-data=x\n0=launch\n")
    good, bad = mock.ask().good.keys
    assert good.text == b"ssh-ed25519 AAAA launch\n"
    assert bad.refusal
    assert bad.refusal.reason.code == "bad-answer"
    assert mock.asked == [f"PUT {TOKEN}", f"GET {INSTANCE_ID}", f"GET {INDEX}", f"GET {KEY}"]


@pytest.mark.parametrize(
    "status, code",
    [
        *[(status, "bad-request") for status in (400,)],
        *[(status, "ok") for status in (403, 404, 405)],
        *[(status, "redirect-refused") for status in (300, 301, 302, 303, 304, 307, 308)],
        *[(status, "bad-answer") for status in (201, 202, 204, 206, 226)],
        *[(status, "imds-error") for status in (401, 402, 406, 408, 410, 418, 425, 429, 451)],
        *[(status, "imds-error") for status in (500, 501, 502, 503, 504, 507, 511, 599)],
    ],
)
@pytest.mark.sample(3)
def test_what_a_status_means_for_the_token(mock: Mock, status: int, code: str) -> None:
    """Only 403, 404 and 405 lead to version 1."""
    mock.says(TOKEN, status)
    mock.is_good(but=TOKEN)
    outcome = mock.ask(attempts=2)
    assert outcome.code == code
    if outcome.answer:
        assert outcome.answer.version == 1
    else:
        assert set(mock.asked) == {f"PUT {TOKEN}"}
        assert (len(mock.asked) > 1) == (code == "imds-error")


@pytest.mark.parametrize("path", [INSTANCE_ID, INDEX])
@pytest.mark.parametrize(
    "status, code",
    [
        (400, "bad-request"),
        (302, "redirect-refused"),
        (204, "bad-answer"),
        (401, "token-rejected"),
        (403, "imds-error"),
        (404, "imds-error"),
        (405, "imds-error"),
        (429, "imds-error"),
        (500, "imds-error"),
        (503, "imds-error"),
    ],
)
def test_what_a_status_means_for_a_value(mock: Mock, path: str, status: int, code: str) -> None:
    """With a good token: what may pass is asked again, what cannot pass is not."""
    mock.says(path, status)
    mock.is_good(but=path)
    if (path, status) == (INDEX, 404):  # launched without a key pair, as far as such a service can tell
        mock.says(INDEX.rstrip("/"), 404)
        mock.says("/latest/meta-data/", "instance-id\n")
        code = "ok"
    tried_again = code in ("imds-error", "token-rejected")
    outcome = mock.ask(attempts=2)
    assert outcome.code == code
    assert bool(outcome.of_kind("retry")) == tried_again


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_an_error_that_passes(mock: Mock, status: int) -> None:
    """Of the first value; 400 alone is final."""
    mock.says(INSTANCE_ID, status, status, "i-1")
    mock.is_good(but=INSTANCE_ID)
    assert mock.ask().code == ("bad-request" if status == 400 else "ok")


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("refused"),
        requests.Timeout("late"),
        requests.TooManyRedirects("round and round"),
        requests.exceptions.ChunkedEncodingError("cut"),
        requests.exceptions.InvalidHeader("odd"),
        requests.exceptions.ContentDecodingError("odd"),
        requests.RequestException("anything"),
    ],
)
@pytest.mark.parametrize("path", [TOKEN, INSTANCE_ID, KEY])
def test_the_librarys_exceptions_stay_inside(mock: Mock, path: str, error: Exception) -> None:
    """Each is translated at the door (STYLE)."""
    mock.says(path, error)
    mock.is_good(but=path)
    assert mock.ask(attempts=2).code == "imds-unreachable"


def test_switched_off(mock: Mock) -> None:
    """403 to everything."""
    for path in (TOKEN, INSTANCE_ID, INDEX, KEY):
        mock.says(path, 403)
    assert mock.ask().code == "imds-disabled"
    assert mock.asked == [f"PUT {TOKEN}", f"GET {INSTANCE_ID}"]


def test_403_in_the_middle_is_not_switched_off(mock: Mock) -> None:
    """The token was given, so the service is there; it is asked again."""
    mock.says(INDEX, 403, 403, "0=launch")
    mock.is_good(but=INDEX)
    outcome = mock.ask()
    assert outcome.good.keys[0].text


def test_a_token_that_is_renewed_in_the_middle(mock: Mock) -> None:
    """401 once: the same request again, with the new token; then on from there."""
    mock.says(TOKEN, "first", "second")
    mock.says(INDEX, 401, "0=launch")
    mock.is_good(but=TOKEN)
    outcome = mock.ask()
    assert outcome.good.version == 2
    assert mock.asked == [
        f"PUT {TOKEN}", f"GET {INSTANCE_ID}", f"GET {INDEX}", f"PUT {TOKEN}", f"GET {INDEX}", f"GET {KEY}",
    ]  # fmt: skip
    sent = [call.request.headers.get("X-aws-ec2-metadata-token") for call in mock.calls.calls]
    assert sent == [None, "first", "first", None, "second", "second"]
