"""The real `firstkey run` and daemon against hostile services, in a hostile environment.

Whatever is sent, time and memory are bounded, nothing of it reaches a terminal as it came, and no line that
is not a launch key gets into a file (promises 2, 4 and 7).
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
from machine import Machine, Run
from manager import Manager
from places import missing_for_strace
from raw_server import FIRST_KEY, INDEX, INSTANCE_ID, KEY, TOKEN, Pieces, RawServer, answer, ok, slowly

WAIT = 1.0
HANG = 90.0
"""Seconds: only a hang takes as long."""
MEMORY_MORE = 12 * 1024
"""KiB that an answer may cost beyond what a good one does; its own limit is 64."""
CONFIGURATION = "[IMDS]\nRequestTimeoutSec=5\n[Keys]\nUsers=admin\n[HostKeys]\nTypes=ed25519\n"

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\x85\x7f\b\r"
EVIL = ESCAPES.encode()
CHUNKED = answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked")
BOMB = gzip.compress(b"i" * (50 << 20), 9)[:60000]
"""Below the limit, and 50 MiB for whoever inflates it."""

Script = Callable[[int], Pieces]


def _for_ever(head: bytes, piece: bytes, pause: float = 0.0) -> Script:
    """The head, and the piece again and again, as fast as it goes or with pauses."""

    def script(_: int) -> Pieces:
        pieces = itertools.chain([head], itertools.repeat(piece * (1 if pause else 1000)))
        return slowly(pieces, pause) if pause else pieces

    return script


def _claims(headers: str, body: bytes = b"i-1") -> bytes:
    return answer(f"HTTP/1.1 200 OK\n{headers}", body)


def _every(body: bytes) -> dict[str, Pieces | Script]:
    return dict.fromkeys((TOKEN, INSTANCE_ID, INDEX, FIRST_KEY), body)


ANSWERED, LATER, REFUSED = 0, 75, 1
ATTACKS: dict[str, tuple[int, dict[str, Pieces | Script]]] = {
    "header flood": (REFUSED, {TOKEN: _for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")}),
    "one endless header": (REFUSED, {INSTANCE_ID: _for_ever(b"HTTP/1.1 200 OK\r\nX: ", b"x")}),
    "slow headers": (LATER, {INSTANCE_ID: _for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05)}),
    "slow status": (LATER, {TOKEN: _for_ever(b"", b"H", 0.05), INSTANCE_ID: _for_ever(b"", b"H", 0.05)}),
    "continue for ever": (REFUSED, {INDEX: _for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n")}),
    "chunks for ever": (REFUSED, {INSTANCE_ID: _for_ever(CHUNKED, b"1\r\ni\r\n")}),
    "a chunk that lies": (LATER, {INSTANCE_ID: CHUNKED + b"7fffffffffffffff\r\ni-1"}),
    "a negative chunk": (REFUSED, {INSTANCE_ID: CHUNKED + b"-5\r\ni-1\r\n0\r\n\r\n"}),
    "trailers for ever": (REFUSED, {INSTANCE_ID: _for_ever(CHUNKED + b"3\r\ni-1\r\n0\r\n", b"X: y\r\n")}),
    "too long a length": (LATER, {INSTANCE_ID: _claims("Content-Length: 9")}),
    "an immense length": (REFUSED, {INSTANCE_ID: _claims(f"Content-Length: {1 << 62}")}),
    "two lengths": (REFUSED, {INSTANCE_ID: _claims("Content-Length: 3\nContent-Length: 4", b"i-1x")}),
    "HTTP/0.9": (REFUSED, {INSTANCE_ID: b"i-1\n"}),
    "TLS": (LATER, _every(b"\x15\x03\x01\x00\x02\x02\x28")),
    "a bomb": (REFUSED, {INSTANCE_ID: ok(BOMB, "Content-Encoding: gzip")}),
    "a bomb in transfer": (REFUSED, {FIRST_KEY: _claims("Transfer-Encoding: gzip", BOMB)}),
    "one answer too many": (ANSWERED, {INSTANCE_ID: ok(b"i-1") + ok(b"0=evil") + ok(b"ssh-rsa evil")}),
    "401 for ever": (LATER, {INSTANCE_ID: ok(b"", status=f"401 {ESCAPES[:4]}")}),
    "a token with a line break": (REFUSED, {TOKEN: ok(b"token\r\nX-Evil: yes")}),
    "escapes in the status": (REFUSED, {INSTANCE_ID: ok(b"i-1", status=f"200{ESCAPES[:9]}")}),
    "escapes in the id": (REFUSED, {INSTANCE_ID: ok(b"i-1" + EVIL)}),
    "escapes in a name": (REFUSED, {INDEX: ok(b"0=" + EVIL)}),
    "marks in a name": (ANSWERED, {INDEX: ok("0=\u202eevil\u2066".encode())}),
    "escapes in a comment": (REFUSED, {FIRST_KEY: ok(KEY.rstrip() + EVIL)}),
    "marks in a comment": (ANSWERED, {FIRST_KEY: ok(KEY.rstrip() + "\u202eevil".encode())}),
    "escapes all over": (REFUSED, {FIRST_KEY: ok(EVIL * 100)}),
    "two lines for a key": (REFUSED, {FIRST_KEY: ok(KEY + b"ssh-ed25519 AAAA evil\n")}),
    "too many keys": (REFUSED, {INDEX: ok(b"\n".join(b"%d=k" % number for number in range(8000)))}),
}  # fmt: skip
QUICK = {
    "header flood",
    "a chunk that lies",
    "a token with a line break",
    "escapes in a name",
    "marks in a comment",
}
"""Those of the normal run; the others take their time on the distribution's Python."""

