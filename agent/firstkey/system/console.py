"""The console: where readers of `get-console-output` learn the host keys before they trust them."""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time

from firstkey import TYPE_CHECKING, reasons
from firstkey.reasons import FirstkeyError
from firstkey.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME_LIMIT_SEC = 3.0

# The names that begin a public key line (sshd(8), RFC 8709), anywhere in a word: readers look no closer.
_ALGORITHM = re.compile(r"(ssh|ecdsa|rsa)-(?=rsa|dss|dsa|ed25519|ed448|sha2|xmss)")
_MARKER = re.compile(r"--+|(?<=SSH) (?=HOST KEY)")


def fingerprint_block(keys: Sequence[tuple[str, str]], *, prefix: str) -> bytes:
    """What is written to the console: for each key a line of `ssh-keygen -l` and its public key line.

    Two blocks: the fingerprints, each line behind the prefix, then the keys without any. Known
    readers take the first word in the whole console that looks like the algorithm they want, and
    what follows it, for the key: so no comment may contain one, nor a line of dashes that would end
    a block. The empty line in front keeps the block clear of a login prompt that has no end of line.
    """
    lines = [
        "",
        f"{prefix}-----BEGIN SSH HOST KEY FINGERPRINTS-----",
        *(prefix + _harmless(fingerprint_line) for fingerprint_line, _ in keys),
        f"{prefix}-----END SSH HOST KEY FINGERPRINTS-----",
        "-----BEGIN SSH HOST KEY KEYS-----",
        *(_with_comment(public_line) for _, public_line in keys),
        "-----END SSH HOST KEY KEYS-----",
    ]
    return "".join(f"{line}\n" for line in lines).encode("ascii", "backslashreplace")


def syslog_prefix(seconds: float | None = None) -> str:
    """The prefix as logger(1) writes it for `user.info`; the time is in seconds since the epoch, in UTC."""
    return time.strftime("<14>%b %e %H:%M:%S firstkey: ", time.gmtime(seconds))


def write(data: bytes, *, path: str, seconds: float = TIME_LIMIT_SEC, is_device: bool = True) -> None:
    """Write to the console. Raises FirstkeyError where there is none, or where it takes nothing in time.

    The path must be the console itself: a symbolic link in a tree (`--root`) could lead out of it. So could
    a device there, which is the host's: in a tree, `is_device` is false, and only a
    file or a pipe is written to.
    """
    try:
        console = _opened(path, is_device=is_device)
        try:
            _write_in_time(console, data, time.monotonic() + seconds)
        finally:
            os.close(console)
    except OSError as error:
        why = error.strerror or str(error)
        raise FirstkeyError(f"cannot write to {path}: {why}", reason=reasons.CONSOLE_FAILED) from error


def _opened(path: str, *, is_device: bool) -> int:
    kind = stat.S_IFMT(os.stat(path, follow_symlinks=False).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFIFO, *([stat.S_IFCHR] if is_device else [])):
        raise OSError(errno.ENOTTY, "it is no console")
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_APPEND)


def _with_comment(public_line: str) -> str:
    """The line with a comment, so that the carriage return of the terminal does not touch the base64."""
    kind, blob, *comment = public_line.split(None, 2)
    return f"{kind} {blob} {_harmless(' '.join(comment)) or 'firstkey'}"


def _harmless(text: str) -> str:
    """The text on one short line, without a name of an algorithm and without what a marker is made of."""
    return _ALGORITHM.sub(r"\1_", _MARKER.sub("-", visible(text.strip()[:512])))


def _write_in_time(console: int, data: bytes, deadline: float) -> None:
    poll = select.poll()
    poll.register(console, select.POLLOUT)
    while data:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("it takes nothing")
        try:
            data = data[os.write(console, data) :]
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)  # A terminal may report room for less than it would take at once.
