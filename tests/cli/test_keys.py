"""`firstkey keys` as people and programs run it."""

from __future__ import annotations

import contextlib
import json
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_table import EXPECTED, patience
from machine import Machine, Run, fingerprint
from raw_server import black_hole, silent_server

from firstkey import reasons
from firstkey.cli import overrides
from firstkey.metadata.emulator import Emulator, Fault, Settings

GENEROUS = 30.0  # seconds: only a hang takes as long


@contextlib.contextmanager
def service(keys: dict[str, str], *faults: str, host: str = "127.0.0.1", **change: Any) -> Iterator[Emulator]:
    """A metadata service that offers these keys."""
    settings = Settings(**{"instance_id": "i-0abc", "keys": tuple(keys.items()), **change})
    with Emulator(settings, faults=[Fault.parse(fault) for fault in faults], host=host) as running:
        yield running


def report(done: Run) -> dict[str, Any]:
    """What stands on stdout, which must be JSON and nothing else."""
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_text(machine: Machine, keys: dict[str, str]) -> None:
    """The instance, who said so, and each key as ssh-keygen would show it."""
    with service(keys) as running:
        done = machine.firstkey("keys", service=running)
    assert (done.status, done.err) == (0, "")
    first, *others = done.out.splitlines()
    assert first == f"Instance i-0abc, says {running.url} (IMDSv2)"
    assert others == [
        f"  {number} {name}  {line.split()[0]}  {fingerprint(line)}"
        for number, (name, line) in enumerate(keys.items())
    ]


def test_json(machine: Machine, keys: dict[str, str]) -> None:
    """The same in the published form of the report, and nothing else on stdout."""
    with service(keys) as running:
        done = machine.firstkey("keys", "--json", service=running)
    found = report(done)
    assert (done.status, done.err) == (0, "")
    assert (found["version"], found["outcome"], found["instance_id"]) == (1, "ok", "i-0abc")
    assert found["imds"] == {"endpoint": running.url, "version": 2, "fallback_reason": None}
    assert [
        (key["index"], key["name"], key["type"], key["fingerprint"], key["refused"]) for key in found["keys"]
    ] == [
        (str(number), name, line.split()[0], fingerprint(line), None)
        for number, (name, line) in enumerate(keys.items())
    ]
    assert (found["users"], found["host_keys"], found["reason"]) == ([], [], None)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_is_installed(machine: Machine, keys: dict[str, str], options: tuple[str, ...]) -> None:
    """Not a file is written, not even in /run."""
    before = sorted(str(path) for path in machine.root.rglob("*"))
    with service(keys) as running:
        assert machine.firstkey("keys", *options, service=running).status == 0
    assert sorted(str(path) for path in machine.root.rglob("*")) == before


def test_no_key_pair_is_nothing_to_do(machine: Machine) -> None:
    """Exit status 0, and it is said."""
    with service({}) as running:
        text = machine.firstkey("keys", service=running)
        found = machine.firstkey("keys", "--json", service=running)
    assert (text.status, found.status) == (0, 0)
    assert "without a key pair (no-key-pair)" in text.out
    assert (report(found)["outcome"], report(found)["reason"], report(found)["keys"]) == (
        "no-key",
        "no-key-pair",
        [],
    )


def test_a_fallback_is_shown(machine: Machine, keys: dict[str, str]) -> None:
    """As a warning, in the text and in the report."""
    with service(keys, tokens="absent") as running:
        text = machine.firstkey("keys", service=running)
        found = machine.firstkey("keys", "--json", service=running)
    assert (text.status, found.status) == (0, 0)
    assert "(IMDSv1, because: token-refused)" in text.out
    assert "without one (IMDSv1)" in text.err
    assert "answered with 404 (token-refused)" in text.err
    assert report(found)["imds"] == {
        "endpoint": running.url,
        "version": 1,
        "fallback_reason": "token-refused",
    }


