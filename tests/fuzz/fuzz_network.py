"""Targets: what the metadata service may send, as bytes on a connection and as one answer after the other."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

from fuzz_oracle import SEPARATOR, Target, or_refused, shown

from firstkey import config
from firstkey.boot import launch_keys
from firstkey.cli import keys as keys_command
from firstkey.cli import render
from firstkey.events import KEY_ADDED, Entry
from firstkey.metadata import inquiry
from firstkey.metadata.inquiry import Inquiry, Token
from firstkey.metadata.transport import ANSWER_LIMIT, BoundedSocket, Conversation, Deadline, Endpoint, Reply
from firstkey.model import Answer
from firstkey.reasons import FirstkeyError
from firstkey.text import visible

ENDPOINT = Endpoint.parse("http://127.0.0.1:80")
MOST_REQUESTS = 3 * (inquiry.MOST_KEYS + 6)
"""A request, a new token and the request again for each thing there is to ask."""


def check_http(data: bytes) -> None:
    """Any bytes are an answer or a refusal; no body is longer than the limit, or anything but what came."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        sent = theirs.send(data) if data else 0
        theirs.shutdown(socket.SHUT_WR)
        connection = BoundedSocket(fileno=ours.detach())
        reply = or_refused(lambda: _asked(connection))
    if reply is None:
        return
    assert 100 <= reply.status <= 999
    assert len(reply.body) <= ANSWER_LIMIT
    chunks = re.search(rb"(?i)\ntransfer-encoding", data[:sent])
    assert chunks or reply.body in data[:sent]


def _asked(connection: BoundedSocket) -> Reply:
    deadline = Deadline(time.monotonic() + 30, time.monotonic)
    conversation = Conversation(ENDPOINT)
    conversation._connection = connection
    return conversation.ask("GET", "/latest/meta-data/instance-id", headers={}, deadline=deadline)


class _Script:
    """A conversation whose answers are the parts of the input: two bytes of status, then the body."""

    endpoint = ENDPOINT

    def __init__(self, data: bytes) -> None:
        self._answers = data.split(SEPARATOR)
        self.asked: list[tuple[str, dict[str, str]]] = []

    def connect(self, deadline: Deadline) -> None:
        """There is one already."""

    def ask(self, method: str, path: str, *, headers: dict[str, str], deadline: Deadline) -> Reply:
        assert len(self.asked) < MOST_REQUESTS, "the service is asked without end"
        assert re.fullmatch(
            r"/latest/(api/token|meta-data/(instance-id|public-keys(/([0-9]+/openssh-key)?)?)?)", path
        )
        assert all(re.fullmatch(r"[!-~]+", value) for value in headers.values()), headers
        number = len(self.asked) % len(self._answers)
        self.asked.append((f"{method} {path}", headers))
        head, body = self._answers[number][:3], self._answers[number][3:]
        status = int(head) if re.fullmatch(rb"[1-5][0-9]{2}", head) else 200
        return Reply(status, body if status == 200 else b"")


def check_inquiry(data: bytes) -> None:
    """Whatever is answered, few questions are asked, and what is told of it can be shown and has no token."""
    script: Any = _Script(data)
    logged: list[Entry] = []
    tokens: dict[str, Token] = {}
    never = Deadline(time.monotonic() + 1e6, time.monotonic)
    asking = Inquiry(script, config.read([]).imds, tokens=tokens, log=logged.append, deadline=never)
    try:
        answer: Answer | None = asking.answer()
    except FirstkeyError as error:
        answer = None
        shown(error.message)
    for entry in logged:
        shown(entry.message)
    if answer:
        # A service that gives more than one may have shown the later one as something else before.
        only = sum("token" in path for path, _ in script.asked) == 1
        _check_answer(answer, [token.text for token in tokens.values() if only])
    assert not any("token" in path and inquiry.TOKEN_HEADER in headers for path, headers in script.asked)


def _check_answer(answer: Answer, tokens: list[str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", answer.instance_id)
    assert len(answer.keys) <= inquiry.MOST_KEYS
    for key in launch_keys.judge(answer.keys)[1]:
        for line in render.offered_key(key):
            shown(visible(line))
        shown(KEY_ADDED(fingerprint=key.fingerprint, key_name=key.name, user="root", file="/f").message)
    done = keys_command._report(answer)
    lines = "".join(map(visible, keys_command._lines(done, quiet=False))) + json.dumps(done.as_json())
    assert lines.isprintable()
    assert not any(len(token) > 12 and token in lines for token in tokens)
    assert visible(answer.instance_id) == answer.instance_id


HTTP_WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 401 x\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/0.9", b"\r\n",
    b"\r\n\r\n", b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n", b"3\r\ni-1\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"+3\r\n",
    b"0x3\r\n", b"3;a=b\r\n", b"\x1f\x8b\x08", b"\x16\x03\x01", b"Location: http://192.0.2.1/\r\n",
    b"Set-Cookie: a=b\r\n", b"Trailer: x\r\n", b": ", b" \r\n", b"\xff", b"\0", b"i-1",
    b"Connection: keep-alive\r\n",
)  # fmt: skip
INQUIRY_WORDS = (
    SEPARATOR, b"200AQAEAOaLUQnv-secret-token==", b"200i-1", b"2000=launch\n1=other", b"200ssh-ed25519 ",
    b"401",
    b"403", b"404", b"405", b"400", b"503", b"301", b"\r\n", b"\x1b[2J", b"\xe2\x80\xae", b"\xc2\x85", b"=",
    b"999999999=", b"\n", b"20000=a\n0=b", b"\xff", b"\0", b"\xe2\x80\xa8",
)  # fmt: skip

TARGETS = {
    "http": Target(check_http, HTTP_WORDS),
    "inquiry": Target(check_inquiry, INQUIRY_WORDS),
}
