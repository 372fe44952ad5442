"""The embedded metadata service, asked over real sockets: its rules, its faults, its end."""

from __future__ import annotations

import ast
import contextlib
import http.client
import itertools
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from firstkey.metadata import emulator
from firstkey.metadata.emulator import FAULTS, Asked, Emulator, Fault, Settings, usage
from firstkey.metadata.emulator.rules import Tokens

GENEROUS = 60.0  # seconds: how long a client here waits for what must come
PROMPT = 20.0  # seconds: close promises one, and a busy machine gets the others
SHORT = 0.3  # seconds: how long it waits for what must not come

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0bDCPBe8Z1tF8NYvZ7yDyM0Zr8TYBDx4TtMk0T0X1m launch"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2sDCPBe8Z1tF8NYvZ7yDyM0Zr8TYBDx4TtMk0T0X1m other"
TOKEN_PATH = "/latest/api/token"
INSTANCE_ID = "/latest/meta-data/instance-id"
INDEX = "/latest/meta-data/public-keys/"
FIRST_KEY = "/latest/meta-data/public-keys/0/openssh-key"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"

TWO_KEYS = Settings(instance_id="i-1", keys=(("launch", KEY), ("other", OTHER_KEY)))


class Answer(NamedTuple):
    """What the client got."""

    status: int
    body: str
    headers: http.client.HTTPMessage


@contextlib.contextmanager
def running(*faults: str, settings: Settings = TWO_KEYS, host: str = "127.0.0.1") -> Iterator[Emulator]:
    """A service with these faults, as the command line writes them."""
    with Emulator(settings, faults=[Fault.parse(fault) for fault in faults], host=host) as service:
        yield service


def ask(
    service: Emulator,
    path: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout: float = GENEROUS,
) -> Answer:
    """One request on a connection of its own."""
    host = "::1" if "[" in service.url else "127.0.0.1"
    connection = http.client.HTTPConnection(host, service.port, timeout=timeout)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.read().decode("utf-8"), response.msg)
    finally:
        connection.close()


def token(service: Emulator, ttl: int = 60) -> str:
    """A fresh token."""
    answer = ask(service, TOKEN_PATH, "PUT", headers={TTL: str(ttl)})
    assert answer.status == 200
    return answer.body


def send(service: Emulator, request: bytes) -> socket.socket:
    """A bare connection on which `request` was sent."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=GENEROUS)
    connection.sendall(request)
    return connection


def get(path: str) -> bytes:
    """A request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode("ascii")