def test_a_bad_key_beside_a_good_one(machine: Machine, keys: dict[str, str]) -> None:
    """The bad one is refused with its reason and remedy, the good one is shown; exit status 1."""
    with service({"ed25519": keys["ed25519"]}, "bad-neighbour") as running:
        text = machine.firstkey("keys", service=running)
        found = machine.firstkey("keys", "--json", service=running)
    assert (text.status, found.status) == (1, 1)
    assert "! 0 broken: refused" in text.out
    assert "(not-a-public-key)" in text.out
    assert "What to do:" in text.out
    assert fingerprint(keys["ed25519"]) in text.out
    assert report(found)["outcome"] == "partial"
    assert [key["refused"] for key in report(found)["keys"]] == ["not-a-public-key", None]


def test_a_name_cannot_paint_the_terminal(machine: Machine, keys: dict[str, str]) -> None:
    """What the service says is shown as text, whatever it is."""
    hostile = "\x1b[2J\u202e\u2028evil"
    with service({"good": keys["ed25519"]}) as running:
        running.change(keys=((hostile.replace("\x1b", "").replace("\u2028", ""), keys["ed25519"]),))
        done = machine.firstkey("keys", service=running)
        running.change(keys=((hostile, keys["ed25519"]),))
        refused = machine.firstkey("keys", service=running)
    assert (done.status, refused.status) == (0, 1)
    for text in (done.out, done.err, refused.out, refused.err):
        assert all(line.isprintable() for line in text.splitlines())


# --- where there is no answer -----------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["refuse", "status=503", "expired-tokens=0", "status=400", "status=403", "html", "redirect"]
)
@pytest.mark.sample(3)
def test_every_failure_is_one_sentence_and_a_remedy(
    machine: Machine, keys: dict[str, str], fault: str
) -> None:
    """For people: on stderr, with the reason code; nothing on stdout that could be taken for a result."""
    status, _, code = EXPECTED[fault]
    with service({"launch": keys["ed25519"]}, fault) as running:
        done = machine.firstkey("keys", "--wait", patience(fault), "-q", service=running)
    message, remedy = [line for line in done.err.splitlines() if "warning: " not in line]
    assert (done.status, done.out) == (status, "")
    assert message.startswith("firstkey: ")
    assert message.endswith(f"({code})")
    args = Namespace(root=str(machine.root), config=None, imds=running.url)
    assert remedy == f"  What to do: {overrides.on_tree(reasons.ALL[str(code)].remedy, args)}"


@pytest.mark.parametrize("fault", ["html", "status=503"])
@pytest.mark.sample(2)
def test_a_failure_is_json_too(machine: Machine, keys: dict[str, str], fault: str) -> None:
    """For programs: the outcome and the reason code on stdout."""
    status, outcome, code = EXPECTED[fault]
    with service({"launch": keys["ed25519"]}, fault) as running:
        done = machine.firstkey("keys", "--json", "--wait", patience(fault), service=running)
    assert (done.status, report(done)["outcome"], report(done)["reason"]) == (status, outcome, code)


@pytest.mark.parametrize("url", ["silent", "nowhere"])
def test_the_wait_is_kept(machine: Machine, url: str) -> None:
    """Whatever the network does, there is an answer about when it was wished for."""
    with silent_server() as silent, black_hole() as nowhere:
        started = time.monotonic()
        done = machine.firstkey(
            "keys", "--json", "--wait", "1", "--imds", {"silent": silent, "nowhere": nowhere}[url]
        )
        seconds = time.monotonic() - started
    assert (done.status, report(done)["outcome"]) == (75, "unreachable")
    assert 0.8 < seconds < GENEROUS


