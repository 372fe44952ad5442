"""Services that speak as EC2's does, nearly: which were tried, and how (docs/platforms.md)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from asking import Outcome, ask
from machine import new_key
from raw_server import INDEX, RawServer, answer

from firstkey.metadata.emulator import IMITATIONS, Emulator, Settings
from firstkey.reasons import Unreachable

MOCK = shutil.which("amazon-ec2-metadata-mock") or shutil.which("ec2-metadata-mock")
SUPPORT = os.path.dirname(processes.__file__)
KEYS = "GET /latest/meta-data/public-keys"


def test_each_imitation_is_in_the_table() -> None:
    """Beside the service that it imitates."""
    page = (Path(__file__).parents[2] / "docs/platforms.md").read_text()
    assert set(re.findall(r"--like ([\w-]+)`", page)) == set(IMITATIONS) - {"ec2"}


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A launch key."""
    return new_key(tmp_path, "launch")


def asked(like: str, *keys: str, tokens: str = "both") -> Outcome:
    """What is made of such a service with these keys."""
    named = tuple((f"key{number}", key) for number, key in enumerate(keys))
    with Emulator(Settings(instance_id="i-1", keys=named, like=like, tokens=tokens)) as running:
        return ask(running.url, attempts=2)


@pytest.mark.parametrize("like", sorted(set(IMITATIONS) - {"localstack"}))
@pytest.mark.parametrize("tokens", ["both", "absent"])
def test_the_key_is_had(like: str, tokens: str, key: str) -> None:
    """With tokens and without."""
    good = asked(like, key, tokens=tokens).good
    assert [(offered.text.strip().decode(), offered.refusal) for offered in good.keys] == [(key, None)]
    assert good.instance_id == "i-1"


@pytest.mark.parametrize("like", sorted(set(IMITATIONS) - {"localstack"}))
def test_without_a_key_pair(like: str) -> None:
    """It is an answer for each that can give it."""
    assert asked(like).good.keys == ()


def test_all_key_lines_are_had(key: str, tmp_path: Path) -> None:
    """CloudStack has one a line, in an order of its own."""
    other = new_key(tmp_path, "other", kind="ecdsa")
    good = asked("cloudstack", key, other).good
    assert [(offered.number, offered.text.decode()) for offered in good.keys] == [
        ("0", f"{key}\n"), ("1", f"{other}\n"),
    ]  # fmt: skip


@pytest.mark.parametrize("keys", [0, 1])
def test_a_missing_category_is_not_called_a_missing_key_pair(keys: int, key: str) -> None:
    """LocalStack: nobody knows whether there is a key, and that is said; it is no wait either."""
    outcome = asked("localstack", *[key] * keys)
    assert outcome.code == "category-missing"
    assert not isinstance(outcome.error, Unreachable)


def test_a_service_in_trouble_says_nothing_of_its_categories() -> None:
    """A list of them that fails is asked for again."""
    missing = answer("HTTP/1.1 404 Not Found\nContent-Length: 0")
    trouble = answer("HTTP/1.1 503 Oh\nContent-Length: 0")
    listing = "GET /latest/meta-data/"
    answers = {INDEX: missing, KEYS: missing, listing: trouble}
    with RawServer(dict(answers)) as server:
        outcome = ask(server.url, attempts=1)
    assert (outcome.code, type(outcome.error)) == ("imds-error", Unreachable)


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare and ip")
def test_a_link_local_endpoint_with_its_interface(key: str) -> None:
    """OpenStack's own one; an interface that is not there yet is waited for."""
    code = f"""
        import subprocess, threading, time
        from asking import ask
        from firstkey.metadata.emulator import Emulator, Settings
        def run(line): subprocess.run(line.split(), check=True)
        run("ip link set lo up")
        def later():
            time.sleep(0.3)
            run("ip link add late0 type veth peer name late1")
            run("ip link set late1 up")
            run("ip link set late0 up")
            run("ip address add fe80::a9fe:a9fe/64 dev late0 nodad")
            Emulator(Settings(keys=(("launch", {key!r}),)), host="fe80::a9fe:a9fe%late0", port=80).start()
        threading.Thread(target=later, daemon=True).start()
        good = ask("http://[fe80::a9fe:a9fe%late0]").good
        print(good.endpoint, len(good.keys))
    """
    said = isolated(code)
    assert said == "http://[fe80::a9fe:a9fe%late0] 1\n"


LOCKED = """
    import pathlib, subprocess
    from asking import ask
    subprocess.run("ip link set lo up; ip route add prohibit 169.254.169.254", shell=True, check=True)
    subprocess.run("mount -t tmpfs none /run", shell=True, check=True)
    socket = pathlib.Path("/run/systemd/io.systemd.InstanceMetadata")
    before = ask("http://169.254.169.254", attempts=1)
    socket.parent.mkdir()
    socket.touch()
    after = ask("http://169.254.169.254", attempts=1)
    print(before.code, after.code, after.error)
"""


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare and ip")
def test_systemd_keeps_the_address_for_itself() -> None:
    """Its prohibit route beside its socket has a reason of its own; a route alone is somebody else's."""
    before, after, *rest = isolated(LOCKED).split()
    assert (before, after) == ("imds-unreachable", "imds-locked")
    assert "permission denied" in " ".join(rest)


def isolated(code: str) -> str:
    """What the code prints in a network and a mount namespace of its own."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", *processes.program(code)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=processes.PATIENCE, check=False,
        env=processes.environment(PYTHONPATH=os.pathsep.join([str(processes.AGENT), SUPPORT])),
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespace of its own can be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def mock() -> Iterator[str]:
    """The URL of amazon-ec2-metadata-mock itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    argv = [str(MOCK), "--hostname", "127.0.0.1", "--port", str(port), "--imdsv2"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.skipif(not MOCK, reason="needs amazon-ec2-metadata-mock")
def test_amazon_ec2_metadata_mock(mock: str) -> None:
    """The program itself: IMDSv2, its instance and its key."""
    good = ask(mock).good
    assert good.version == 2
    assert [offered.text[:8] for offered in good.keys] == [b"ssh-rsa "]