def is_up(service: Emulator) -> bool:
    """Whether it answers, and rightly."""
    try:
        return ask(service, INSTANCE_ID).body == service.settings.instance_id
    except ConnectionRefusedError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns as soon as the condition holds; fails the test if it never does."""
    deadline = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


# --- what the service tells -------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, body",
    [
        (INSTANCE_ID, "i-1"),
        (INDEX, "0=launch\n1=other"),
        (INDEX.rstrip("/"), "0=launch\n1=other"),
        (INDEX + "0/", "openssh-key"),
        (INDEX + "1", "openssh-key"),
        (FIRST_KEY, KEY + "\n"),
        (INDEX + "1/openssh-key", OTHER_KEY + "\n"),
        ("/2021-03-23/meta-data/instance-id", "i-1"),
        ("/1.0/meta-data/instance-id", "i-1"),
        ("/latest/meta-data/", "ami-id\nhostname\ninstance-id\nlocal-ipv4\npublic-keys/"),
        ("/latest/meta-data/local-ipv4", "192.0.2.10"),
        ("/latest/", "meta-data"),
        ("/", "latest"),
        (INSTANCE_ID + "?query=ignored", "i-1"),
    ],
)
def test_documents(path: str, body: str) -> None:
    """Values and listings stand where the real service has them, as plain text from EC2ws."""
    with running() as service:
        answer = ask(service, path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["Server"] == "EC2ws"
    assert answer.headers["Connection"] == "close"
    assert TTL not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/latest/user-data",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/dynamic/instance-identity/document",
        "/latest/meta-data/nothing",
        INSTANCE_ID + "/",
        INDEX + "2/",
        INDEX + "2/openssh-key",
        INDEX + "0/other-format",
        FIRST_KEY + "/",
        "/newest/meta-data/instance-id",
        "//latest/meta-data/instance-id",
    ],
)
def test_everything_else_is_an_error_page(path: str) -> None:
    """No credentials, no user-data, nothing by accident: 404 with an XHTML page."""
    with running() as service:
        answer = ask(service, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "text/html"
    assert "<title>404 - Not Found</title>" in answer.body
    assert "http://www.w3.org/1999/xhtml" in answer.body


def test_no_key_pair() -> None:
    """Without keys there is no public-keys/, not even in the listing."""
    with running(settings=Settings()) as service:
        assert ask(service, INDEX).status == 404
        assert ask(service, INDEX.rstrip("/")).status == 404
        assert ask(service, FIRST_KEY).status == 404
        assert "public-keys" not in ask(service, "/latest/meta-data/").body


def test_head_is_get_without_a_body() -> None:
    """HEAD tells the length and sends nothing."""
    with running() as service, send(service, get(INSTANCE_ID).replace(b"GET", b"HEAD")) as connection:
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_other_methods(method: str) -> None:
    """Only reading and token requests are allowed."""
    with running() as service:
        assert ask(service, INSTANCE_ID, method).status == 405


def test_keys_are_served_byte_for_byte() -> None:
    """A hostile key line or name goes out as it was given, undecodable bytes included."""
    line = b"ssh-rsa \xff\x00 key".decode("utf-8", "surrogateescape")
    with running(settings=Settings(keys=(("na\x1bme", line),))) as service:
        with send(service, get(FIRST_KEY)) as connection:
            assert read_all(connection).endswith(b"\r\n\r\nssh-rsa \xff\x00 key\n")
        assert ask(service, INDEX).body == "0=na\x1bme"


def test_ipv6() -> None:
    """It serves on ::1 just so."""
    with running(host="::1") as service:
        assert service.url == f"http://[::1]:{service.port}"
        assert ask(service, INSTANCE_ID).body == "i-1"


def test_connections_close_as_the_real_ones_do_unless_told_otherwise() -> None:
    """keep_alive=True answers a second request on the same connection; the default closes it."""
    two = get(INSTANCE_ID) + get("/latest/") + get("/").replace(b"Host: test", b"Connection: close")
    with running() as service, send(service, two) as connection:
        assert read_all(connection).count(b"HTTP/1.1 200") == 1
    with running(settings=Settings(keep_alive=True)) as service, send(service, two) as connection:
        assert read_all(connection).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /latest/ HTTP/1.1 x\r\n\r\n",
        b"GET /latest/ SPDY/3\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        b"GET /" + b"x" * 8192,
    ],
)
def test_malformed_requests(request_bytes: bytes) -> None:
    """What is not HTTP is answered with 400, and the service lives on."""
    with running() as service:
        with send(service, request_bytes) as connection:
            assert connection.recv(64).startswith(b"HTTP/1.1 400 ")
        assert ask(service, INSTANCE_ID).status == 200


# --- tokens -----------------------------------------------------------------------------------


def test_token_of_version_2() -> None:
    """A token is handed out with its life in the header, and opens everything."""
    with running(settings=Settings(tokens="required")) as service:
        answer = ask(service, TOKEN_PATH, "PUT", headers={TTL: "60"})
        assert (answer.status, answer.headers[TTL]) == (200, "60")
        assert len(answer.body) == 56
        read = ask(service, INSTANCE_ID, headers={TOKEN: answer.body})
        assert read.status == 200
        assert 1 <= int(read.headers[TTL]) <= 60
        assert token(service) != answer.body


@pytest.mark.parametrize("ttl", ["1", "21600", " 60 "])
def test_life_of_a_token(ttl: str) -> None:
    """One second to six hours."""
    with running() as service:
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: ttl}).status == 200


@pytest.mark.parametrize("ttl", ["0", "21601", "-1", "", "soon", "1.5", "9" * 30])
def test_life_of_a_token_out_of_range(ttl: str) -> None:
    """Anything else is our own fault: 400."""
    with running() as service:
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: ttl}).status == 400


def test_token_without_a_life() -> None:
    """The header is required."""
    with running() as service:
        assert ask(service, TOKEN_PATH, "PUT").status == 400


def test_token_through_a_proxy() -> None:
    """A token request that was forwarded for somebody is refused; reading is not."""
    with running() as service:
        forwarded = {TTL: "60", "X-Forwarded-For": "192.0.2.1"}
        assert ask(service, TOKEN_PATH, "PUT", headers=forwarded).status == 403
        assert ask(service, INSTANCE_ID, headers={"X-Forwarded-For": "192.0.2.1"}).status == 200


def test_token_elsewhere() -> None:
    """Tokens are had with PUT, and under "latest" only."""
    with running() as service:
        assert ask(service, "/2021-03-23/api/token", "PUT", headers={TTL: "60"}).status == 403
        answer = ask(service, TOKEN_PATH)
        assert (answer.status, answer.headers["Allow"]) == (405, "OPTIONS, PUT")


def test_both_versions() -> None:
    """With tokens optional, no token is fine and a bad one is not."""
    with running() as service:
        assert ask(service, INSTANCE_ID).status == 200
        assert ask(service, INSTANCE_ID, headers={TOKEN: token(service)}).status == 200
        assert ask(service, INSTANCE_ID, headers={TOKEN: "made-up"}).status == 401
        assert ask(service, INSTANCE_ID, headers={TOKEN: ""}).status == 401


@pytest.mark.parametrize("path", [INSTANCE_ID, INDEX, "/latest/meta-data/nothing", "/"])
def test_version_2_only(path: str) -> None:
    """With tokens required, nothing is said without a good one, not even what exists."""
    with running(settings=Settings(tokens="required")) as service:
        assert ask(service, path).status == 401
        assert ask(service, path, headers={TOKEN: "made-up"}).status == 401


@pytest.mark.parametrize("refusal", [404, 403, 405])
def test_version_1_only(refusal: int) -> None:
    """Where there are no tokens, the request for one is refused as set, and a token is ignored."""
    with running(settings=Settings(tokens="absent", token_refusal=refusal)) as service:
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: "60"}).status == refusal
        assert ask(service, INSTANCE_ID).status == 200
        assert ask(service, INSTANCE_ID, headers={TOKEN: "made-up"}).status == 200


def test_switched_off() -> None:
    """A service that is switched off answers 403 to everything."""
    with running(settings=Settings(enabled=False)) as service:
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: "60"}).status == 403
        assert ask(service, INSTANCE_ID).status == 403
        assert ask(service, "/nothing").status == 403


def test_tokens_expire() -> None:
    """A token's life is enforced to the second, on a clock that does not jump."""
    now = [1000.0]
    tokens = Tokens(clock=lambda: now[0])
    text = tokens.issue(60)
    assert tokens.use(text, limit=None) == 60
    now[0] += 59.5
    assert tokens.use(text, limit=None) == 1
    now[0] += 0.5
    assert tokens.use(text, limit=None) == 0
    now[0] -= 30
    assert tokens.use(text, limit=None) == 0


