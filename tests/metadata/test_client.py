"""The client's rules (DESIGN: The metadata service), against the emulator over real HTTP."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import HOSTS, PATIENCE, SILENCE, Attempts, ask, asking, needs_ipv6
from fault_table import EXPECTED, timeout
from raw_server import RawServer, answer, black_hole, ok, silent_server

from firstkey import __version__, reasons
from firstkey.events import Entry
from firstkey.metadata.client import Client
from firstkey.metadata.emulator import FAULTS, Emulator, Fault
from firstkey.metadata.emulator import Settings as Instance
from firstkey.reasons import FirstkeyError, Unreachable

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0bDCPBe8Z1tF8NYvZ7yDyM0Zr8TYBDx4TtMk0T0X1m launch"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2sDCPBe8Z1tF8NYvZ7yDyM0Zr8TYBDx4TtMk0T0X1m other"
ONE_KEY = Instance(instance_id="i-1", keys=(("launch", KEY),))
TOKEN_PATH = "/latest/api/token"
INSTANCE_ID = "/latest/meta-data/instance-id"
INDEX = "/latest/meta-data/public-keys/"
ALL_VERSIONS = ["auto", "2", "1"]


@contextlib.contextmanager
def service(*faults: str, host: str = "127.0.0.1", **change: Any) -> Iterator[Emulator]:
    """A service of one instance with one key, changed as said."""
    settings = Instance(**{"instance_id": "i-1", "keys": ONE_KEY.keys, **change})
    with Emulator(settings, faults=[Fault.parse(fault) for fault in faults], host=host) as running:
        yield running


def asked(running: Emulator) -> list[tuple[str, str]]:
    """Methods and paths, in order."""
    return [(request.method, request.path) for request in running.requests]


# --- every fault ------------------------------------------------------------------------------


def test_every_fault_has_a_promise() -> None:
    """A new one is given its outcome in the table, which the job is held to as well."""
    assert {name.partition(",")[0].partition("=")[0] for name in EXPECTED} == set(FAULTS)


@pytest.mark.parametrize("fault", EXPECTED)
@pytest.mark.sample(2)
def test_every_fault_ends_as_promised(fault: str) -> None:
    """With an answer or a reason, at once or only at the deadline."""
    status, outcome, code = EXPECTED[fault]
    is_an_answer = outcome in ("ok", "no-key") or code is None
    is_final = status != 75
    with service(fault) as running:
        attempts = 1000 if is_final else 1
        ended = ask(running.url, attempts=attempts, request_timeout=timeout(fault))
    assert ended.code == ("ok" if is_an_answer else code)
    assert isinstance(ended.error, Unreachable) != is_final
    assert is_final or ended.of_kind("retry")


# --- what is asked, and how -------------------------------------------------------------------


def test_one_question() -> None:
    """A token, the instance-id, the list, each key; nothing else is read, above all no credentials."""
    with service(keys=(("launch", KEY), ("other", OTHER))) as running:
        good = ask(running.url).good
    assert (good.instance_id, good.endpoint, good.version, good.fallback_reason) == (
        "i-1",
        running.url,
        2,
        None,
    )
    assert [(key.number, key.name, key.text, key.refusal) for key in good.keys] == [
        ("0", "launch", f"{KEY}\n".encode(), None),
        ("1", "other", f"{OTHER}\n".encode(), None),
    ]
    assert asked(running) == [
        ("PUT", TOKEN_PATH),
        ("GET", INSTANCE_ID),
        ("GET", INDEX),
        ("GET", f"{INDEX}0/openssh-key"),
        ("GET", f"{INDEX}1/openssh-key"),
    ]
    assert [request.had_token for request in running.requests] == [False, True, True, True, True]


def test_requests_say_what_they_must_and_no_more() -> None:
    """The TTL goes with the token request, and nothing that the environment or a library adds."""
    with RawServer() as server:
        ask(server.url, token_ttl=300)
    expected = {
        "host": server.url.removeprefix("http://"),
        "user-agent": f"firstkey/{__version__}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }
    (put,), (get,) = server.headers("PUT"), server.headers("GET /latest/meta-data/instance-id")
    assert put == {**expected, "x-aws-ec2-metadata-token-ttl-seconds": "300", "content-length": "0"}
    token = get.pop("x-aws-ec2-metadata-token")
    assert token == "AQAEAOaLUQnv-secret-token-of-the-service=="
    assert get == expected


def test_without_a_key_pair() -> None:
    """404 to the list of keys is an answer."""
    with service(keys=()) as running:
        outcome = ask(running.url)
    assert outcome.good.keys == ()
    assert ("GET", INDEX) in asked(running)
    assert not outcome.of_kind("retry")


def test_keys_come_in_the_order_of_their_numbers() -> None:
    """0 first, whatever the list's order."""
    lines = b"10=ten\n2=two\n0=nought\n"
    answers = {f"GET {INDEX}": ok(lines)} | {
        f"GET {INDEX}{number}/openssh-key": ok(KEY.encode()) for number in (0, 2, 10)
    }
    with RawServer(dict(answers)) as server:
        good = ask(server.url).good
    assert [(key.number, key.name) for key in good.keys] == [("0", "nought"), ("2", "two"), ("10", "ten")]


