"""An `authorized_keys` file: its bytes in, its bytes with lines added and removed out.

It is read as sshd reads it (sshd(8): AUTHORIZED_KEYS FILE FORMAT), and no byte of a line that
firstkey did not write is ever changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Optional

from firstkey.named_tuple import NamedTuple
from firstkey.ssh import access
from firstkey.ssh.public_key import PublicKey, read_key


class Entry(NamedTuple):
    """One line. `raw` is all of it with its line ending; the `raw` of all entries together are the file.

    `key` is None where sshd finds no key: a comment, a blank line, a broken one, a certificate.
    `options` are as they stand before the key, empty where there are none or no key.
    """

    raw: bytes
    options: bytes = b""
    key: Optional[PublicKey] = None  # noqa: UP045 - evaluated on Python 3.9 by get_type_hints

    @property
    def is_the_keys_own(self) -> bool:
        """Whether the line is about the key itself: a `cert-authority` lets in only what the key signed."""
        return self.key is not None and not access.is_authority(self.options)

    @property
    def lets_in(self) -> bool:
        """Whether sshd lets the key in by this line, at least from somewhere."""
        return self.is_the_keys_own and access.useless(self.options) is None


class Written(NamedTuple):
    """A line that firstkey wrote, by what tells it from every other line: options and comment count."""

    fingerprint: str
    options: str = ""
    comment: str = ""


class Line(NamedTuple):
    """A line that firstkey writes: a key, and the options before it (sshd(8)), if any.

    With `instead_of`, it is written only where that line still stands, which then goes.
    """

    key: PublicKey
    options: str = ""
    instead_of: Optional[Written] = None  # noqa: UP045 - as above

    @property
    def text(self) -> bytes:
        """The whole line with its newline."""
        words = f"{self.options} {self.key.line}" if self.options else self.key.line
        return words.encode("utf-8", "surrogateescape") + b"\n"

    @property
    def written(self) -> Written:
        """How the line is known again."""
        return Written(self.key.fingerprint, self.options, self.key.comment)


class Present(NamedTuple):
    """A wanted key that is there already. `options` stand before it; None: it is in another file."""

    line: Line
    options: Optional[bytes] = None  # noqa: UP045 - as above


class Merge(NamedTuple):
    """What became of a file. `content` is the file as it shall be, the very same where nothing changes.

    `present` were there already, whatever their options and comments; of these, `own` are the
    fingerprints whose line is one that firstkey wrote. `left` should have gone, but their keys stand in
    lines that firstkey did not write, or that somebody changed since: these stay.
    """

    content: bytes
    added: tuple[Line, ...] = ()
    present: tuple[Present, ...] = ()
    own: frozenset[str] = frozenset()
    revoked: tuple[Written, ...] = ()
    left: tuple[Written, ...] = ()


def parse(content: bytes) -> tuple[Entry, ...]:
    """Every line of the file, in order. Lines end at a newline and nowhere else, as for sshd."""
    return tuple(map(_entry, BytesIO(content)))


def keyed(content: bytes) -> Iterator[tuple[int, Entry]]:
    """The lines that have a key, with their numbers from 1, one at a time.

    For files of users: one of four million empty lines would fill the memory of a small instance as `parse`
    has it.
    """
    for number, raw in enumerate(BytesIO(content), start=1):
        entry = _entry(raw) if len(raw) >= _SHORTEST else None
        if entry and entry.key:
            yield number, entry


def best_of_each_key(entries: Iterable[Entry]) -> dict[bytes, Entry]:
    """Of each key, by its blob, the first line by which sshd lets it in, or else the first of all."""
    best: dict[bytes, Entry] = {}
    good: set[bytes] = set()
    for entry in entries:
        blob = entry.key.blob if entry.key else b""
        if blob in good:
            continue
        best.setdefault(blob, entry)
        if entry.lets_in:
            good.add(blob)
            best[blob] = entry
    return best


def merge(
    content: bytes,
    *,
    add: Sequence[Line] = (),
    revoke: Sequence[Written] = (),
    own: Sequence[Written] = (),
    elsewhere: Collection[str] = (),
) -> Merge:
    """The file without the lines to revoke and with the lines to add, each key once.

    `own` are lines that firstkey wrote and that may stay; `elsewhere` are fingerprints that sshd finds in
    another of the user's files. A line that is to go and is wanted again just so stays where it is: it is
    the launch key of this instance as well. Of two lines that read the same, one is firstkey's, and goes.
    """
    lines = _Lines(content)
    exchanged = {line.written: line.instead_of for line in add if line.instead_of}
    exchanged = {new: old for new, old in exchanged.items() if lines.stands(old)}
    wanted: dict[bytes, Line] = {}
    for line in add:
        if not line.instead_of or line.written in exchanged:
            wanted.setdefault(line.key.blob, line)
    same = {(line.key.fingerprint, line.options) for line in wanted.values()}
    going = [old for old in revoke if (old.fingerprint, old.options) not in same]
    revoked = [old for old in going if lines.take_out(old)]
    for old in exchanged.values():
        lines.take_out(old)
    there = lines.best_of(wanted)
    fingerprints = {line.key.fingerprint for line in wanted.values()}
    added = tuple(line for line in wanted.values() if not _is_there(line, there, elsewhere))
    return Merge(
        _appended(lines.remaining(), added),
        added,
        tuple(_present(line, there) for line in wanted.values() if line not in added),
        frozenset(old.fingerprint for old in (*revoke, *own) if lines.stands(old)) & fingerprints,
        tuple(revoked),
        tuple(old for old in going if old.fingerprint not in fingerprints and lines.has(old.fingerprint)),
    )


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


class _Lines:
    """The lines of a file from which some are taken out.

    Only those with a key are kept, by their number: a user may have filled the file with a million others.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = {number: entry for number, entry in keyed(content) if entry.is_the_keys_own}
        self._out: set[int] = set()

    def stands(self, written: Written) -> bool:
        return next(self._like(written), None) is not None

    def take_out(self, written: Written) -> bool:
        """Take out the first line that reads so; False where there is none."""
        number = next(self._like(written), None)
        if number is None:
            return False
        del self._left[number]
        self._out.add(number)
        return True

    def has(self, fingerprint: str) -> bool:
        """Whether any line that is left has the key."""
        return any(entry.key and entry.key.fingerprint == fingerprint for entry in self._left.values())

    def best_of(self, blobs: Collection[bytes]) -> dict[bytes, Entry]:
        return best_of_each_key(
            entry for entry in self._left.values() if entry.key and entry.key.blob in blobs
        )

    def remaining(self) -> bytes:
        if not self._out:
            return self._content
        lines = enumerate(BytesIO(self._content), start=1)
        kept = (raw for number, raw in lines if number not in self._out)
        return b"".join(kept)

    def _like(self, written: Written) -> Iterator[int]:
        """The numbers of the lines with that key, those options and that comment, whatever blanks."""
        options = written.options.encode("utf-8", "surrogateescape")
        for number, entry in self._left.items():
            key = entry.key
            alike = key and (entry.options, key.comment) == (options, written.comment)
            # Hashing comes last: few lines get so far.
            if key and alike and key.fingerprint == written.fingerprint:
                yield number


def _is_there(line: Line, there: Mapping[bytes, Entry], elsewhere: Collection[str]) -> bool:
    return line.key.blob in there or line.key.fingerprint in elsewhere


def _present(line: Line, there: Mapping[bytes, Entry]) -> Present:
    entry = there.get(line.key.blob)
    return Present(line, entry.options if entry else None)


def _appended(content: bytes, lines: Iterable[Line]) -> bytes:
    new = b"".join(line.text for line in lines)
    # Without a last newline, the first key would become the comment of the line before it.
    gap = b"\n" if new and content and not content.endswith(b"\n") else b""
    return content + gap + new if new else content