def test_tokens_expire_in_real_time() -> None:
    """A token of one second is refused once it has passed."""
    with running(settings=Settings(tokens="required")) as service:
        text = token(service, ttl=1)
        time.sleep(1.1)
        assert ask(service, INSTANCE_ID, headers={TOKEN: text}).status == 401


# --- its owner's view -------------------------------------------------------------------------


def test_what_was_asked_is_remembered() -> None:
    """Method, path, whether a token came along and the status, in order; never the token."""
    logged: list[Asked] = []
    with Emulator(TWO_KEYS, log=logged.append) as service:
        text = token(service)
        ask(service, INSTANCE_ID, headers={TOKEN: text})
        ask(service, "/nothing")
        expected = [
            Asked("PUT", TOKEN_PATH, False, 200),
            Asked("GET", INSTANCE_ID, True, 200),
            Asked("GET", "/nothing", False, 404),
        ]
        assert service.requests == expected
        assert logged == expected
        assert text not in repr(service.requests)


def test_no_answer_has_no_status() -> None:
    """A request that was reset is remembered as unanswered."""
    with running("reset") as service:
        with pytest.raises(ConnectionResetError):
            ask(service, INSTANCE_ID)
        assert service.requests == [Asked("GET", INSTANCE_ID, False, None)]