@pytest.mark.parametrize("host", HOSTS)
def test_either_family(host: str) -> None:
    """IPv6-only subnets reach the service too (PEERS, complaint 7)."""
    with service(host=host) as running:
        assert ask(running.url).good.endpoint == running.url


# --- tokens and versions ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 405])
def test_auto_falls_back_where_no_token_is_given(status: int) -> None:
    """403, 404 and 405 to the token request: version 1, with a warning that names the reason."""
    with service(tokens="absent", token_refusal=status) as running:
        outcome = ask(running.url)
    assert (outcome.good.version, outcome.good.fallback_reason) == (1, reasons.TOKEN_REFUSED)
    (notice,) = outcome.of_kind("fallback")
    assert notice["reason"] == "token-refused"
    assert str(status) in notice["detail"]
    assert not any(request.had_token for request in running.requests)


def test_auto_falls_back_where_the_token_does_not_arrive() -> None:
    """A hop limit that the answer cannot cross: the connection stands, the answer never comes."""
    with service("token-silence") as running:
        outcome = ask(running.url, request_timeout=SILENCE)
    assert outcome.good.version == 1
    assert [notice["reason"] for notice in outcome.of_kind("fallback")] == ["token-timeout"]


@pytest.mark.parametrize("status", [401, 402, 429, 500, 501, 503])
def test_auto_does_not_fall_back_for_anything_else(status: int) -> None:
    """A service in trouble is asked again; without a token it is not asked at all."""
    with service(f"status={status},path={TOKEN_PATH}") as running:
        outcome = ask(running.url, attempts=2)
    assert (outcome.code, outcome.of_kind("fallback")) == ("imds-error", [])
    assert {method for method, _ in asked(running)} == {"PUT"}
    assert len(running.requests) > 1


@pytest.mark.parametrize("fault", [None, *FAULTS])
@pytest.mark.sample(3)
def test_version_2_sends_nothing_without_a_token(fault: str | None) -> None:
    """Whatever goes wrong."""
    with service(*([fault] if fault else [])) as running:
        ask(running.url, wait=0.15, version="2", request_timeout=0.1)
    assert all(request.had_token for request in running.requests if request.method == "GET")


@pytest.mark.parametrize("fault", [None, *FAULTS])
@pytest.mark.sample(3)
def test_version_1_asks_for_no_token(fault: str | None) -> None:
    """Whatever goes wrong."""
    with service(*([fault] if fault else [])) as running:
        ask(running.url, wait=0.15, version="1", request_timeout=0.1)
    assert {request.method for request in running.requests} <= {"GET"}
    assert not any(request.had_token for request in running.requests)


