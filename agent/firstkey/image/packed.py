"""What is inside packed files, as a stream: what Python itself can unpack, and a bounded part of it.

An archive's files follow one another in the stream, so a key in one of them is seen as in any other file.
What cannot be seen to its end is told with a reason: it is too much, or broken, cut off or encrypted. What a
file says of its own sizes is believed of nothing that costs memory or time.
"""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Any

from firstkey import NamedTuple, image_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firstkey.reasons import Reason

CHUNK = 64 * 1024
PLENTY = 64 * 1024 * 1024
"""How much is unpacked of one file at most, unless its reader says otherwise."""
MEMORY = 128 * 1024 * 1024
"""How much memory its decompressor may take; `xz -9` asks for 65 MiB."""
MOST_STREAMS = 10_000
"""How many compressed streams may follow one another in a file: each costs time, however little is in it."""
DIRECTORY = 8 * 1024 * 1024
"""Bytes of a zip file's list of its files; that of a hundred thousand has so many."""

_GZIP, _XZ, _ZIP = b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"PK\x03\x04"
_BZIP2 = tuple(b"BZh%d1AY&SY" % level for level in range(1, 10))
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""The marks that a text of Windows starts with; without its zeros, what is ASCII in it is ASCII."""
STARTS = (_GZIP, *_BZIP2, _XZ, _ZIP, *_UTF16)
MEMBER = b"ustar" + bytes(250)
"""What stands before each file of a zip archive, as in a tar archive: so one sees where it starts."""


class Unfinished(Exception):  # noqa: N818 - no error: what there was to see was seen
    """There is more in the file than was seen: why, as what is said of it behind its name."""

    def __init__(self, detail: str, *, reason: Reason = image_reasons.NOT_INTACT) -> None:
        super().__init__(detail)
        self.reason = reason


def unpacked(file: IO[bytes], start: bytes, *, plenty: int = PLENTY) -> Iterator[bytes]:
    """What is inside, in parts of `CHUNK` bytes at most; `start` are the file's first bytes.

    Raises Unfinished when `plenty` bytes are through, or as soon as it cannot go on.
    """
    held = bytearray()
    try:
        # Each part costs its reader something, however small it is.
        for part in _bounded(file, start, plenty):
            if len(held) + len(part) > CHUNK:
                yield bytes(held)
                held.clear()
            held += part
    except Unfinished:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


def _bounded(file: IO[bytes], start: bytes, plenty: int) -> Iterator[bytes]:
    """The parts as they come; what they are refused for has a reason."""
    import lzma

    source = _Source(file, 2 * plenty)
    allowance = plenty
    try:
        for part in _parts(source, start):
            allowance -= len(part)
            if allowance < 0:
                raise _too_much()
            yield part
    # bz2 has OSError and ValueError for what is broken; those of the file come out as what they are.
    except (MemoryError, zlib.error, lzma.LZMAError, _Bzip2Error) as error:
        if isinstance(error, MemoryError) or "Memory usage limit" in str(error):
            message = "would take more memory to unpack than it may"
            raise Unfinished(message, reason=image_reasons.OVER_BUDGET) from error
        raise Unfinished(f"is packed, and broken inside: {error}") from error


def _parts(source: _Source, start: bytes) -> Iterator[bytes]:
    if start.startswith(_ZIP):
        yield from _zipped(source)
    elif start.startswith(_UTF16):
        yield from (part.replace(b"\0", b"") for part in iter(lambda: source.read(CHUNK), b""))
    else:
        yield from _streams(source, _decompressor(start), start)


def _too_much() -> Unfinished:
    return Unfinished("has more in it than was unpacked", reason=image_reasons.NOT_LOOKED_AT)


class _Source:
    """The file, of which no more is read than is good; `rest` is read before what follows in it."""

    def __init__(self, file: IO[bytes], allowance: int) -> None:
        self._file = file
        self._allowance = allowance
        self.rest = b""

    def read(self, size: int) -> bytes:
        data, self.rest = self.rest[:size], self.rest[size:]
        if not data:
            data = self._file.read(size)
            self._allowance -= len(data)
            if self._allowance < 0:
                raise _too_much()
        return data

    def at(self, place: int, size: int) -> bytes:
        """What stands there; less where the file ends before."""
        self._file.seek(place)
        self.rest = b""
        return self.read(size)

    def size(self) -> int:
        return self._file.seek(0, 2)


# --- streams --------------------------------------------------------------------------------------


class _Bzip2Error(Exception):
    """As zlib.error: what bz2 says with an OSError, which is not the file's."""


class _Bzip2:
    def __init__(self) -> None:
        import bz2

        self._inner = bz2.BZ2Decompressor()

    def decompress(self, data: bytes, size: int) -> bytes:
        try:
            return self._inner.decompress(data, size)
        except (OSError, ValueError) as error:
            raise _Bzip2Error(str(error)) from error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is there
        return getattr(self._inner, name)


class _Zlib:
    """A decompressor like those of bz2 and lzma, which keep what they have not read yet."""

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, size: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, size)


def _decompressor(start: bytes) -> Callable[[], Any]:
    import lzma

    if start.startswith(_GZIP):
        return lambda: _Zlib(zlib.MAX_WBITS | 16)
    if start.startswith(_XZ):
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    return _Bzip2


def _streams(source: _Source, decompressor: Callable[[], Any], start: bytes) -> Iterator[bytes]:
    """One compressed stream behind the other, and perhaps zeros to fill a block of a tape or disk."""
    for _ in range(MOST_STREAMS):
        yield from _inflated(source.read, decompressor(), source)
        while not source.rest.lstrip(b"\0"):
            source.rest = b""
            source.rest = source.read(CHUNK)
            if not source.rest:
                return
        source.rest = source.rest.lstrip(b"\0")
        if not source.rest.startswith(start[:2]):
            raise Unfinished("is packed, and has something else behind that")
    raise _too_much()