def test_settings_change_while_it_runs() -> None:
    """A new instance-id and new keys are served from the next request on."""
    with running() as service:
        assert ask(service, INSTANCE_ID).body == "i-1"
        service.change(instance_id="i-2", keys=())
        assert ask(service, INSTANCE_ID).body == "i-2"
        assert ask(service, INDEX).status == 404
        service.change(**vars(TWO_KEYS))
        assert service.settings.instance_id == "i-1"
        assert ask(service, INSTANCE_ID).body == "i-1"


def test_faults_change_while_it_runs() -> None:
    """Faults come and go, each time counted anew."""
    with running("status=503,first=1") as service:
        assert [ask(service, INSTANCE_ID).status for _ in range(2)] == [503, 200]
        service.inject(Fault("status", 503, first=1))
        assert [ask(service, INSTANCE_ID).status for _ in range(2)] == [503, 200]
        service.inject()
        assert ask(service, INSTANCE_ID).status == 200


@pytest.mark.parametrize("change", [{"tokens": "optional"}, {"token_refusal": 200}])
def test_settings_that_cannot_be(change: dict[str, Any]) -> None:
    """A mistyped setting is an error at once, and what ran goes on."""
    with running() as service:
        with pytest.raises(ValueError, match=next(iter(change))):
            service.change(**change)
        assert ask(service, INSTANCE_ID).status == 200


def test_many_clients_at_once() -> None:
    """Requests in parallel are all answered and all counted, and a fault strikes exactly as often as said."""
    statuses: list[int] = []
    with running("status=503,first=7") as service:
        threads = [
            threading.Thread(target=lambda: statuses.append(ask(service, INSTANCE_ID).status))
            for _ in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.requests) == 30
    assert statuses.count(503) == 7
    assert statuses.count(200) == 23


# --- its end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["silence", "delay=600", "drip=600", "drip-body=600", "endless", "huge", "refuse", "refuse=600"]
)
def test_close_is_prompt(fault: str) -> None:
    """Whatever hangs, the service ends within a second, with no thread and no connection left."""
    before = threading.active_count()
    service = Emulator(TWO_KEYS, faults=[Fault.parse(fault)])
    service.start()
    clients = []
    if not fault.startswith("refuse"):
        clients = [send(service, get(INSTANCE_ID)) for _ in range(3)]
        wait_until(lambda: len(service.requests) == len(clients))
    start = time.monotonic()
    service.close()
    assert time.monotonic() - start < PROMPT
    assert threading.active_count() <= before
    for client in clients:
        with client:
            read_all_or_reset(client)


def read_all_or_reset(connection: socket.socket) -> None:
    """The connection is over, one way or the other; a timeout would fail the test."""
    with contextlib.suppress(ConnectionError):
        read_all(connection)


def test_close_with_idle_connections() -> None:
    """A client that connects and says nothing, or half a request, does not hold it either."""
    service = Emulator()
    service.start()
    with send(service, b""), send(service, b"GET /la"), send(service, b"GET / HTTP/1.1\r\nHost:"):
        assert ask(service, "/").status == 200
        start = time.monotonic()
        service.close()
        assert time.monotonic() - start < PROMPT


def test_close_frees_the_port_and_may_be_repeated() -> None:
    """After close, connections are refused, and a new service may take the port at once."""
    with running() as service:
        ask(service, INSTANCE_ID)
    service.close()
    with pytest.raises(ConnectionRefusedError):
        ask(service, INSTANCE_ID)
    with Emulator(Settings(instance_id="i-3"), port=service.port) as successor:
        assert ask(successor, INSTANCE_ID).body == "i-3"


def test_a_port_in_use_is_an_error_at_once() -> None:
    """Two services cannot have the same port."""
    with running() as service, pytest.raises(OSError, match="in use"):
        Emulator(port=service.port).start()


def test_a_service_that_never_started_can_be_closed() -> None:
    """The port is bound with the object, and close gives it back."""
    service = Emulator()
    service.close()
    Emulator(port=service.port).close()


