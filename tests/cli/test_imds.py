"""`firstkey imds` as people and scripts run it: the emulator as a program."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fork_server
import pytest
from asking import Outcome, ask, needs_ipv6
from machine import AGENT, Machine, new_key

from firstkey.metadata.emulator import FAULTS, usage

GENEROUS = 60.0  # seconds: only a hang takes as long
TOKEN = "/latest/api/token"


class Running(NamedTuple):
    """The program, the URL that it printed, and what it says besides."""

    process: subprocess.Popen[bytes] | fork_server.Forked
    url: str
    out: BinaryIO
    err: BinaryIO

    def ask(self) -> Outcome:
        """Ask it as firstkey does."""
        return ask(self.url)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """End it by a signal; returns status, and what else it printed on stdout and on stderr."""
        self.process.send_signal(number)
        status = self.process.wait(GENEROUS)
        return status, self.out.read().decode(), self.err.read().decode()


@contextlib.contextmanager
def imds(*options: str, **popen: Any) -> Iterator[Running]:
    """`firstkey imds` with these options, once it says that it is there; with some for Popen, not forked."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)}
    strict = {**environ, "PYTHONWARNINGS": "error"}
    with contextlib.ExitStack() as open_files:
        ends = (os.pipe(), os.pipe())
        out, err = (open_files.enter_context(open(reader, "rb")) for reader, _ in ends)
        with open(ends[0][1], "wb") as said, open(ends[1][1], "wb") as complained:
            if popen:
                command = [sys.executable, "-m", "firstkey", "imds", *options]
                process: subprocess.Popen[bytes] | fork_server.Forked = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=said, stderr=complained, env=strict, **popen
                )
            else:
                used = environ if fork_server.ENABLED else strict
                process = fork_server.start("imds", *options, environ=used, out=said, err=complained)
        try:
            url = out.readline().decode().strip()
            assert url.startswith("http://"), err.read()
            yield Running(process, url, out, err)
        finally:
            process.kill()
            process.wait()


def refused(*options: str) -> tuple[int, str, str]:
    """`firstkey imds` with options that cannot be: status, stdout, stderr."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(AGENT)}
    done = fork_server.firstkey("imds", *options, environ=environ, timeout=GENEROUS)
    return done.status, done.out.decode(), done.err.decode()


def offered(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Number, name and line of each key."""
    return [(key.number, key.name, key.text.decode().rstrip("\n")) for key in outcome.good.keys]


# --- what it serves ---------------------------------------------------------------------------


def test_a_key_from_the_command_line(keys: dict[str, str]) -> None:
    """It is named by its comment, or by its number where it has none."""
    bare = " ".join(keys["rsa"].split()[:2])
    with imds("--key", keys["ed25519"], "--key", bare, "--instance-id", "i-0abc") as running:
        outcome = running.ask()
    assert outcome.good.instance_id == "i-0abc"
    assert outcome.good.version == 2
    assert offered(outcome) == [("0", "ed25519", keys["ed25519"]), ("1", "key-1", bare)]


def test_keys_from_files(keys: dict[str, str], tmp_path: Path) -> None:
    """One a line; comments, blank lines and the line ends of other systems are passed over."""
    first, second = tmp_path / "first.pub", tmp_path / "second.pub"
    first.write_text(f"# the team's keys\n\n  {keys['ed25519']}  \r\n\n{keys['ecdsa']}\n#end")
    second.write_text(keys["rsa"])
    with imds("--key-file", str(first), "--key-file", str(second)) as running:
        outcome = running.ask()
        status, out, err = running.end()
    assert offered(outcome) == [
        ("0", "ed25519", keys["ed25519"]),
        ("1", "ecdsa", keys["ecdsa"]),
        ("2", "rsa", keys["rsa"]),
    ]
    assert (status, out) == (0, "")
    assert "firstkey:" not in err