MEASURING = """
    import os, sys
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    sys.stderr.flush()
    print("peak", os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def measured(machine: Machine, url: str, *options: str, **environ: str) -> tuple[Run, int]:
    """`firstkey run` as a person sees it, and the peak of its memory in KiB."""
    argv = [sys.executable, "-m", "firstkey", "run", "--root", str(machine.root), "--imds", url, *options]
    done = subprocess.run(
        processes.program(MEASURING, *argv), capture_output=True, text=True, timeout=HANG, check=False,
        env=processes.environment(**environ), errors="surrogateescape",
    )  # fmt: skip
    out, _, logged = done.stdout.rpartition("peak ")
    status, peak = logged.split()
    return Run(int(status), out, done.stderr), int(peak)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> int:
    """KiB that a run takes at most whose service answers well."""
    machine = Machine(tmp_path_factory.mktemp("usual") / "root")
    machine.configure(CONFIGURATION)
    with RawServer() as server:
        done, peak = measured(machine, server.url, "-v")
    assert done.status == 0, done.err
    return peak


def is_shown(text: str) -> bool:
    """Whether a terminal shows the text and does nothing else."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ATTACKS]
)
@pytest.mark.sample(14)
def test_whatever_is_answered(machine: Machine, usual: int, name: str) -> None:
    """Its exit status, in time, in bounded memory; the file has the launch key or not; all can be shown."""
    status, answers = ATTACKS[name]
    machine.configure(CONFIGURATION)
    machine.write_keys("# mine\n")
    started = time.monotonic()
    with RawServer(answers) as server:
        done, peak = measured(machine, server.url, "-v", "--wait", str(WAIT if status == LATER else HANG))
    assert time.monotonic() - started < HANG
    assert done.status == status, done.err
    assert is_shown(done.out + done.err)
    assert "Traceback" not in done.err
    assert "internal-error" not in done.out + done.err
    assert peak < usual + MEMORY_MORE
    installed = ["# mine", KEY.decode().strip()]
    keys = [line.replace("\u202eevil", "") for line in machine.keys]
    assert keys == (installed if status == ANSWERED else installed[:1])
    assert is_shown(machine.path("/run/firstkey/report.json").read_text())
    assert list(machine.host_keys()) == ["ssh_host_ed25519_key.pub"]


# --- the daemon -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slow headers", pytest.param("header flood", marks=pytest.mark.slow)])
def test_the_boot_goes_on(tmp_path: Path, machine: Machine, usual: int, name: str) -> None:
    """The daemon is ready at the boot deadline or before, and asked to end it ends at once."""
    machine.configure(f"{CONFIGURATION}[IMDS]\nBootTimeoutSec=2\n")
    with Manager(tmp_path) as manager, RawServer(ATTACKS[name][1]) as server:
        argv = [sys.executable, "-m", "firstkey", "daemon", "--root", str(machine.root), "--imds", server.url]
        environment = processes.environment(NOTIFY_SOCKET=manager.address)
        started = time.monotonic()
        with subprocess.Popen(
            processes.program(MEASURING, *argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        ) as daemon:  # fmt: skip
            assert manager.wait("READY=1") - started < HANG
            processes.wait_for(machine.host_keys, "a host key")  # late on a busy machine
            (pid,) = processes.children(daemon.pid)
            os.kill(pid, signal.SIGTERM)
            out, err = daemon.communicate(timeout=HANG)
    _, status, peak = out.split()
    assert (status, is_shown(err)) == ("0", True)
    assert int(peak) < usual + MEMORY_MORE


# --- the environment --------------------------------------------------------------------------------

PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "ftp", "socks", "no")]