@pytest.mark.parametrize(
    "refusal, code", [(403, "imds-disabled"), (404, "token-refused"), (405, "token-refused")]
)
def test_version_2_where_there_is_none(refusal: int, code: str) -> None:
    """An error at once, not a wait: there will be no token later."""
    with service(tokens="absent", token_refusal=refusal) as running:
        outcome = ask(running.url, version="2")
    assert outcome.code == code
    assert not isinstance(outcome.error, Unreachable)
    assert len(running.requests) == 1


def test_version_2_waits_for_a_token_that_does_not_arrive() -> None:
    """Nobody knows whether the next one will; the reason tells of the hop limit."""
    with service("token-silence") as running:
        outcome = ask(running.url, attempts=1, version="2", request_timeout=0.5)
    assert outcome.code == "token-timeout"
    assert isinstance(outcome.error, Unreachable)
    assert "hop-limit" in outcome.error.hint


def test_our_own_deadline_says_nothing_of_the_hop_limit() -> None:
    """A token request that had no time to be answered is no reason to go on without a token."""
    with service("token-silence") as running:
        outcome = ask(running.url, wait=0.1)
    assert outcome.code == "imds-unreachable"
    assert {request.method for request in running.requests} <= {"PUT"}


def test_version_1_where_it_is_off() -> None:
    """401 without a token: an error that says so."""
    with service(tokens="required") as running:
        outcome = ask(running.url, version="1")
    assert outcome.code == "v1-disabled"
    assert "Version=1" in str(outcome.error)
    assert len(running.requests) == 1


def test_auto_where_version_1_is_off_and_no_token_is_given() -> None:
    """401 after the token was refused: the same error, with what led to it."""
    with service(f"status=404,path={TOKEN_PATH}", tokens="required") as running:
        outcome = ask(running.url)
    assert outcome.code == "v1-disabled"
    assert asked(running) == [("PUT", TOKEN_PATH), ("GET", INSTANCE_ID)]


@pytest.mark.slow
def test_auto_where_version_1_is_off_and_tokens_arrive_later() -> None:
    """401 after a token request without an answer: the next token may arrive."""
    with service("token-silence,first=1", tokens="required") as running:
        outcome = ask(running.url, request_timeout=SILENCE)
    assert outcome.good.version == 2
    assert {notice["reason"] for notice in outcome.of_kind("retry")} == {"token-timeout"}


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_an_expired_token_is_renewed(uses: int) -> None:
    """A 401 with a token means a new one."""
    with service(f"expired-tokens={uses}") as running:
        outcome = ask(running.url)
    assert outcome.good.version == 2
    assert outcome.news == []


def test_each_request_is_told_with_its_status_and_time() -> None:
    """Whether it went with a token too, and how the token request ended; never what the token is."""
    with service("status=401,path=/latest/meta-data/instance-id,first=1", "delay=0.2,first=1") as running:
        logged = ask(running.url).of_kind("request")
    paths = ["api/token", "meta-data/instance-id", "api/token", "meta-data/instance-id"]
    requests = [fields["request"] for fields in logged]
    assert [request.partition(",")[0].partition("/latest/")[2] for request in requests][:4] == paths
    assert [fields["status"] for fields in logged][:4] == ["200", "401", "200", "200"]
    assert all((", with a token" in request) is request.startswith("GET") for request in requests)
    assert float(logged[0]["seconds"]) >= 0.2
    assert all(float(notice["seconds"]) >= 0 for notice in logged)


def test_a_token_is_renewed_once_for_a_request() -> None:
    """A fresh token that is rejected ends the attempt; two GETs, no endless exchange of tokens."""
    said: list[Entry] = []

    def end(_pause: float) -> None:
        raise InterruptedError

    with service("expired-tokens=0") as running:
        client = Client(
            asking(endpoints=(running.url,), request_timeout=PATIENCE), log=said.append, sleep=end
        )
        with pytest.raises(InterruptedError):
            client.ask(deadline=float("inf"))
    assert said[-1].fields["reason"] == "token-rejected"
    assert asked(running) == [("PUT", TOKEN_PATH), ("GET", INSTANCE_ID)] * 2