def test_keys_of_the_command_line_come_first(keys: dict[str, str], tmp_path: Path) -> None:
    """As the help says."""
    file = tmp_path / "key.pub"
    file.write_text(keys["rsa"])
    with imds("--key-file", str(file), "--key", keys["ed25519"]) as running:
        assert [name for _, name, _ in offered(running.ask())] == ["ed25519", "rsa"]


def test_a_bad_key_is_served_and_said_to_be_bad(keys: dict[str, str], tmp_path: Path) -> None:
    """To try what firstkey makes of it is what the command is for."""
    file = tmp_path / "mixed"
    file.write_text(f"{keys['ed25519']}\nno key\n")
    with imds("--key", 'command="x" ssh-ed25519 AAAA', "--key-file", str(file)) as running:
        lines = [line for _, _, line in offered(running.ask())]
        _, _, err = running.end()
    assert lines == ['command="x" ssh-ed25519 AAAA', keys["ed25519"], "no key"]
    assert [line for line in err.splitlines() if "is served, but is none" in line] == [
        line for line in err.splitlines() if line.startswith(("firstkey: key 0", "firstkey: key 2"))
    ]
    assert err.count("(not-a-public-key)") == 2


def test_without_a_key(keys: dict[str, str]) -> None:
    """An instance without a key pair."""
    with imds() as running:
        assert running.ask().good.keys == ()


def test_version_2_only(keys: dict[str, str]) -> None:
    """Without a token, nothing."""
    with imds("--tokens", "v2", "--key", keys["ed25519"]) as running:
        assert running.ask().good.version == 2
        assert ask(running.url, version="1").code == "v1-disabled"


def test_version_1_only(keys: dict[str, str]) -> None:
    """No token for anybody."""
    with imds("--tokens", "v1", "--key", keys["ed25519"]) as running:
        outcome = running.ask()
        assert outcome.good.version == 1
        assert ask(running.url, version="2").code == "token-refused"
    assert outcome.good.fallback_reason
    assert outcome.good.fallback_reason.code == "token-refused"


def test_switched_off() -> None:
    """403 to everything."""
    with imds("--off") as running:
        assert running.ask().code == "imds-disabled"


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(keys: dict[str, str], host: str) -> None:
    """By address, with or without brackets."""
    with imds("--host", host, "--key", keys["ed25519"]) as running:
        assert running.url.startswith("http://[::1]:")
        assert running.ask().good.endpoint == running.url


