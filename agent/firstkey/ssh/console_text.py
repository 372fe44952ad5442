"""The host keys in what a machine printed on its console: firstkey's blocks, and cloud-init's.

Consoles mix in what others print: carriage returns, colours, the kernel's lines in the midst of a block. What
a local user can have printed stands behind a prefix: the kernel writes its clock before each line. So markers
and keys count only at the very beginning of a line, where firstkey and cloud-init print them. A key counts
only where its fingerprint stands in the block of fingerprints before it, whose lines have prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from firstkey import NamedTuple
from firstkey.reasons import FirstkeyError
from firstkey.ssh import public_key
from firstkey.ssh.public_key import PublicKey

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BEGIN, _END = (f"-----{which} SSH HOST KEY KEYS-----" for which in ("BEGIN", "END"))
_PRINTS = re.compile(r"-----(BEGIN|END) SSH HOST KEY FINGERPRINTS-----")
_KEY = re.compile(r"(?:ssh|ecdsa|sk)-\S+[ \t]+AAAA.*")
_SHA256 = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_MD5 = re.compile(r"(?:(?<![0-9a-f:])|MD5:)((?:[0-9a-f]{2}:){15}[0-9a-f]{2})(?![0-9a-f:])")


class Block(NamedTuple):
    """The keys between two markers, the numbers of the first and last line there, and what stands above.

    `prints` are the fingerprints in the nearest block of them before its end.
    """

    first: int
    last: int
    keys: tuple[PublicKey, ...]
    prints: frozenset[str]


class HostKeys(NamedTuple):
    """The keys of all blocks, and how they agree with the fingerprints before them.

    `keys` are those that count; `strangers` have no fingerprint in the block of fingerprints; `lost` are
    fingerprints without a readable key. Without that block all keys are strangers. `rivals` are all blocks
    where one shows another key than an earlier one: then it is not known which of them is genuine.
    """

    keys: tuple[PublicKey, ...]
    strangers: tuple[PublicKey, ...] = ()
    lost: tuple[str, ...] = ()
    rivals: tuple[Block, ...] = ()


def read(text: str) -> HostKeys | None:
    """The host keys that the text shows; None where it shows none."""
    blocks = list(_blocks([_ESCAPE.sub("", line).strip("\r\0").rstrip() for line in text.split("\n")]))
    keys = _unique([key for block in blocks for key in block.keys])
    shown = blocks[-1].prints if blocks else frozenset()
    if not keys and not shown:
        return None
    fine = _unique([key for block in blocks for key in block.keys if _names(key) & block.prints])
    lost = shown.difference(*map(_names, fine))
    known = {key.blob for key in fine}
    strangers = tuple(key for key in keys if key.blob not in known)
    return HostKeys(fine, strangers, tuple(sorted(lost)), _rivals(blocks))


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    """Each block of keys; either of its markers may be missing.

    get-console-output keeps the end of a long text, and a console may be read while it is written.
    """
    begin, is_open, prints = 0, False, _Prints()
    for number, line in enumerate(lines):
        prints.read(line)
        if line == _END or (is_open and line == _BEGIN):
            yield Block(begin + 1, number, _keys(lines[begin:number]), frozenset(prints.found))
        if line in (_BEGIN, _END):
            begin, is_open = number + 1, line == _BEGIN
    if is_open:
        yield Block(begin + 1, len(lines), _keys(lines[begin:]), frozenset(prints.found))


class _Prints:
    """The fingerprints in the block of them that was read last."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._inside: set[str] = set()
        self._has_ended = False

    def read(self, line: str) -> None:
        """Go on by a line. The first marker of a block may be cut off, and the last one not be there yet."""
        self._inside.update(_SHA256.findall(line), _MD5.findall(line))
        for marker in _PRINTS.findall(line):
            if marker == "END":
                self.found, self._inside, self._has_ended = self._inside, set(), True
            else:
                self._inside = set()
                self.found = self.found if self._has_ended else self._inside


def _rivals(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """All blocks, if two of them have different keys of one type; a block may be torn, and lack some."""
    seen: dict[str, set[bytes]] = {}
    for block in blocks:
        now: dict[str, set[bytes]] = {}
        for key in block.keys:
            now.setdefault(key.short_type, set()).add(key.blob)
        # A forged block may repeat the genuine key, which is public, beside its own.
        if any(seen.setdefault(kind, blobs) != blobs for kind, blobs in now.items()):
            return tuple(each for each in blocks if each.keys)
    return ()


def _keys(lines: Sequence[str]) -> tuple[PublicKey, ...]:
    return _unique([key for line in lines for key in [_key(line)] if key])


def _key(line: str) -> PublicKey | None:
    found = _KEY.match(line)
    try:
        return public_key.parse_launch_key(found[0].encode("utf-8", "replace")) if found else None
    except FirstkeyError:
        return None


def _unique(keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    return tuple({key.blob: key for key in keys}.values())


def _names(key: PublicKey) -> set[str]:
    """Its fingerprint, and the one that OpenSSH before 6.8 printed."""
    import hashlib

    old = hashlib.md5(key.blob).digest().hex(":")  # noqa: S324 - to know an old fingerprint again
    return {key.fingerprint, old}