def test_fresh_tokens_that_are_rejected_for_a_while() -> None:
    """EC2 itself does that early in an instance's life (PEERS, complaint 9): asked again, not given up."""
    with service("status=401,first=9,path=/latest/meta-data/") as running:
        outcome = ask(running.url)
    assert outcome.good.version == 2


def test_fresh_tokens_that_are_always_rejected() -> None:
    """At the deadline the reason says what happened, and it is no success."""
    with service("expired-tokens=0") as running:
        outcome = ask(running.url, attempts=1)
    assert (outcome.code, type(outcome.error)) == ("token-rejected", Unreachable)


def test_a_token_is_kept_from_one_question_to_the_next() -> None:
    """It is asked for once."""
    with service() as running:
        client = Client(asking(endpoints=(running.url,), request_timeout=PATIENCE))
        for _ in range(3):
            client.ask(deadline=None)
        assert [method for method, _ in asked(running)].count("PUT") == 1


def test_a_kept_token_that_is_not_good_any_more_is_replaced() -> None:
    """The service may have been restarted."""
    with service() as running:
        client = Client(asking(endpoints=(running.url,), request_timeout=PATIENCE))
        client.ask(deadline=None)
        running.inject(Fault.parse("status=401,first=1"))
        assert client.ask(deadline=None).version == 2


def test_a_token_that_was_rejected_is_not_shown_again() -> None:
    """Where no new one is given in its place, later questions go without."""
    with service() as running:
        client = Client(asking(endpoints=(running.url,), request_timeout=PATIENCE))
        client.ask(deadline=None)
        running.inject(Fault.parse("status=401,first=1"), Fault.parse(f"status=404,path={TOKEN_PATH}"))
        assert client.ask(deadline=None).version == 1
        before = len(running.requests)
        assert client.ask(deadline=None).version == 1
        assert not any(request.had_token for request in running.requests[before:])


@pytest.mark.parametrize("ttl, age, renewed", [(21600, 20000, False), (21600, 20530, True), (60, 51, True)])
def test_a_token_is_renewed_before_it_expires(ttl: int, age: float, renewed: bool) -> None:
    """With some time to spare; until then it is used again."""
    now = [1000.0]
    with service() as running:
        client = Client(
            asking(endpoints=(running.url,), token_ttl=ttl, request_timeout=PATIENCE), clock=lambda: now[0]
        )
        client.ask(deadline=None)
        now[0] += age
        client.ask(deadline=None)
    assert [method for method, _ in asked(running)].count("PUT") == (2 if renewed else 1)


@pytest.mark.parametrize("ttl", [1, 2, 10, 21600])
def test_any_life_of_a_token_will_do(ttl: int) -> None:
    """Even the shortest is not renewed at each request."""
    with service() as running:
        assert ask(running.url, token_ttl=ttl).good.version == 2
    assert [method for method, _ in asked(running)].count("PUT") == 1


def test_a_life_that_the_service_does_not_take_is_our_fault() -> None:
    """400: an error, no fallback and no second attempt."""
    with service() as running:
        outcome = ask(running.url, token_ttl=21601)
    assert (outcome.code, outcome.news) == ("bad-request", [])
    assert len(running.requests) == 1


# --- switched off -----------------------------------------------------------------------------


@pytest.mark.parametrize("version, requests", [("auto", 2), ("2", 1), ("1", 1)])
def test_switched_off_is_an_answer(version: str, requests: int) -> None:
    """403 to everything: no retry, no minutes lost (PEERS, complaint 8)."""
    with service(enabled=False) as running:
        outcome = ask(running.url, version=version)
    assert outcome.code == "imds-disabled"
    assert not isinstance(outcome.error, Unreachable)
    assert len(running.requests) == requests


def test_switched_off_where_the_token_request_is_answered_with_404() -> None:
    """As an older service does it."""
    with service(f"status=404,path={TOKEN_PATH}", "status=403,path=/latest/meta-data") as running:
        assert ask(running.url).code == "imds-disabled"