def test_clients_that_hang_up_leave_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    """A client may go at any moment: nothing is printed, no thread dies, the next one is served."""
    deaths: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, deaths.append
    try:
        with running("drip=0.001,path=/latest/slow", "endless,path=/latest/endless") as service:
            for path in ("/latest/slow", "/latest/endless", INSTANCE_ID):
                send(service, get(path)).close()
                send(service, get(path)[:9]).close()
                with send(service, get(path)) as connection:
                    connection.recv(1)
            assert ask(service, INSTANCE_ID).status == 200
    finally:
        threading.excepthook = hook
    assert deaths == []
    assert capfd.readouterr() == ("", "")


# --- faults -----------------------------------------------------------------------------------


def test_refuse() -> None:
    """The port is closed for as long as said, and stays its own meanwhile."""
    with running("refuse") as service:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                ask(service, INSTANCE_ID)


def test_refuse_for_a_while() -> None:
    """A service that comes up late, as at boot."""
    with running("refuse=0.5") as service:
        with pytest.raises(ConnectionRefusedError):
            ask(service, INSTANCE_ID)
        wait_until(lambda: is_up(service))


def test_reset() -> None:
    """A real RST, with no byte before it."""
    an_rst = pytest.raises(ConnectionResetError)  # an orderly end would be an empty answer
    with running("reset") as service, send(service, get(INSTANCE_ID)) as connection, an_rst:
        connection.recv(1)


def test_silence() -> None:
    """The connection is accepted and stays open without a byte."""
    with running("silence") as service, send(service, get(INSTANCE_ID)) as connection:
        connection.settimeout(SHORT)
        with pytest.raises(socket.timeout):
            connection.recv(1)


def test_token_silence() -> None:
    """Only the token request meets silence, as with a hop limit that is too small."""
    with running("token-silence") as service:
        with pytest.raises(socket.timeout):
            ask(service, TOKEN_PATH, "PUT", timeout=SHORT, headers={TTL: "60"})
        assert ask(service, INSTANCE_ID).body == "i-1"


def test_delay() -> None:
    """Nothing comes before its time, and the right answer afterwards."""
    with running("delay=0.4") as service:
        start = time.monotonic()
        assert ask(service, INSTANCE_ID).body == "i-1"
        assert time.monotonic() - start >= 0.4


def first_bytes(service: Emulator, count: int) -> tuple[bytes, float]:
    """The first `count` bytes of an answer, and how many seconds they took to come."""
    start = time.monotonic()
    with send(service, get(INSTANCE_ID)) as connection:
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            assert piece
            data += piece
    return data, time.monotonic() - start


def test_drip() -> None:
    """Already the status line comes byte by byte."""
    with running("drip=0.03") as service:
        data, took = first_bytes(service, 12)
    assert data == b"HTTP/1.1 200"
    assert took >= 11 * 0.03


def test_drip_body() -> None:
    """The headers come whole, then the body byte by byte, and it is complete in the end."""
    settings = Settings(instance_id="i-0123456789")
    with running("drip-body=0.03", settings=settings) as service:
        start = time.monotonic()
        assert ask(service, INSTANCE_ID).body == "i-0123456789"
        assert time.monotonic() - start >= 11 * 0.03
    with running("drip-body=600", settings=settings) as service:
        data, _ = first_bytes(service, 100)
    assert data.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: ")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 429, 500, 502, 503, 504])
def test_status(status: int) -> None:
    """Any error can be had, with the page that belongs to it."""
    with running(f"status={status}") as service:
        answer = ask(service, INSTANCE_ID)
    assert answer.status == status
    assert f"<h1>{status} - " in answer.body


def test_status_that_nobody_registered() -> None:
    """An odd status is sent all the same."""
    with running("status=599") as service:
        assert ask(service, INSTANCE_ID).status == 599


def test_redirect() -> None:
    """302 to the address that was given."""
    with running("redirect=http://192.0.2.7/there") as service:
        answer = ask(service, INSTANCE_ID)
    assert (answer.status, answer.headers["Location"]) == (302, "http://192.0.2.7/there")


def test_html() -> None:
    """A captive portal's page in place of the key, with status 200."""
    with running(f"html,path={FIRST_KEY}") as service:
        answer = ask(service, FIRST_KEY)
        assert ask(service, INDEX).body == "0=launch\n1=other"
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert "<html>" in answer.body


def test_binary() -> None:
    """NUL bytes in place of the answer, as many as it had."""
    with running("binary") as service:
        answer = ask(service, INSTANCE_ID)
    assert (answer.status, answer.body) == (200, "\0\0\0")