def test_the_port_that_was_asked_for() -> None:
    """And it is free again at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for _ in range(2):
        with imds("--port", str(port)) as running:
            assert running.url == f"http://127.0.0.1:{port}"
            assert running.ask().good
            assert running.end()[0] == 0


def test_each_request_is_told() -> None:
    """Method, path, whether with a token, and the status; never the token."""
    with imds() as running:
        running.ask()
        _, _, err = running.end()
    assert err.splitlines() == [
        f"PUT {TOKEN} without a token: 200",
        "GET /latest/meta-data/instance-id with a token: 200",
        "GET /latest/meta-data/public-keys/ with a token: 404",
        "GET /latest/meta-data/public-keys with a token: 404",
        "GET /latest/meta-data/ with a token: 200",
    ]


def test_quiet() -> None:
    """Nothing but the URL."""
    with imds("-q") as running:
        running.ask()
        assert running.end() == (0, "", "")


def test_a_request_cannot_paint_the_terminal() -> None:
    """A path is shown as text."""
    with imds() as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=GENEROUS) as connection:
            connection.sendall(b"GET /\x1b[2J\xff HTTP/1.0\r\n\r\n")
            assert b" 404 " in connection.recv(4096)
        _, _, err = running.end()
    assert err.startswith("GET /\\x1b[2J")
    assert all(line.isprintable() for line in err.splitlines())


def test_nobody_reads_what_it_tells() -> None:
    """The service goes on when the other end of its stderr is gone."""
    with imds() as running:
        running.err.close()
        for _ in range(3):
            assert running.ask().good


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.sample(3)
def test_every_fault_by_its_name(keys: dict[str, str], fault: str) -> None:
    """What is ordered strikes: the first answer is not the good one that comes without it."""
    with imds("--fault", fault, "--key", keys["ed25519"]) as running:
        started = time.monotonic()
        outcome = ask(running.url, wait=0.4, request_timeout=0.2)
        assert time.monotonic() - started < GENEROUS
        status, _, err = running.end()
    spoiled = (
        outcome.code != "ok"
        or outcome.good.version == 1
        or [(key.name, key.text.decode().rstrip()) for key in outcome.good.keys]
        != [("ed25519", keys["ed25519"])]
    )
    assert spoiled
    assert status == 0
    assert "Traceback" not in err


def test_faults_with_values_and_limits(keys: dict[str, str]) -> None:
    """As the help shows them, several at once."""
    faults = ["status=503,first=2", f"delay=0.2,path={TOKEN}", "expired-tokens=1"]
    options = [word for fault in faults for word in ("--fault", fault)]
    with imds(*options, "--key", keys["ed25519"]) as running:
        outcome = ask(running.url)
        _, _, err = running.end()
    assert outcome.good.version == 2
    assert err.count(": 503") == 2
    assert err.count(": 401") == 2


def test_refused_for_a_while(keys: dict[str, str]) -> None:
    """The URL is printed all the same, so that a script knows the port."""
    with imds("--fault", "refuse=3", "--key", keys["ed25519"]) as running:
        outcome = running.ask()
    assert outcome.good
    assert {fields["reason"] for fields in outcome.of_kind("retry")} == {"imds-unreachable"}


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [(), ("--fault", "refuse"), ("--fault", "silence")])
@pytest.mark.sample(3)
def test_a_signal_ends_it_quietly(number: signal.Signals, options: tuple[str, ...]) -> None:
    """Exit status 0 and not a word: it did what it was told to."""
    with imds(*options) as running, socket.socket() as client:
        host, port = running.url.removeprefix("http://").split(":")
        client.connect_ex((host, int(port)))  # a connection that stays open does not hold it up
        assert running.end(number) == (0, "", "")


def test_a_second_signal_changes_nothing() -> None:
    """An impatient Ctrl-C does not turn the end into a failure."""
    with imds("--fault", "silence") as running:
        for _ in range(20):
            running.process.send_signal(signal.SIGINT)
        assert running.end() == (0, "", "")


def test_a_terminal_that_closes_ends_it() -> None:
    """Else it would stay, and hold its port."""
    with imds(preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)) as running:
        assert running.end(signal.SIGHUP)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_it_was_started_to_ignore_does_not_end_it(number: signal.Signals) -> None:
    """The shell has what it starts in the background of a script ignore SIGINT, nohup SIGHUP."""
    with imds(preexec_fn=partial(signal.signal, number, signal.SIG_IGN)) as running:
        running.process.send_signal(number)
        assert running.ask().good
        assert running.end()[0] == 0


# --- what cannot be ---------------------------------------------------------------------------


def is_one_sentence_and_a_remedy(err: str) -> bool:
    """What every refusal looks like."""
    message, remedy = err.splitlines()
    return message.startswith("firstkey: ") and remedy.startswith("  What to do: ") and message.isprintable()


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "No such file"),
        (b"", "holds no public key"),
        (b"# only a comment\n\n", "holds no public key"),
        (b"ssh-ed25519 not-base64! x\n", "holds no public key"),
        (b"\0" * 100, "holds no public key"),
        (b"\xff\xfe\r\0", "holds no public key"),
        (b"<html>", "holds no public key"),
    ],
)
@pytest.mark.sample(3)
def test_a_bad_file_of_keys(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """It is named, with what is wrong and what to do."""
    file = tmp_path / "keys.pub"
    if content is not None:
        file.write_bytes(content)
    status, out, err = refused("--key-file", str(file))
    assert (status, out) == (2, "")
    assert f"{file}" in err
    assert complaint in err
    assert is_one_sentence_and_a_remedy(err)


def test_a_directory_of_keys(tmp_path: Path) -> None:
    """It is not looked into."""
    status, _, err = refused("--key-file", str(tmp_path))
    assert (status, is_one_sentence_and_a_remedy(err)) == (2, True)
    assert "Is a directory" in err


def test_a_private_key_is_not_served(tmp_path: Path) -> None:
    """A slip of the completion key must not publish it."""
    new_key(tmp_path, "id")
    status, out, err = refused("--key-file", str(tmp_path / "id"))
    assert (status, out) == (2, "")
    assert "private key" in err
    assert f"{tmp_path}/id.pub" in err
    assert is_one_sentence_and_a_remedy(err)


def test_a_port_in_use() -> None:
    """One sentence, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, out, err = refused("--port", str(port))
    assert (status, out) == (2, "")
    assert f"cannot listen on 127.0.0.1 port {port}: address already in use" in err
    assert is_one_sentence_and_a_remedy(err)


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--fault", "nonsense"), "there are: refuse, reset"),
        (("--fault", ""), "no fault is called ''"),
        (("--fault", "delay=soon"), "delay=SECONDS"),
        (("--fault", "status=99"), "status=STATUS"),
        (("--fault", "reset,first=0"), "first=0"),
        (("--fault", "reset,last=1"), "limited by"),
        (("--fault", "reset,path=latest"), "path"),
        (("--port", "65536"), "not '65536'"),
        (("--port=-1",), "not '-1'"),
        (("--port", "http"), "not 'http'"),
        (("--tokens", "v3"), "v3"),
        (("--nonsense",), "--nonsense"),
        (("word",), "word"),
        (("--host", "localhost"), "IP address of this machine to --host"),
        (("--host", "203.0.113.7"), "cannot listen on 203.0.113.7"),
        (("--host", ""), "cannot listen on '' port 0"),
    ],
)
@pytest.mark.sample(3)
def test_options_that_cannot_be(options: tuple[str, ...], complaint: str) -> None:
    """One sentence with the remedy, exit status 2."""
    status, out, err = refused(*options)
    assert (status, out) == (2, "")
    assert complaint in err
    assert is_one_sentence_and_a_remedy(err)