@pytest.mark.parametrize("path", [INDEX, f"{INDEX}0/"])
def test_403_without_a_token_in_the_middle_is_not_switched_off(path: str) -> None:
    """The instance-id was told, so the service is there; it is asked again."""
    with service(f"status=403,path={path}", tokens="absent") as running:
        outcome = ask(running.url, attempts=1)
    assert (outcome.code, type(outcome.error)) == ("imds-error", Unreachable)


@pytest.mark.slow
def test_403_where_the_token_did_not_arrive_is_not_switched_off() -> None:
    """A service that is switched off answers the token request as well."""
    with service("token-silence", f"status=403,path={INSTANCE_ID}") as running:
        outcome = ask(running.url, attempts=1, request_timeout=SILENCE)
    assert (outcome.code, type(outcome.error)) == ("imds-error", Unreachable)


def test_switched_off_since_the_token_was_given() -> None:
    """A kept token does not hide it."""
    with service() as running:
        client = Client(asking(endpoints=(running.url,), request_timeout=PATIENCE))
        client.ask(deadline=None)
        running.change(enabled=False)
        with pytest.raises(FirstkeyError) as caught:
            client.ask(deadline=None)
    assert caught.value.reason.code == "imds-disabled"


# --- what passes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        "status=503,first=5",
        "status=429,first=5",
        "status=500,first=2,path=/latest/meta-data/public-keys/0",
        f"status=404,first=3,path={INSTANCE_ID}",
        f"status=403,first=4,path={INDEX}",
        f"status=403,first=2,path={INDEX}0",
        f"status=404,first=2,path={INDEX}0/openssh-key",
        "reset,first=5",
        "truncated,first=5",
        "truncated,first=5,path=/latest/meta-data",
        "silence,first=1",
        "drip=0.2,first=1",
        "delay=0.1",
        "refuse=0.3",
    ],
)
@pytest.mark.parametrize("version", ["auto", "2"])
@pytest.mark.sample(3)
def test_trouble_that_passes_costs_nobody_a_login(fault: str, version: str) -> None:
    """What a service says while it comes up is no verdict: it is asked again until it is itself."""
    silent = fault.startswith(("silence", "drip"))
    with service(fault) as running:
        outcome = ask(running.url, version=version, request_timeout=SILENCE if silent else PATIENCE)
    assert (outcome.good.instance_id, len(outcome.good.keys)) == ("i-1", 1)
    assert outcome.good.keys[0].refusal is None


@pytest.mark.parametrize("fault", ["status=404", "silence", "truncated", "reset", "status=500"])
@pytest.mark.sample(3)
def test_a_key_that_cannot_be_had_does_not_cost_the_others(fault: str) -> None:
    """It is refused on its own, and nobody waits for it."""
    keys = (("launch", KEY), ("missing", OTHER), ("other", OTHER))
    with service(f"{fault},path={INDEX}1/", keys=keys) as running:
        outcome = ask(running.url, request_timeout=SILENCE if fault == "silence" else PATIENCE)
    assert [bool(key.text) for key in outcome.good.keys] == [True, False, True]
    refusal = outcome.good.keys[1].refusal
    assert refusal
    assert refusal.reason.code in ("imds-error", "imds-unreachable")
    assert not outcome.of_kind("retry")


def test_no_key_at_all_that_can_be_had_is_no_answer() -> None:
    """With nothing to install there is nothing to lose by asking on."""
    with service(f"status=404,path={INDEX}0/") as running:
        outcome = ask(running.url, attempts=1)
    assert (outcome.code, type(outcome.error)) == ("imds-error", Unreachable)