def test_endless() -> None:
    """A body without a length that goes on and on."""
    with running("endless") as service, send(service, get(INSTANCE_ID)) as connection:
        data = b"".join(itertools.islice(iter(lambda: connection.recv(65536), b""), 64))
    assert b"Content-Length" not in data
    assert b"\r\n\r\ni-1" in data
    assert len(data) > 200_000


def test_huge() -> None:
    """A terabyte is promised, and sending begins."""
    with running("huge") as service, send(service, get(INSTANCE_ID)) as connection:
        data = b"".join(itertools.islice(iter(lambda: connection.recv(65536), b""), 64))
    assert b"Content-Length: 1099511627776\r\n" in data
    assert len(data) > 200_000


def test_truncated() -> None:
    """More is promised than comes, and the connection is closed in good order."""
    with running("truncated=5") as service, pytest.raises(http.client.IncompleteRead) as caught:
        ask(service, INSTANCE_ID)
    assert (caught.value.partial, caught.value.expected) == (b"i-1", 5)


def test_long_header() -> None:
    """One header is longer than any client should read."""
    with running("long-header=100000") as service, pytest.raises(http.client.LineTooLong):
        ask(service, INSTANCE_ID)


def test_many_headers() -> None:
    """There are more headers than any client should read."""
    too_many = pytest.raises(http.client.HTTPException, match="more than 100 headers")
    with running("many-headers=200") as service, too_many:
        ask(service, INSTANCE_ID)


def test_tokens_expired_at_once() -> None:
    """With expired-tokens, no token is ever good, however fresh."""
    with running("expired-tokens") as service:
        for _ in range(3):
            assert ask(service, INSTANCE_ID, headers={TOKEN: token(service)}).status == 401
        assert ask(service, INSTANCE_ID).status == 200


def test_tokens_expired_once() -> None:
    """With first=1, the first token dies at its first use, for good; the next one is good."""
    with running("expired-tokens,first=1") as service:
        first = token(service)
        assert ask(service, INSTANCE_ID, headers={TOKEN: first}).status == 401
        assert ask(service, INSTANCE_ID, headers={TOKEN: first}).status == 401
        assert ask(service, INSTANCE_ID, headers={TOKEN: token(service)}).status == 200


def test_tokens_expired_after_some_uses() -> None:
    """With a number, each token is good for so many requests."""
    with running("expired-tokens=2") as service:
        for _ in range(2):
            text = token(service)
            statuses = [ask(service, INSTANCE_ID, headers={TOKEN: text}).status for _ in range(4)]
            assert statuses == [200, 200, 401, 401]


def test_bad_index() -> None:
    """The list of keys is garbage, the rest is not."""
    with running("bad-index") as service:
        assert "\x1b" in ask(service, INDEX).body
        assert "\x1b" in ask(service, INDEX.rstrip("/")).body
        assert ask(service, FIRST_KEY).body == KEY + "\n"


def test_bad_key() -> None:
    """Every key is garbage, the list is not."""
    with running("bad-key") as service:
        assert ask(service, INDEX).body == "0=launch\n1=other"
        assert "this-is-not-base64!" in ask(service, FIRST_KEY).body


def test_bad_neighbour() -> None:
    """A broken key stands before the good ones, which move up."""
    with running("bad-neighbour") as service:
        assert ask(service, INDEX).body == "0=broken\n1=launch\n2=other"
        assert "this-is-not-base64!" in ask(service, FIRST_KEY).body
        assert ask(service, INDEX + "1/openssh-key").body == KEY + "\n"


def test_every_fault_is_described_and_tested() -> None:
    """Help and documentation come from FAULTS; each of them has a test here that begins it by name."""
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    for name, kind in FAULTS.items():
        assert kind.summary
        assert "\n" not in kind.summary
        assert (kind.value != "") == (kind.default != "")
        assert f'running("{name}' in source or f'running(f"{name}' in source
        assert Fault.parse(name).amount == kind.default


# --- limits and combinations ------------------------------------------------------------------


def test_first() -> None:
    """A fault with first=N strikes N requests, then no more."""
    with running("status=503,first=3") as service:
        assert [ask(service, INSTANCE_ID).status for _ in range(5)] == [503, 503, 503, 200, 200]


