"""When the client tries again, and when it stops: on a clock of the test's own, where possible."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from asking import HANG, ask, asking
from raw_server import INSTANCE_ID, RawServer, answer, black_hole, ok, silent_server, slowly

from firstkey.events import Entry
from firstkey.metadata.client import LAST_ATTEMPT, SHORTEST_PAUSE, Client
from firstkey.metadata.emulator import Emulator, Fault, Settings
from firstkey.reasons import Unreachable

REFUSED = "http://127.0.0.1:1"  # tcpmux: no machine of today answers there


class Clock:
    """Time that passes only while somebody sleeps, and a little whenever it is looked at."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._tick = tick

    def __call__(self) -> float:
        self.now += self._tick
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds


class EnoughError(Exception):
    """The test has seen what it wanted."""


def attempts_until(seconds: float | None, *, at_most: int = 100_000) -> Clock:
    """Ask a port that refuses, for so many seconds of a clock of our own."""
    clock = Clock()
    logged: list[Entry] = []

    def log(entry: Entry) -> None:
        logged.append(entry)
        if len(logged) >= at_most:
            raise EnoughError

    client = Client(asking(endpoints=(REFUSED,)), clock=clock, sleep=clock.sleep, log=log)
    deadline = None if seconds is None else clock.now + seconds
    with pytest.raises(EnoughError if seconds is None else Unreachable):
        client.ask(deadline=deadline)
    slept = [f"{pause:.2f}" for pause in clock.slept]
    assert [entry.fields["pause"] for entry in logged][: len(slept)] == slept
    return clock


def test_the_first_pauses_are_tens_of_milliseconds() -> None:
    """At boot the network appears at any moment."""
    slept = attempts_until(30).slept
    assert max(slept[:3]) < 0.1
    assert sum(slept[:8]) < 2


def test_pauses_grow_up_to_a_limit() -> None:
    """Nobody is hammered, and nobody waits long for what came back."""
    slept = attempts_until(55).slept
    assert slept[40] > 10 * slept[0]
    assert max(slept) <= 2.0


def test_what_comes_up_is_noticed_soon() -> None:
    """A network that takes long to come up is not waited for by half as much again."""
    slept = attempts_until(30).slept
    assert all(pause <= 0.021 + sum(slept[:number]) / 8 for number, pause in enumerate(slept))


def test_after_a_minute_it_is_asked_more_rarely() -> None:
    """The daemon may ask for days; it still finds a service that comes back within half a minute."""
    clock = attempts_until(None, at_most=400)
    assert max(clock.slept) <= 30.0
    assert min(clock.slept[-50:]) > 20.0


def test_pauses_have_jitter() -> None:
    """Instances of one launch do not come back in step."""
    assert len({tuple(attempts_until(5).slept[:-1]) for _ in range(5)}) == 5


@pytest.mark.parametrize("seconds", [0.5, 2, 30, 59.9, 61, 300])
def test_the_last_attempt_is_right_before_the_deadline(seconds: float) -> None:
    """A service that comes up a moment before it is still found; after it, nothing is asked."""
    clock = attempts_until(seconds)
    assert -1e-6 <= seconds - (clock.now - 1000.0) <= LAST_ATTEMPT + SHORTEST_PAUSE


@pytest.mark.parametrize("seconds", [0, -1, -1000])
def test_a_deadline_that_has_passed(seconds: float) -> None:
    """Not even one pause."""
    assert attempts_until(seconds).slept == []


def test_without_a_deadline_it_goes_on_for_ever() -> None:
    """What the daemon does after the boot deadline."""
    clock = attempts_until(None, at_most=3000)
    assert clock.now > 1000 + 12 * 3600


@pytest.mark.parametrize("version", ["auto", "2", "1"])
@pytest.mark.parametrize("wait, timeout", [(0.4, 2 * HANG), (0.4, 0.1), (0.05, 2 * HANG)])
def test_silence_is_left_at_the_deadline(version: str, wait: float, timeout: float) -> None:
    """A request that is under way then does not prolong it."""
    with silent_server() as url:
        outcome = ask(url, wait=wait, request_timeout=timeout, version=version)
    assert isinstance(outcome.error, Unreachable)
    assert wait - 0.11 <= outcome.seconds < HANG


@pytest.mark.parametrize("wait, timeout", [(0.4, 2 * HANG), (0.4, 0.1)])
def test_a_connection_that_is_never_made_is_left_at_the_deadline(wait: float, timeout: float) -> None:
    """Nor does one that is under way."""
    with black_hole() as url:
        outcome = ask(url, wait=wait, request_timeout=timeout)
    assert outcome.code == "imds-unreachable"
    assert "no connection in time" in str(outcome.error)
    assert wait - 0.11 <= outcome.seconds < HANG


def test_both_endpoints_silent_are_left_at_the_deadline() -> None:
    """Taking turns does not add up."""
    with silent_server() as first, silent_server() as second:
        outcome = ask(first, second, wait=1.0, request_timeout=2 * HANG)
    assert outcome.code == "imds-unreachable"
    assert 0.89 <= outcome.seconds < HANG


def test_time_that_passes_while_an_answer_comes_counts() -> None:
    """Each byte of a dripping answer is on the clock; the real time plays no part here."""
    clock = Clock(tick=0.05)

    def drip(_: int) -> Iterator[bytes]:
        return slowly(itertools.chain([answer("HTTP/1.1 200 OK")], itertools.repeat(b"i")), 0.002)

    with RawServer({INSTANCE_ID: drip}) as server:
        client = Client(asking(endpoints=(server.url,), request_timeout=1e6), clock=clock, sleep=clock.sleep)
        with pytest.raises(Unreachable):
            client.ask(deadline=clock.now + 10)
    assert clock.now <= 1010 + 0.5


def test_a_token_request_leaves_time_for_one_without() -> None:
    """Where all the time that is left is a moment, it is not spent on the token alone."""
    with Emulator(Settings(), faults=[Fault("token-silence")]) as service:
        assert ask(service.url, wait=8.0, request_timeout=2 * HANG).good.version == 1


def test_the_reason_at_the_deadline_is_that_of_the_last_whole_attempt() -> None:
    """An attempt that the deadline cut short knows less."""
    clock = Clock()

    def unavailable_then_silent(number: int) -> list[bytes]:
        if number:
            clock.now += 100  # the deadline passes while the second answer is awaited
            time.sleep(0.05)
        return [ok(b"", status="503 Not yet")]

    with RawServer({"PUT /latest/api/token": unavailable_then_silent}) as server:
        client = Client(asking(endpoints=(server.url,)), clock=clock, sleep=clock.sleep)
        started = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            client.ask(deadline=clock.now + 30)
    assert caught.value.reason.code == "imds-error"
    assert "503" in str(caught.value)
    assert time.monotonic() - started < HANG