def test_both_configured_endpoints_are_asked(machine: Machine, keys: dict[str, str], tmp_path: Path) -> None:
    """Endpoints= of a file of this machine; what a tree names is not asked, since it may be any service."""
    with silent_server() as silent, service(keys) as running:
        settings = f"[IMDS]\nEndpoints={silent} {running.url}\n"
        (tmp_path / "own.conf").write_text(settings)
        done = machine.firstkey("keys", "--json", "--wait", "20", "--config", str(tmp_path / "own.conf"))
        asked = len(running.requests)
        machine.configure(settings)
        refused = [machine.firstkey(*words) for words in (["keys"], ["run", "--dry-run"])]
    assert report(done)["imds"]["endpoint"] == running.url
    assert [each.status for each in refused] == [1, 1]
    assert all("(endpoint-of-tree)" in each.err and f"names {silent}" in each.err for each in refused)
    assert len(running.requests) == asked


def test_version_2_only(machine: Machine, keys: dict[str, str]) -> None:
    """Version=2 sends nothing without a token, and says so."""
    machine.configure("[IMDS]\nVersion=2\n")
    with service(keys, tokens="absent") as running:
        done = machine.firstkey("keys", service=running)
    assert (done.status, done.out) == (1, "")
    assert "Version=2 sends nothing without a token (token-refused)" in done.err
    assert not any(request.method == "GET" for request in running.requests)


def test_version_1_where_it_is_off(machine: Machine, keys: dict[str, str]) -> None:
    """The reason and the setting to change."""
    machine.configure("[IMDS]\nVersion=1\n")
    with service(keys, tokens="required") as running:
        done = machine.firstkey("keys", service=running)
    assert done.status == 1
    assert "(v1-disabled)" in done.err
    assert "If Version= is 1, set Version=auto" in done.err


def test_a_service_that_wants_a_token_and_gives_none(machine: Machine, keys: dict[str, str]) -> None:
    """Version=auto is the default, so to set it is no remedy by itself: the token is what to look into."""
    with service(keys, tokens="required") as running:
        running.inject(Fault("status", 404, path="/latest/api/token"))
        done = machine.firstkey("keys", service=running)
    assert done.status == 1
    assert "and the service has none to give (v1-disabled)" in done.err
    assert "If Version= is 1, set Version=auto" in done.err
    assert f"otherwise see why the token failed: firstkey keys --root {machine.root}" in done.err


def test_verbose_tells_each_attempt(machine: Machine, keys: dict[str, str]) -> None:
    """What an operator needs who wonders why."""
    with service(keys, "status=503,first=2") as running:
        quiet = machine.firstkey("keys", service=running)
        running.inject(Fault.parse("status=503,first=2"))
        verbose = machine.firstkey("keys", "-v", service=running)
    assert (quiet.status, quiet.err) == (0, "")
    assert verbose.err.count("answered with 503); firstkey tries again") == 2


def test_proxies_mean_nothing(machine: Machine, keys: dict[str, str]) -> None:
    """Nor does anything else of the environment."""
    with service(keys) as running, service({}, instance_id="i-evil") as proxy:
        done = machine.firstkey("keys", "--json", service=running, http_proxy=proxy.url, ALL_PROXY=proxy.url)
    assert report(done)["instance_id"] == "i-0abc"
    assert not proxy.requests


@pytest.mark.parametrize(
    "options",
    [
        ("--imds", "http://metadata.example"),
        ("--imds", "https://127.0.0.1"),
        ("--imds", "169.254.169.254"),
        ("--wait", "soon"),
        ("--wait", ""),
        ("--no-such-option",),
        ("argument",),
    ],
)
def test_usage(machine: Machine, options: tuple[str, ...]) -> None:
    """A clear sentence, exit status 2, and nothing is asked."""
    done = machine.firstkey("keys", *options)
    assert (done.status, done.out) == (2, "")
    assert "firstkey" in done.err
    assert options[-1] in done.err
    assert "Traceback" not in done.err


def test_help(machine: Machine) -> None:
    """It says what it does, with examples and the exit statuses."""
    done = machine.firstkey("keys", "--help")
    assert done.status == 0
    for word in ("install none", "--json", "--wait", "examples:", "exit status:", "75"):
        assert word in done.out