def test_path() -> None:
    """A fault with path= strikes and counts only what begins so."""
    with running(f"status=503,first=1,path={TOKEN_PATH}") as service:
        assert ask(service, INSTANCE_ID).status == 200
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: "60"}).status == 503
        assert ask(service, TOKEN_PATH, "PUT", headers={TTL: "60"}).status == 200


def test_first_counts_only_what_the_fault_concerns() -> None:
    """A fault of keys is not used up by other requests."""
    with running("bad-key,first=1") as service:
        assert ask(service, INSTANCE_ID).status == 200
        assert ask(service, FIRST_KEY).body != KEY + "\n"
        assert ask(service, FIRST_KEY).body == KEY + "\n"


def test_faults_follow_each_other() -> None:
    """Several faults with limits make a history: first this, then that, then well."""
    with running("status=500,first=2", "status=503,first=1") as service:
        # Both strike the first request, and of two that contradict each other the later stands.
        assert [ask(service, INSTANCE_ID).status for _ in range(3)] == [503, 500, 200]


COMBINED = ("html", "long-header=5", "truncated=7", "delay=0.05")


@pytest.mark.parametrize("order", list(itertools.permutations(COMBINED)))
def test_faults_combine_in_any_order(order: tuple[str, ...]) -> None:
    """A late, truncated login page with an extra header is the same in whichever order it was asked for."""
    with running(*order) as service:
        start = time.monotonic()
        with send(service, get(INSTANCE_ID)) as connection:
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert time.monotonic() - start >= 0.05
    assert b"X-Filler: xxxxx\r\n" in head
    assert f"Content-Length: {len(body) + 7}\r\n".encode("ascii") in head
    assert body.startswith(b"<!DOCTYPE html>")


def test_an_endless_drip() -> None:
    """Dripping and endless together: slow for ever."""
    with running("endless", "drip-body=0.01") as service, send(service, get(INSTANCE_ID)) as connection:
        data = b""
        while len(data.partition(b"\r\n\r\n")[2]) < 10:
            data += connection.recv(1)
    assert b"\r\n\r\ni-1filler" in data


@pytest.mark.parametrize(
    "text, fault",
    [
        ("delay", Fault("delay")),
        ("delay=2", Fault("delay", "2")),
        ("status=503,first=3", Fault("status", "503", first=3)),
        ("reset,path=/latest/api/", Fault("reset", path="/latest/api/")),
        ("status=503,path=/latest/api/token,first=3", Fault("status", "503", 3, "/latest/api/token")),
        ("redirect=http://192.0.2.1/?a=b", Fault("redirect", "http://192.0.2.1/?a=b")),
        ("refuse=inf", Fault("refuse", "inf")),
    ],
)
def test_faults_as_text(text: str, fault: Fault) -> None:
    """NAME[=VALUE][,first=N][,path=PREFIX]."""
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dely=2",
        "delay=soon",
        "delay=-1",
        "delay=nan",
        "delay=inf",
        "status=5xx",
        "status=99",
        "status=204",
        "status=500.5",
        "status=inf",
        "reset=1",
        "long-header=1e30",
        "redirect=http://x/\r\nEvil: yes",
        "reset,first=0",
        "reset,first=-1",
        "reset,first=",
        "reset,times=3",
        "reset,path=latest",
        "refuse,first=1",
        "refuse,path=/latest",
    ],
)
def test_faults_that_cannot_be(text: str) -> None:
    """A mistyped fault is a ValueError with a sentence, never a service without it."""
    with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
        Fault.parse(text)


def test_usage() -> None:
    """How a fault is written, for the help."""
    assert usage("delay") == "delay=SECONDS"
    assert usage("reset") == "reset"


def test_nothing_of_firstkey_is_used() -> None:
    """The emulator imports the standard library and itself only: no mistake shared."""
    folder = pathlib.Path(emulator.__file__).parent
    for module in folder.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."]
            for name in names:
                assert name.startswith("firstkey.metadata.emulator") or not name.startswith(("firstkey", "."))
                if not name.startswith("firstkey") and sys.version_info >= (3, 10):
                    assert name.split(".")[0] in sys.stdlib_module_names