def test_the_instance_is_told_where_its_keys_cannot_be_had() -> None:
    """What came along from another one need not wait for them."""
    with service(f"status=500,path={INDEX}") as running:
        counted = Attempts(1, running.url)
        settings = asking(endpoints=(running.url,), request_timeout=PATIENCE)
        client = Client(settings, log=counted.log, clock=counted.clock)
        with pytest.raises(Unreachable) as caught:
            client.ask(deadline=time.monotonic() + PATIENCE)
    assert caught.value.reason.code == "imds-error"
    assert client.identity
    assert client.identity.instance_id == "i-1"


# --- two endpoints ----------------------------------------------------------------------------


def test_the_first_listed_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both answer, the second is not asked; on a busy machine its turn might come before the answer."""
    monkeypatch.setattr("firstkey.metadata.client.HEAD_START", 60.0)
    with service() as first, service() as second:
        assert ask(first.url, second.url).good.endpoint == first.url
    assert not second.requests


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.sample(2)
def test_whatever_ails_one_endpoint_the_other_answers(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what the first one does not say; its verdict does not bind the other."""
    monkeypatch.setattr("firstkey.metadata.client.GRACE", 60.0)  # a busy machine takes longer than a tenth
    no_matter = {"bad-key", "bad-neighbour"}  # what comes is an answer
    with service(fault) as first, service() as second:
        outcome = ask(first.url, second.url)
    assert outcome.seconds < PATIENCE / 2
    assert outcome.good.endpoint == (first.url if fault in no_matter else second.url)


def test_one_endpoint_that_accepts_and_keeps_silent() -> None:
    """It does not delay the other by the time that its requests may take."""
    with silent_server() as silent, service() as good:
        for urls in ([silent, good.url], [good.url, silent]):
            outcome = ask(*urls)
            assert outcome.good.endpoint == good.url
            assert outcome.seconds < PATIENCE / 2


def test_one_endpoint_that_keeps_silent_while_the_other_comes_up() -> None:
    """Nor does it slow down the attempts at the other; its own first request goes on meanwhile."""
    with silent_server() as silent, service("status=503,first=5") as good:
        outcome = ask(silent, good.url)
    assert outcome.good.endpoint == good.url
    assert outcome.seconds < PATIENCE / 2


@pytest.mark.slow
def test_a_token_that_does_not_arrive_beside_an_endpoint_that_refuses() -> None:
    """The fallback takes its time, and gets it, however often the other endpoint fails meanwhile."""
    with service("token-silence") as first, service("refuse") as second:
        outcome = ask(first.url, second.url, request_timeout=SILENCE)
    assert outcome.good.version == 1


def test_one_endpoint_that_nobody_answers_for() -> None:
    """A route that leads nowhere holds up nobody, whichever it is."""
    with black_hole() as nowhere, service() as good:
        for urls in ([nowhere, good.url], [good.url, nowhere]):
            outcome = ask(*urls)
            assert outcome.good.endpoint == good.url
            assert outcome.seconds < PATIENCE


def test_a_route_that_leads_nowhere_does_not_slow_down_the_retries() -> None:
    """A service that comes up after some errors is not asked only every other second because of it."""
    with black_hole() as nowhere, service("status=503,first=4") as good:
        outcome = ask(good.url, nowhere)
    assert outcome.good.endpoint == good.url
    assert outcome.seconds < PATIENCE


