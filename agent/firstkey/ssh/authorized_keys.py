"""An `authorized_keys` file: its bytes in, its bytes with lines added and removed out.

It is read as sshd reads it (sshd(8): AUTHORIZED_KEYS FILE FORMAT), and no byte of a line that
firstkey did not write is ever changed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from io import BytesIO
from typing import NamedTuple

from firstkey.ssh.public_key import PublicKey, read_key


class Entry(NamedTuple):
    """One line. `raw` is all of it with its line ending; the `raw` of all entries together are the file.

    `key` is None where sshd finds no key: a comment, a blank line, a broken one, a certificate.
    `options` are as they stand before the key, empty where there are none or no key.
    """

    raw: bytes
    options: bytes = b""
    key: PublicKey | None = None


class Line(NamedTuple):
    """A line that firstkey writes: a key, and the options before it (sshd(8)), if any."""

    key: PublicKey
    options: str = ""

    @property
    def text(self) -> bytes:
        """The whole line with its newline."""
        words = f"{self.options} {self.key.line}" if self.options else self.key.line
        return words.encode("utf-8", "surrogateescape") + b"\n"


class Revocation(NamedTuple):
    """A line of firstkey's own that shall go: the key's fingerprint, and the options as it wrote them."""

    fingerprint: str
    options: str = ""


class Merge(NamedTuple):
    """What became of a file. `content` is the file as it shall be, the very same where nothing changes.

    `present` were there already, whatever their options and comments. `kept` should have gone,
    but stand with other options than firstkey wrote: somebody changed the line, so it stays.
    """

    content: bytes
    added: tuple[Line, ...]
    present: tuple[Line, ...]
    revoked: tuple[PublicKey, ...]
    kept: tuple[PublicKey, ...]


def parse(content: bytes) -> tuple[Entry, ...]:
    """Every line of the file, in order. Lines end at a newline and nowhere else, as for sshd."""
    return tuple(map(_entry, BytesIO(content)))


def merge(content: bytes, *, add: Sequence[Line], revoke: Sequence[Revocation]) -> Merge:
    """The file without the lines to revoke and with the lines to add, each key once.

    A key in both is not revoked: it is the launch key of this instance as well.
    """
    # Only lines with a key are kept in memory: a user may have filled the file with a million others.
    long_enough = (raw for raw in BytesIO(content) if len(raw) >= _SHORTEST)
    entries = [entry for entry in map(_entry, long_enough) if entry.key]
    there = {entry.key.blob for entry in entries if entry.key}
    wanted: dict[bytes, Line] = {}
    for line in add:
        wanted.setdefault(line.key.blob, line)
    added = tuple(line for blob, line in wanted.items() if blob not in there)
    present = tuple(line for blob, line in wanted.items() if blob in there)
    gone, kept = _revocable(entries, revoke, spared=wanted)
    return Merge(_appended(_without(content, gone), added), added, present, _keys(gone), _keys(kept))


# --- reading --------------------------------------------------------------------------------------

# "ssh-ed25519 " and 68 characters of base64: nothing shorter can be a key, and most other lines are.
_SHORTEST = 80

_MARK = re.compile(rb'\\"|["\t ]')


def _entry(raw: bytes) -> Entry:
    # A line is a C string to sshd: it reads nothing behind a NUL.
    line = raw.partition(b"\0")[0].lstrip(b" \t")
    if len(line) < _SHORTEST or line.startswith(b"#"):
        return Entry(raw)
    key = read_key(line)
    if key:
        return Entry(raw, b"", key)
    end = _end_of_options(line)
    key = read_key(line[end:].lstrip(b" \t"))
    return Entry(raw, line[:end], key) if key else Entry(raw)


def _end_of_options(line: bytes) -> int:
    """Where the first blank outside of quotes is (sshkey.c: sshkey_advance_past_options)."""
    quoted = False
    for mark in _MARK.finditer(line):
        if mark[0] == b'"':
            quoted = not quoted
        elif mark[0] != b'\\"' and not quoted:
            return mark.start()
    return len(line)


# --- merging --------------------------------------------------------------------------------------


def _revocable(
    entries: Iterable[Entry], revoke: Sequence[Revocation], *, spared: Container[bytes]
) -> tuple[frozenset[Entry], frozenset[Entry]]:
    """The lines that go, and those that would if nobody had changed their options."""
    options: dict[str, set[bytes]] = {}
    for fingerprint, written in revoke:
        options.setdefault(fingerprint, set()).add(written.encode("utf-8", "surrogateescape"))
    if not options:
        return frozenset(), frozenset()
    keys = {entry: entry.key for entry in entries if entry.key and entry.key.blob not in spared}
    named = {entry: options[key.fingerprint] for entry, key in keys.items() if key.fingerprint in options}
    gone = frozenset(entry for entry, written in named.items() if entry.options in written)
    return gone, frozenset(named) - gone


def _without(content: bytes, gone: Iterable[Entry]) -> bytes:
    lines = {entry.raw for entry in gone}
    return b"".join(raw for raw in BytesIO(content) if raw not in lines) if lines else content


def _appended(content: bytes, lines: Sequence[Line]) -> bytes:
    if not lines:
        return content
    # Without a last newline, the first key would become the comment of the line before it.
    gap = b"\n" if content and not content.endswith(b"\n") else b""
    return content + gap + b"".join(line.text for line in lines)


def _keys(entries: Iterable[Entry]) -> tuple[PublicKey, ...]:
    """Their keys, each once, in an order that is the same each time."""
    return tuple(sorted({entry.key.blob: entry.key for entry in entries if entry.key}.values()))