def test_help_teaches() -> None:
    """Every fault with its value, the files of keys, examples, and how to end it."""
    status, out, _ = refused("--help")
    assert status == 0
    for name, kind in FAULTS.items():
        assert f"\n  {usage(name)}" in out
        assert f"\n      {kind.summary}\n" in out
    for word in ("one public key a line", ",first=N", ",path=PREFIX", "examples:", "Ctrl-C", "::1"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100


def test_the_examples_in_the_help_work(tmp_path: Path, keys: dict[str, str], machine: Machine) -> None:
    """What a newcomer types first."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/id_ed25519.pub").write_text(keys["ed25519"])
    _, out, _ = refused("--help")
    lines = out[out.index("examples:") :].splitlines()[1:]
    examples = [line.strip().replace("~", str(home)).split() for line in lines]
    assert [words[:2] for words in examples[:3]] == [["firstkey", "imds"]] * 3
    for words in examples[:3]:
        options = [word for word in words[2:] if word not in ("--port", "1338")]
        with imds(*options) as running:
            assert running.end()[0] == 0
    with imds("--key", keys["ed25519"]) as running:
        assert machine.firstkey(examples[3][1], "--imds", running.url).status == 0
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=GENEROUS)
        connection.request("GET", "/" + examples[4][1].split("/", 3)[3])
        assert connection.getresponse().read().decode() == keys["ed25519"] + "\n"
        connection.close()