def test_switched_off_at_one_endpoint_and_not_at_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoints are switched on and off separately (HttpProtocolIpv6)."""
    monkeypatch.setattr("firstkey.metadata.client.GRACE", 60.0)  # as above
    with service(enabled=False) as off, service() as good:
        assert ask(off.url, good.url).good.endpoint == good.url


def test_switched_off_at_one_endpoint_and_the_other_out_of_reach() -> None:
    """The usual case: no IPv6. It is an answer, and soon."""
    with service(enabled=False) as off, service("refuse") as refusing, black_hole() as nowhere:
        assert ask(off.url, refusing.url).code == "imds-disabled"
        outcome = ask(off.url, nowhere)
    assert outcome.code == "imds-disabled"
    assert len(off.requests) == 4
    assert outcome.seconds < PATIENCE


def test_two_slow_endpoints() -> None:
    """The first has the time that a request may take."""
    with service("delay=0.5") as first, service("delay=0.5") as second:
        outcome = ask(first.url, second.url)
    assert outcome.good.version == 2


@pytest.mark.slow
def test_tokens_that_arrive_from_neither_endpoint() -> None:
    """A hop limit counts for both: version 1, and not only after many attempts."""
    with service("token-silence") as first, service("token-silence") as second:
        outcome = ask(first.url, second.url, request_timeout=SILENCE)
    assert outcome.good.version == 1
    assert not outcome.of_kind("retry")


def test_a_token_goes_only_where_it_came_from() -> None:
    """Each endpoint has its own."""
    with service("status=503,path=/latest/meta-data") as first, RawServer() as second:
        assert ask(first.url, second.url).good.endpoint == second.url
        tokens = [
            headers["x-aws-ec2-metadata-token"]
            for headers in second.headers("GET /latest/meta-data/instance-id")
        ]
    assert tokens == ["AQAEAOaLUQnv-secret-token-of-the-service=="]


@needs_ipv6
def test_everything_out_of_reach_says_so_of_each() -> None:
    """One sentence names both endpoints."""
    with service("refuse") as first, service("refuse", host="::1") as second:
        outcome = ask(first.url, second.url, attempts=1)
    assert outcome.code == "imds-unreachable"
    assert f"{first.url}: connection refused" in str(outcome.error)
    assert f"{second.url}: connection refused" in str(outcome.error)


def test_an_endpoint_that_is_listed_twice_is_asked_once() -> None:
    """In each attempt, and it stands once in the sentence."""
    with service("status=500") as running:
        outcome = ask(running.url, running.url, attempts=1)
    assert str(outcome.error).count(running.url) == 1


def test_the_same_is_told_once() -> None:
    """A fallback that is made in every attempt is one warning, not one every two seconds."""
    with service(
        "status=403,first=1", f"status=404,path={TOKEN_PATH}", f"status=500,first=4,path={INDEX}"
    ) as running:
        outcome = ask(running.url)
    assert len(outcome.of_kind("retry")) == 4
    assert len(outcome.of_kind("fallback")) == 1


# --- nobody else decides where requests go ----------------------------------------------------


def test_proxies_and_netrc_of_the_environment_mean_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Promise 4: a proxy variable gains nobody anything, nor does a file with passwords."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login eve password secret\n")
    with RawServer() as server, service() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        assert ask(server.url).good.endpoint == server.url
    assert not proxy.requests
    assert not any(
        "authorization" in headers for headers in server.headers("GET /latest/meta-data/instance-id")
    )


@pytest.mark.parametrize("path", [TOKEN_PATH, INSTANCE_ID, INDEX])
def test_a_redirect_is_refused(path: str) -> None:
    """It is not followed, not even looked at."""
    with service() as target, service(f"redirect={target.url}/x,path={path}") as running:
        outcome = ask(running.url)
    assert (outcome.code, target.requests) == ("redirect-refused", [])


def test_a_redirect_of_one_key_costs_only_that_key() -> None:
    """The good one beside it still comes."""
    with service(f"redirect,path={INDEX}0/", keys=(("bad", KEY), ("good", OTHER))) as running:
        first, second = ask(running.url).good.keys
    assert first.refusal
    assert first.refusal.reason.code == "redirect-refused"
    assert second.text == f"{OTHER}\n".encode()


looked_up: list[str] = []


def _note_look_up(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        looked_up.append(f"{event} {arguments[0]!r} in {threading.current_thread().name}")


sys.addaudithook(_note_look_up)


@pytest.mark.parametrize("host", HOSTS)
def test_no_name_is_ever_looked_up(host: str) -> None:
    """Not even a literal address goes to the resolver, which may wait for minutes (PEERS, complaint 8)."""
    with service(host=host) as running:
        looked_up.clear()
        assert ask(running.url).good
    assert looked_up == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://metadata.example/",
        "https://127.0.0.1",
        "http://127.1",
        "http://0x7f000001",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://user@127.0.0.1",
        "http://127.0.0.1/path",
        "http://[::1",
        "http://[fd00::1%lo]",
        "http://[fe80::1%]",
        "",
    ],
)
def test_only_literal_addresses_are_endpoints(url: str) -> None:
    """Anything else is an error before a socket is opened."""
    with pytest.raises(ValueError, match=r"^$"):
        Client(asking(endpoints=("http://127.0.0.1", url)))


# --- what leaves the process ------------------------------------------------------------------


def everything_said(caught: BaseException | None) -> str:
    """An exception with all that led to it."""
    text = ""
    while caught is not None:
        text += f"{caught!r} {caught} {caught.args!r} {getattr(caught, 'hint', '')}"
        caught = caught.__context__
    return text


@pytest.mark.parametrize(
    "fault", [None, "status=400", "status=500", "truncated", "bad-index", "html", "redirect"]
)
@pytest.mark.parametrize("path", [INSTANCE_ID, INDEX, f"{INDEX}0/openssh-key"])
def test_a_token_is_told_to_nobody(fault: str | None, path: str) -> None:
    """Not in an answer, a notice, an error, nor in what any of our objects says of itself."""
    secret = "AQAEAOaLUQnv-secret-token-of-the-service=="
    page = b"you sent " + secret.encode()
    answers: dict[str, Any] = {f"GET {path}": {
        None: ok(page),
        "status=400": ok(page, status="400 Bad Request"),
        "status=500": ok(page, status="500 Oh"),
        "truncated": answer("HTTP/1.1 200 OK\nContent-Length: 999", page),
        "bad-index": ok(b"\0" + page),
        "html": ok(b"<html>" + page),
        "redirect": ok(page, f"Location: http://127.0.0.1/{secret}", status="302 Found"),
    }[fault]}  # fmt: skip
    with RawServer(answers) as server:
        counted = Attempts(1, server.url)
        client = Client(
            asking(endpoints=(server.url,), request_timeout=PATIENCE),
            log=counted.log,
            clock=counted.clock,
        )
        said = ""
        try:
            said += repr(client.ask(deadline=counted.clock() + PATIENCE))
        except FirstkeyError as error:
            said += everything_said(error)
        said += repr(counted.logged) + repr(client) + repr(vars(client))
    assert len(server.headers("GET /latest/meta-data/instance-id")) > 0
    assert secret not in said
    assert secret[:20] not in said


def test_no_descriptor_is_left_open() -> None:
    """After good answers and bad ones alike (a ResourceWarning fails the test, too)."""
    before = os.listdir("/proc/self/fd")
    with service() as good, service("truncated") as bad, silent_server() as silent, black_hole() as nowhere:
        ask(nowhere, bad.url, good.url)
        ask(silent, bad.url, wait=0.2, request_timeout=0.1)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "module, remedy, named",
    [
        ("raise ImportError(name='urllib3')\n", "install python3-requests", "(package python3-requests)"),
        ("open('/nonexistent/ca-certificates.crt')\n", "--reinstall ca-certificates", "ca-certificates.crt"),
    ],
    ids=["missing", "without certificates"],
)
def test_a_requests_that_cannot_be_imported_is_told(
    module: str, remedy: str, named: str, tmp_path: Path
) -> None:
    """Also where it reads certificates as it is imported (2.32), and there are none.

    The report has the message alone, and its remedy: to install the package that is named.
    """
    (tmp_path / "requests.py").write_text(module)
    program = (
        "from firstkey.config import Imds\n"
        "from firstkey.metadata.client import Client\n"
        "from firstkey.reasons import FirstkeyError\n"
        "try:\n    Client(Imds((), 'auto', 1, 1.0, 1.0))\n"
        "except FirstkeyError as error:\n    print(error.reason.code, error.hint, error.message)\n"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, env=environ, capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout.startswith("dependency-missing ")
    assert remedy in done.stdout
    assert named in done.stdout
