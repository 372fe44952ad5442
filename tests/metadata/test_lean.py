"""Loading `requests` without what nobody here needs: it works, it is less, and nobody else is deprived."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from firstkey.metadata.emulator import Emulator, Settings
from firstkey.metadata.lean import ABSENT, STAND_INS

ASKING = """\
import json, sys, time
before = set(sys.modules)  # by the start-up files of a virtual environment
from firstkey.metadata.client import Client, Settings
answer = Client(Settings((sys.argv[1],), "2", 600, 5.0)).ask(deadline=time.monotonic() + 30)
loaded = sorted(set(sys.modules) - before)
import certifi, chardet, hashlib, idna, ssl
print(json.dumps({
    "instance": answer.instance_id,
    "loaded": loaded,
    "real": [ssl.SSLContext.__name__, idna.encode("a").decode(), chardet.detect(b"a")["encoding"], certifi.where()],
}))
"""


def run(program: str, *arguments: str) -> Any:
    """What the program prints, as a fresh process of this Python."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


def test_it_works_with_less() -> None:
    """An answer comes through, and none of the modules was loaded for it that are left out."""
    with Emulator(Settings(instance_id="i-1")) as service:
        said = run(ASKING, service.url)
    assert said["instance"] == "i-1"
    assert "requests" in said["loaded"]
    assert not {*ABSENT, *STAND_INS} & set(said["loaded"])


def test_whoever_comes_later_gets_the_real_ones() -> None:
    """The names are free again: an import finds what is installed."""
    with Emulator(Settings(instance_id="i-1")) as service:
        context, encoded, guessed, certificates = run(ASKING, service.url)["real"]
    assert (context, encoded, guessed) == ("SSLContext", "a", "ascii")
    assert certificates.endswith(".crt") or certificates.endswith(".pem")


def test_what_is_loaded_already_is_left_alone() -> None:
    """A program that uses `requests` itself keeps the whole of it."""
    program = (
        "import json, requests, sys\n"
        "before = set(sys.modules)\n"
        "import firstkey.metadata.transport\n"
        "print(json.dumps(sorted(before - set(sys.modules))))\n"
    )
    assert run(program) == []