def test_no_variable_leads_it_elsewhere(tmp_path: Path, machine: Machine) -> None:
    """Proxies in every spelling, certificates, .netrc and key logs: the service is asked, nobody else."""
    machine.configure(CONFIGURATION)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login evil password secret\n")
    secrets = tmp_path / "secrets"
    with RawServer() as server, RawServer() as proxy:
        values = {name: "" if name == "no_proxy" else proxy.url for name in PROXIES}
        environ = {
            **values, **{name.upper(): value for name, value in values.items()}, "REQUEST_METHOD": "",
            "NETRC": str(netrc), "SSLKEYLOGFILE": str(secrets), "REQUESTS_CA_BUNDLE": "/nowhere",
            "CURL_CA_BUNDLE": "/nowhere", "HOSTALIASES": str(netrc), "RES_OPTIONS": "attempts:99",
            "LOCALDOMAIN": "evil.invalid", "HOME": str(tmp_path), "TZ": "../../../etc/passwd",
        }  # fmt: skip
        done, _ = measured(machine, server.url, **environ)
        assert (done.status, proxy.requests) == (0, []), done.err
        for head in server.requests:
            assert "evil" not in head
            assert "authorization" not in head.lower()
            assert re.match(r"(GET|PUT) /latest/", head), "not in the form that a proxy gets"
    assert machine.keys == [KEY.decode().strip()]
    assert not secrets.exists()


@pytest.mark.skipif(bool(missing_for_strace()), reason=str(missing_for_strace()))
def test_no_name_is_looked_up(tmp_path: Path, machine: Machine) -> None:
    """A hostile or dead resolver is never asked: all connections go to the endpoint."""
    machine.configure(CONFIGURATION)
    log = tmp_path / "log"
    with RawServer() as server:
        prefix = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,openat", "-o", str(log))
        done = machine.firstkey("run", "--imds", server.url, prefix=prefix)
        port = server.url.rpartition(":")[2]
    assert done.status == 0, done.err
    calls = log.read_text()
    to = set(re.findall(r"connect\(\d+, \{sa_family=AF_INET6?, (.*?)\}", calls))
    # sshd asks the kernel in that way which of its own addresses there are.
    to = {address for address in to if '"0.0.0.0"' not in address and '"::"' not in address}
    assert to == {f'sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")'}
    assert not re.findall(r'openat\([^"]*"/etc/(resolv\.conf|hosts|host\.conf)"', calls)
    assert "htons(53)" not in calls


LEAPING_CLOCK = """
    #define _GNU_SOURCE
    #include <time.h>
    #include <sys/time.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static long turn;
    int clock_gettime(clockid_t clock, struct timespec *now) {
        int result = syscall(SYS_clock_gettime, clock, now);
        if (clock == CLOCK_REALTIME) now->tv_sec += (++turn % 3 - 1) * 86400L * 400;
        return result;
    }
    time_t time(time_t *now) { struct timespec is; clock_gettime(CLOCK_REALTIME, &is); return is.tv_sec; }
"""


@pytest.fixture
def leaping_clock(tmp_path: Path) -> str:
    """A library with which the time of day is another one at each look, years before or behind."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(LEAPING_CLOCK)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    except FileNotFoundError:
        pytest.skip("needs a C compiler, to make a clock that leaps")
    code = "import time; times = {round(time.time() / 86400 / 300) for _ in range(9)}; print(len(times) > 2)"
    assert processes.run(code, LD_PRELOAD=str(library)) == "True\n"
    return str(library)


@pytest.mark.parametrize("name", [None, "slow headers"])
@pytest.mark.slow
def test_a_clock_that_leaps(machine: Machine, leaping_clock: str, name: str | None) -> None:
    """The time of day decides nothing: neither how long it asks, nor whether a token is still good."""
    machine.configure(CONFIGURATION)
    started = time.monotonic()
    with RawServer(ATTACKS[name][1] if name else None) as server:
        wait = str(WAIT if name else HANG)
        done, _ = measured(machine, server.url, "--json", "--wait", wait, LD_PRELOAD=leaping_clock)
        tokens = [head for head in server.requests if head.startswith("PUT ")]
        assert len(tokens) == 1 or name
    assert done.status == (LATER if name else 0), done.err
    assert time.monotonic() - started < HANG
    phases = json.loads(done.out)["timeline"]
    assert all(0 <= phase["start_ms"] <= phase["end_ms"] < HANG * 1000 for phase in phases)
