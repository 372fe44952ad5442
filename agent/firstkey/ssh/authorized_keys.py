"""An `authorized_keys` file: its bytes in, its bytes with lines added and removed out.

It is read as sshd reads it (sshd(8): AUTHORIZED_KEYS FILE FORMAT), and no byte of a line that
firstkey did not write is ever changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO

from firstkey import NamedTuple
from firstkey.ssh import access
from firstkey.ssh.public_key import PublicKey, read_key


class Entry(NamedTuple):
    """A line in which sshd finds a key, and the options that stand before it."""

    options: bytes
    key: PublicKey

    @property
    def is_the_keys_own(self) -> bool:
        """Whether the line is about the key itself: a `cert-authority` lets in only what the key signed."""
        return not access.is_authority(self.options)


Owned = tuple[str, str, str]
"""What tells a line that firstkey wrote from every other line: the key's fingerprint, options and comment."""


class Line(NamedTuple):
    """A line that firstkey writes: a key, and the options before it (sshd(8)), if any."""

    key: PublicKey
    options: str = ""

    @property
    def text(self) -> bytes:
        """The whole line with its newline."""
        words = f"{self.options} {self.key.line}" if self.options else self.key.line
        return words.encode("utf-8", "surrogateescape") + b"\n"

    @property
    def written(self) -> Owned:
        """How the line is known again."""
        return self.key.fingerprint, self.options, self.key.comment


class Merge(NamedTuple):
    """What became of a file. `content` is the file as it shall be, the very same where nothing changes.

    The others are keys by their fingerprints. `existing` are wanted keys that were there already, each with
    the options before it; `owned` are wanted keys whose line is one that firstkey wrote. `left` should have
    gone, but stand in lines that firstkey did not write, or that somebody changed since: these stay.
    """

    content: bytes
    added: tuple[str, ...] = ()
    existing: tuple[tuple[str, bytes], ...] = ()
    owned: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def keyed(content: bytes) -> Iterator[tuple[int, Entry]]:
    """The lines that have a key, with their numbers from 1, one at a time: a user may have filled the file.

    Lines end at a newline and nowhere else, as for sshd. Comments, broken lines and certificates have no key.
    """
    for number, raw in enumerate(BytesIO(content), start=1):
        entry = _entry(raw)
        if entry:
            yield number, entry


def best_of_each_key(entries: Iterable[Entry], blobs: Collection[bytes]) -> dict[bytes, Entry]:
    """Of each of these keys, the first line by which sshd lets it in, or else the first that is about it."""
    best: dict[bytes, Entry] = {}
    useless: set[bytes] = set()
    for entry in entries:
        blob = entry.key.blob
        if blob not in blobs or (blob in best and blob not in useless) or not entry.is_the_keys_own:
            continue
        if access.useless(entry.options):
            useless.add(blob)
            best.setdefault(blob, entry)
        else:
            useless.discard(blob)
            best[blob] = entry
    return best


def merge(
    content: bytes,
    *,
    add: Sequence[Line] = (),
    revoke: Sequence[Owned] = (),
    own: Sequence[Owned] = (),
    elsewhere: Collection[str] = (),
) -> Merge:
    """The file without the lines to revoke and with the lines to add, each key once.

    `own` are lines that firstkey wrote and that may stay; `elsewhere` are fingerprints that sshd finds in
    another of the user's files. A line that is to go and is wanted again just so stays where it is: it is
    the launch key of this instance as well. Of two lines that read the same, one is firstkey's, and goes.
    """
    # By their number, and only those with a key: a user may have filled the file with a million others.
    lines = {number: entry for number, entry in keyed(content) if entry.is_the_keys_own}
    wanted: dict[bytes, Line] = {}
    for line in add:
        wanted.setdefault(line.key.blob, line)
    same = {line.written[:2] for line in wanted.values()}
    going = [old for old in revoke if old[:2] not in same]
    taken_out, revoked = set(), []
    for old in going:
        number = _find(lines, old)
        if number:
            del lines[number]
            taken_out.add(number)
            revoked.append(old[0])
    best = best_of_each_key(lines.values(), wanted)
    fingerprints = {blob: line.key.fingerprint for blob, line in wanted.items()}
    new = [blob for blob in wanted if blob not in best and fingerprints[blob] not in elsewhere]
    owned = {old[0] for old in (*revoke, *own) if _find(lines, old)}
    remaining = {entry.key.fingerprint for entry in lines.values() if going}
    return Merge(
        _appended(_without(content, taken_out), [wanted[blob] for blob in new]),
        tuple(fingerprints[blob] for blob in new),
        tuple((fingerprints[blob], best[blob].options) for blob in wanted if blob in best),
        tuple(key for key in fingerprints.values() if key in owned),
        tuple(revoked),
        tuple(old[0] for old in going if old[0] in remaining and old[0] not in fingerprints.values()),
    )


# --- reading --------------------------------------------------------------------------------------

# "ssh-ed25519 " and 68 characters of base64: nothing shorter can be a key, and most other lines are.
_SHORTEST = 80

_MARK = re.compile(rb'\\"|["\t ]')


def _entry(raw: bytes) -> Entry | None:
    # A line is a C string to sshd: it reads nothing behind a NUL.
    line = raw.partition(b"\0")[0].lstrip(b" \t")
    if len(line) < _SHORTEST or line.startswith(b"#"):
        return None
    for end in (0, _end_of_options(line)):
        key = read_key(line[end:].lstrip(b" \t"))
        if key:
            return Entry(line[:end], key)
    return None


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


def _find(lines: Mapping[int, Entry], owned: Owned) -> int | None:
    """The number of the first line with that key, those options and that comment, whatever blanks."""
    fingerprint, options, comment = owned
    before = options.encode("utf-8", "surrogateescape")
    for number, entry in lines.items():
        # Hashing comes last: few lines get so far.
        is_alike = (entry.options, entry.key.comment) == (before, comment)
        if is_alike and entry.key.fingerprint == fingerprint:
            return number
    return None


def _without(content: bytes, numbers: Collection[int]) -> bytes:
    if not numbers:
        return content
    return b"".join(raw for number, raw in enumerate(BytesIO(content), start=1) if number not in numbers)


def _appended(content: bytes, lines: Iterable[Line]) -> bytes:
    new = b"".join(line.text for line in lines)
    # Without a last newline, the first key would become the comment of the line before it.
    gap = b"\n" if new and content and not content.endswith(b"\n") else b""
    return content + gap + new if new else content