def _inflated(read: Callable[[int], bytes], inflate: Any, source: _Source) -> Iterator[bytes]:  # noqa: ANN401
    """One stream to its end; what was read behind it goes back."""
    while not inflate.eof:
        is_hungry = inflate.needs_input
        data = read(CHUNK) if is_hungry else b""
        part = inflate.decompress(data, CHUNK)  # also of nothing: it may hold something back
        if part:
            yield part
        elif is_hungry and not data and not inflate.eof:
            raise Unfinished("is packed, and cut off")
    source.rest = inflate.unused_data + source.rest


# --- zip (PKWARE's APPNOTE.TXT) -------------------------------------------------------------------

_STORED, _DEFLATED, _BY_BZIP2 = 0, 8, 12
_ENCRYPTED = 0x1
_LATER = 0xFFFFFFFF
"""What stands for a number that is too large for its field, and given elsewhere (4.5.3)."""


class _Member(NamedTuple):
    """A file in the list (4.3.12): how it is packed, what of, and where its local header is."""

    flags: int
    method: int
    checksum: int
    packed: int
    place: int


def _zipped(source: _Source) -> Iterator[bytes]:
    """Each file in turn. One that cannot be unpacked is told when all others are through."""
    unseen: Unfinished | None = None
    for member in _members(source):
        yield MEMBER
        try:
            yield from _of_member(source, member)
        except (Unfinished, zlib.error, _Bzip2Error) as error:
            if isinstance(error, Unfinished) and error.reason is not image_reasons.NOT_INTACT:
                raise
            unseen = unseen or Unfinished(f"has a file in it that cannot be unpacked: {error}")
    if unseen:
        raise unseen


def _of_member(source: _Source, member: _Member) -> Iterator[bytes]:
    import struct

    local = source.at(member.place, 30)
    if not local.startswith(_ZIP) or len(local) < 30:
        raise Unfinished("it is not where the list of files says")
    if member.flags & _ENCRYPTED:
        raise Unfinished("it is encrypted")
    name, extra = struct.unpack_from("<2H", local, 26)
    left = member.packed
    source.at(member.place + 30 + name + extra, 0)

    def read(size: int) -> bytes:
        nonlocal left
        data = source.read(min(size, left))
        left -= len(data)
        return data

    checksum = 0
    for part in _member_parts(source, member, read):
        checksum = zlib.crc32(part, checksum)
        yield part
    if checksum != member.checksum:
        raise Unfinished("its checksum is wrong")


def _member_parts(source: _Source, member: _Member, read: Callable[[int], bytes]) -> Iterator[bytes]:
    if member.method == _STORED:
        yield from iter(lambda: read(CHUNK), b"")
    elif member.method == _DEFLATED:
        yield from _inflated(read, _Zlib(-zlib.MAX_WBITS), source)
    elif member.method == _BY_BZIP2:
        yield from _inflated(read, _Bzip2(), source)
    else:
        # LZMA among them: it says itself how much memory it takes, and here nobody can say how much it may.
        raise Unfinished(f"it is packed by a method that is not known here ({member.method})")


def _members(source: _Source) -> Iterator[_Member]:
    """The list of files at the end (4.3.16). It must lie in the file, whatever it says of its own size."""
    import struct

    size = source.size()
    tail = source.at(max(0, size - 22 - 0xFFFF), 22 + 0xFFFF)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + 22 > len(tail):
        raise Unfinished("is a zip file without the list of its files")
    length, offset = struct.unpack_from("<2L", tail, found + 12)
    end = size - len(tail) + found
    if _LATER in (length, offset) and tail[found - 20 : found - 16] == b"PK\x06\x07":
        end = struct.unpack_from("<Q", tail, found - 12)[0]
        wide = source.at(min(end, size), 56)
        if len(wide) < 56 or not wide.startswith(b"PK\x06\x06"):
            raise Unfinished("is a zip file with a broken list of its files")
        length, offset = struct.unpack_from("<2Q", wide, 40)
    if length > DIRECTORY:
        raise _too_much()
    if length > end:
        raise Unfinished("is a zip file whose list of files does not fit into it")
    # Where something was put before the whole, all places are so much farther behind.
    yield from _listed(source.at(end - length, length), end - length - offset)


def _listed(listed: bytes, before: int) -> Iterator[_Member]:
    import struct

    place = 0
    while place < len(listed):
        if listed[place : place + 4] != b"PK\x01\x02" or place + 46 > len(listed):
            raise Unfinished("is a zip file with a broken list of its files")
        flags, method, checksum, packed, full, name, extra, comment, start = struct.unpack_from(
            "<4x4x2H4x3L3H8xL", listed, place
        )
        fields = listed[place + 46 + name : place + 46 + name + extra]
        _, packed, start = _wide(fields, (full, packed, start))
        if before + start < 0:
            raise Unfinished("is a zip file with a broken list of its files")
        yield _Member(flags, method, checksum, packed, before + start)
        place += 46 + name + extra + comment


def _wide(fields: bytes, numbers: tuple[int, ...]) -> list[int]:
    """The numbers, those that were too large for their fields from the extra field 1 (4.5.3)."""
    import struct

    place, wide = 0, b""
    while place + 4 <= len(fields):
        kind, length = struct.unpack_from("<2H", fields, place)
        if kind == 1:
            wide = fields[place + 4 : place + 4 + length]
        place += 4 + length
    found = []
    for number in numbers:
        is_wide = number == _LATER and len(wide) >= 8
        found.append(int.from_bytes(wide[:8], "little") if is_wide else number)
        wide = wide[8:] if is_wide else wide
    return found
