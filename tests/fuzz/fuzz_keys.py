"""Targets: files of keys, public keys, and the console text that host keys are read out of."""

from __future__ import annotations

import subprocess
from base64 import b64encode
from functools import lru_cache
from io import BytesIO

from fuzz_oracle import Target, or_refused, shown

from firstkey.cli import known_hosts as command
from firstkey.reasons import FirstkeyError
from firstkey.ssh import (
    authorized_keys,
    console_text,
    key_options,
    known_hosts,
    public_key,
)
from firstkey.ssh.authorized_keys import Line
from firstkey.ssh.public_key import PublicKey


def _ed25519(seed: int, comment: str) -> PublicKey:
    kind = b"ssh-ed25519"
    data = b"".join(len(field).to_bytes(4, "big") + field for field in (kind, bytes([seed]) * 32))
    return public_key.parse_launch_key(b" ".join((kind, b64encode(data), comment.encode())))


NEW, OLD, REDIRECTED = _ed25519(1, "new"), _ed25519(2, "old"), _ed25519(3, "root")
COMMAND = 'restrict,command="echo no"'
REVOKED = ((OLD.fingerprint, "", "old"), (REDIRECTED.fingerprint, COMMAND, "root"))
REMOVABLE = (OLD.line.split()[1].encode(), REDIRECTED.line.split()[1].encode())


def check_authorized_keys(data: bytes) -> None:
    """Foreign lines survive a merge, and a second merge changes nothing."""
    for _, entry in authorized_keys.keyed(data):
        _check_options(entry)
    merged = authorized_keys.merge(data, add=[Line(NEW)], revoke=REVOKED)
    foreign = [raw for raw in BytesIO(data) if not _may_go(raw)]
    assert _is_in_order(foreign, merged.content), "a foreign line is gone, changed, or elsewhere"
    assert len(merged.revoked) + len(list(BytesIO(data))) >= len(list(BytesIO(merged.content))) - 1
    assert any(entry.key.blob == NEW.blob for _, entry in authorized_keys.keyed(merged.content))
    again = authorized_keys.merge(merged.content, add=[Line(NEW)])
    assert again.content is merged.content
    if merged.added:
        _check_taken_back(data, merged.content)


def _check_options(entry: Line) -> None:
    key_options.parse_options(entry.options)
    _ = entry.flaw
    line = entry.key.line.encode("utf-8", "surrogateescape")
    or_refused(lambda: public_key.parse_launch_key(line))


def _may_go(raw: bytes) -> bool:
    """Whether the line has one of the keys in it that are taken away; by eye, not by the code under test."""
    return any(blob in raw.translate(None, b"\v\f\r") for blob in REMOVABLE)


def _is_in_order(lines: list[bytes], content: bytes) -> bool:
    """Whether each line stands in the content, byte for byte, after the one before it."""
    there = iter(list(BytesIO(content)))
    return all(any(found.rstrip(b"\n") == line.rstrip(b"\n") for found in there) for line in lines)


def _check_taken_back(before: bytes, after: bytes) -> None:
    """What was added goes again and leaves every line as it was, but for what was revoked meanwhile."""
    back = authorized_keys.merge(after, revoke=[Line(NEW).written]).content
    rest = authorized_keys.merge(before, revoke=REVOKED).content
    assert back == rest + (b"\n" if rest and not rest.endswith(b"\n") else b"")


def check_public_key(data: bytes) -> None:
    """A key is one line that reads the same again, and one that ssh-keygen takes; a refusal shows little."""
    read = public_key.read_key(data)
    if read:
        assert read.fingerprint.startswith("SHA256:")
        assert read.bits > 0
    try:
        key = public_key.parse_launch_key(data)
    except FirstkeyError as error:
        shown(error.message, 400)
        return
    assert public_key.parse_launch_key(key.line.encode("utf-8", "surrogateescape")) == key
    assert public_key.read_key(key.line.encode("utf-8", "surrogateescape")) == key
    assert not set(key.line) & set(map(chr, [*range(32), *range(127, 160)]))
    seen = _keygen(key._replace(comment=""))
    # Of the other types, ssh-keygen says whether it is one (launch_keys.judge).
    assert seen == f"{key.bits} {key.fingerprint}" or not (seen or key.type in public_key.JUDGED_HERE)


@lru_cache(maxsize=4096)
def _keygen(key: PublicKey) -> str:
    """Size and fingerprint as ssh-keygen has them."""
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=key.line.encode() + b"\n", capture_output=True, check=False
    )
    return " ".join(done.stdout.decode().split()[:2])


def check_console(data: bytes) -> None:
    """Any text is an answer or a refusal; what comes out of it are keys, each a line of its own."""
    text = or_refused(lambda: command._text(data))
    found = console_text.read(text) if text is not None else None
    if found is None:
        return
    assert not set(found.keys) & set(found.strangers)
    for key in (*found.keys, *found.strangers):
        for line in known_hosts.lines(["host"], key) + known_hosts.sshfp("host", key):
            shown(line, 30000)


LINE_WORDS = (
    NEW.line.encode(), OLD.line.encode(), REDIRECTED.line.encode(), COMMAND.encode() + b" ",
    *REMOVABLE, b"ssh-ed25519 ", b"ssh-rsa ", b"rsa-sha2-256 ", b"ssh-dss ", b"ecdsa-sha2-nistp256 ",
    b"sk-ssh-ed25519@openssh.com ", b"ssh-ed25519-cert-v01@openssh.com ", b"AAAAC3NzaC1lZDI1NTE5AAAAI",
    b"AAAAB3NzaC1yc2EAAAADAQABAAABAQ", b"\r\n", b"\0", b"#", b'"', b'\\"', b"\t", b"\v", b"\xff",
    b"cert-authority ", b'from="10.0.0.0/8" ', b'environment="A=b" ', b'expiry-time="20300101" ',
    b" old\n", b" new\n", b"=", b",",
)  # fmt: skip
CONSOLE_WORDS = (
    b"-----BEGIN SSH HOST KEY FINGERPRINTS-----\n", b"-----END SSH HOST KEY FINGERPRINTS-----\n",
    b"-----BEGIN SSH HOST KEY KEYS-----\n", b"-----END SSH HOST KEY KEYS-----\n", b"\r", b"\r\r\r\r\n",
    b"\x1b[0m", b"\x1b]0;", b"\x07", NEW.line.encode(), NEW.fingerprint.encode(), b"256 ", b"MD5:",
    b"ci-info: ", b'{"Output": "', b"LS0tLS1CRUdJTg==", b"[[[[", b"\\u0000", b"SSH HOST KEY",
)  # fmt: skip

TARGETS = {
    "authorized-keys": Target(check_authorized_keys, LINE_WORDS),
    "public-key": Target(check_public_key, LINE_WORDS),
    "console": Target(check_console, CONSOLE_WORDS),
}
