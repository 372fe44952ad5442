"""The host keys in what a machine printed on its console: firstkey's blocks, and cloud-init's.

Consoles mix in what others print: carriage returns, colours, prefixes, the kernel's lines in the midst of a
block. So a key counts as what it should be only where its fingerprint stands in the block before it; then no
prefix before it can do harm.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from firstkey.errors import FirstkeyError
from firstkey.named_tuple import NamedTuple
from firstkey.ssh import public_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstkey.ssh.public_key import PublicKey

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_MARKER = re.compile(r"-----(BEGIN|END) SSH HOST KEY (FINGERPRINTS|KEYS)-----")
_KEY = re.compile(r"(?<!\S)(?:ssh|ecdsa|sk)-\S+[ \t]+AAAA.*")
_SHA256 = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_MD5 = re.compile(r"(?:(?<![0-9a-f:])|MD5:)((?:[0-9a-f]{2}:){15}[0-9a-f]{2})(?![0-9a-f:])")


class HostKeys(NamedTuple):
    """The keys of the last block, and how they agree with the fingerprints before them.

    `keys` are those that count; `strangers` have no fingerprint in the block of fingerprints; `lost` are
    fingerprints without a readable key. Without that block all keys are strangers.
    """

    keys: tuple[PublicKey, ...]
    strangers: tuple[PublicKey, ...] = ()
    lost: tuple[str, ...] = ()


def read(text: str) -> HostKeys | None:
    """The host keys that the text shows last; None where it shows none."""
    lines = [_ESCAPE.sub("", line).strip("\r\0 ") for line in text.split("\n")]
    block = _last_keys(lines)
    if block is None:
        return None
    begin, end = block
    keys = _unique([key for line in lines[begin:end] for key in [_key(line)] if key])
    prints = _prints(lines[:begin])
    if not keys and not prints:
        return None
    known = {key: {key.fingerprint, _md5(key)} for key in keys}
    fine = tuple(key for key, names in known.items() if names & prints)
    strangers = tuple(key for key in keys if key not in fine)
    lost = prints.difference(*(known[key] for key in fine))
    return HostKeys(fine, strangers, tuple(sorted(lost)))


def _markers(lines: Sequence[str], kind: str) -> list[tuple[str, int]]:
    found = ((_MARKER.search(line), number) for number, line in enumerate(lines))
    return [(match[1], number) for match, number in found if match and match[2] == kind]


def _last_keys(lines: Sequence[str]) -> tuple[int, int] | None:
    """From where to where the last complete block of keys goes; else what is left of one.

    get-console-output keeps the end of a long text, so the first marker may be cut off.
    """
    markers = _markers(lines, "KEYS")
    for (first, begin), (second, end) in reversed(list(zip(markers, markers[1:]))):
        if (first, second) == ("BEGIN", "END"):
            return begin + 1, end
    if not markers:
        return None
    kind, number = markers[-1]
    return (number + 1, len(lines)) if kind == "BEGIN" else (0, number)


def _prints(lines: Sequence[str]) -> set[str]:
    """The fingerprints in the block that is nearest before the keys."""
    markers = _markers(lines, "FINGERPRINTS")
    if not markers:
        return set()
    ends = [number for kind, number in markers if kind == "END"]
    end = ends[-1] if ends else len(lines)
    begins = [number for kind, number in markers if kind == "BEGIN" and number < end]
    inside = lines[begins[-1] if begins else 0 : end]
    return {found for line in inside for found in (*_SHA256.findall(line), *_MD5.findall(line))}


def _key(line: str) -> PublicKey | None:
    found = _KEY.search(line)
    try:
        return public_key.parse_launch_key(found[0].encode("utf-8", "replace")) if found else None
    except FirstkeyError:
        return None


def _unique(keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    return tuple({key.blob: key for key in keys}.values())


def _md5(key: PublicKey) -> str:
    """The fingerprint as OpenSSH before 6.8 printed it."""
    import hashlib

    return hashlib.md5(key.blob).digest().hex(":")  # noqa: S324 - to know an old fingerprint again
