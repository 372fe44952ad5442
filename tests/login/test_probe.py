"""How an sshd is asked that is not there for the moment, as during its reload."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from machine import AGENT

from firstkey.login import probe
from firstkey.reasons import FirstkeyError
from firstkey.system import sockets


def test_a_port_that_opens_is_asked_again() -> None:
    """Refused at first, it says its first words later."""
    questions = 0
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # which refuses connections until it listens

        def ask() -> bytes:
            nonlocal questions
            questions += 1
            if questions == 3:
                server.listen()
            try:
                said = sockets.first_words("127.0.0.1", server.getsockname()[1], seconds=0.01)
            except FirstkeyError as error:
                return error.message.encode()
            return said or b"listens"

        assert probe.through_reload(ask, lambda said: b"refused" not in said) == b"listens"
    assert questions == 3


def test_a_port_that_stays_closed_is_given_up() -> None:
    """It is asked for a while, and the last word is the answer."""
    said = probe.through_reload(iter(range(1000)).__next__, lambda _: False)
    assert 1 < said < 20


@pytest.mark.root
@pytest.mark.parametrize(
    "title, is_sshd",
    [
        ("/usr/sbin/sshd -D", True),
        ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", True),
        ("sshd: alice [priv]", False),
        ("/usr/lib/openssh/sshd-session -R", False),
    ],
)
def test_a_process_shows_that_sshd_is_there(title: str, is_sshd: bool) -> None:
    """In a room without other processes: what only reads its configuration again is worth waiting for."""
    asked = "from firstkey.login import probe; print(probe.is_sshd_there())"
    started = "import os, sys; os.execv('/bin/sleep', [sys.argv[1], '60'])"
    script = f"""
        {sys.executable} -c "{started}" "{title}" &
        until tr '\\0' ' ' </proc/$!/cmdline | grep -qF "{title} 60"; do sleep 0.01; done
        exec {sys.executable} -c '{asked}'"""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(AGENT)}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == f"{is_sshd}\n"


def test_a_question_that_takes_its_time_is_asked_once() -> None:
    """A server that keeps its silence is no sshd that comes back."""
    seconds = probe.RELOAD_SECONDS + 0.1
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = probe.through_reload(
            lambda: sockets.first_words("127.0.0.1", port, seconds=seconds), lambda said: said
        )
        assert said == b""
        server.accept()[0].close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
