"""An `authorized_keys` file: its bytes in, its bytes with lines added and removed out; when sshd ignores it.

It is read as sshd reads it (sshd(8): AUTHORIZED_KEYS FILE FORMAT), and no byte of a line that
firstkey did not write is ever changed.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from io import BytesIO

from firstkey import NamedTuple
from firstkey.ssh.public_key import PublicKey, read_key

Owned = tuple[str, str, str]
"""By this a line that firstkey wrote is known again: the key's fingerprint, options and comment."""


class Line(NamedTuple):
    """A line with a key, as sshd reads it or firstkey writes it, and the options before it (sshd(8)), if any.

    Options are UTF-8 where they can be (else surrogateescape).
    """

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

    @property
    def is_authority(self) -> bool:
        """Whether the key may only sign certificates: no login is possible with the key itself."""
        if "cert-authority" not in self.options.lower():
            return False
        from firstkey.ssh import key_options  # few lines have any

        return key_options.parse_options(self.options).is_authority

    @property
    def flaw(self) -> str | None:
        """What of the options makes sshd take no key by the line; None: nothing."""
        if not self.options:
            return None
        from firstkey.ssh import key_options  # as above

        return key_options.useless(self.options)


class Merge(NamedTuple):
    """What became of a file. `content` is the file as it shall be, the very same where nothing changes.

    The others are keys by their fingerprints. `existing` are the lines that were there already with wanted
    keys. `left` should have gone, but stand in lines that firstkey did not write, or that a person changed
    since: these stay.
    """

    content: bytes
    added: tuple[str, ...] = ()
    existing: tuple[Line, ...] = ()
    revoked: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


# "ssh-ed25519 " and 68 characters of base64: nothing shorter can be a key, and most other lines are.
_SHORTEST = 80
_MARK = re.compile(rb'\\"|["\t ]')


def keyed(content: bytes) -> Iterator[tuple[int, Line]]:
    """The lines that have a key, with their numbers from 1, one at a time: a user may have filled the file.

    Lines end at a newline and nowhere else, as for sshd. Comments, broken lines and certificates have no key.
    """
    for number, raw in enumerate(BytesIO(content), start=1):
        # A line is a C string to sshd: it reads nothing behind a NUL.
        line = raw.partition(b"\0")[0].lstrip(b" \t")
        if len(line) < _SHORTEST or line.startswith(b"#"):
            continue
        for end in (0, _end_of_options(line)):
            key = read_key(line[end:].lstrip(b" \t"))
            if key:
                yield number, Line(key, line[:end].decode("utf-8", "surrogateescape"))
                break


def _end_of_options(line: bytes) -> int:
    """Where the first blank outside of quotes is (sshkey.c: sshkey_advance_past_options)."""
    quoted = False
    for mark in _MARK.finditer(line):
        if mark[0] == b'"':
            quoted = not quoted
        elif mark[0] != b'\\"' and not quoted:
            return mark.start()
    return len(line)


def merge(
    content: bytes,
    *,
    add: Sequence[Line] = (),
    revoke: Sequence[Owned] = (),
    elsewhere: Collection[str] = (),
) -> Merge:
    """The file without the lines to revoke and with the lines to add, each key once.

    `elsewhere` are fingerprints that sshd finds in another of the user's files. A line that is to go and is
    wanted again just so stays where it is: it is the launch key of this instance as well. Of two lines that
    read the same, one is firstkey's, and goes.
    """
    if not (add or revoke):
        return Merge(content)
    wanted: dict[bytes, Line] = {}
    for line in add:
        wanted.setdefault(line.key.blob, line)
    same = {line.written[:2] for line in wanted.values()}
    going = [old for old in revoke if old[:2] not in same]
    looked_for, taken_out, staying = list(going), {}, []
    # By their number, and only those with a key: a user may have filled the file with a million others.
    for number, line in keyed(content):
        if line.is_authority:
            continue
        if looked_for and (written := line.written) in looked_for:
            looked_for.remove(written)
            taken_out[number] = line.key.fingerprint
        else:
            staying.append(line)
    existing = tuple(line for line in staying if line.key.blob in wanted)
    there = {line.key.fingerprint for line in existing}.union(elsewhere)
    new = [line for line in wanted.values() if line.key.fingerprint not in there]
    names = {line.key.fingerprint for line in wanted.values()}
    remaining = {line.key.fingerprint for line in staying if going} - names
    rest = content
    if taken_out:
        rest = b"".join(raw for number, raw in enumerate(BytesIO(content), 1) if number not in taken_out)
    # Without a last newline, the first key would become the comment of the line before it.
    gap = b"\n" if new and rest and not rest.endswith(b"\n") else b""
    return Merge(
        rest + gap + b"".join(line.text for line in new) if new else rest,
        added=tuple(line.key.fingerprint for line in new),
        existing=existing,
        revoked=tuple(taken_out.values()),
        left=tuple(key for key, *_ in going if key in remaining),
    )


# --- owners and modes (sshd_config(5): StrictModes) ------------------------------------------------

GROUP_WRITE, OTHERS_WRITE = stat.S_IWGRP, stat.S_IWOTH


class Part(NamedTuple):
    """A file or a directory on its path, links followed."""

    path: str
    uid: int
    gid: int
    mode: int


def flaws(
    parts: Iterable[Part], owners: Collection[int], home: str | None, *, may_share: Callable[[int], bool]
) -> list[Part]:
    """The parts for which sshd ignores the file, in its order (misc.c: safe_path): the file, then upwards.

    The file and each directory above it must be the user's or root's (`owners`), and no other user may write
    it, up to the home (a path without links) or else the root. `may_share` knows of a group whether it may
    write: Debian's and Ubuntu's sshd allows one in which there is only the user.
    """
    found = []
    for part in parts:
        is_shared = part.mode & GROUP_WRITE and not may_share(part.gid)
        if is_shared or part.mode & OTHERS_WRITE or part.uid not in owners:
            found.append(part)
        if part.path == home:
            break
    return found
