"""What is inside packed files, as a stream: what Python itself can unpack, and a bounded part of it.

An archive's files follow one another in the stream, so a key in one of them is seen as in any other file.
What cannot be seen to its end is told with a reason: it is too much, or broken, cut off or encrypted. What a
file says of its own sizes is believed of nothing that costs memory or time: each read has an end, and the box
in which files are unpacked bounds what a decompressor takes.
"""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING, Any

from firstkey import image_reasons

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
    held, through = bytearray(), 0
    try:
        # Each part costs its reader something, however small it is.
        for part in _parts(_Source(file, 2 * plenty), start):
            through += len(part)
            if through > plenty:
                raise _too_much()  # noqa: TRY301 - what was held comes first, as with the others
            if len(held) + len(part) > CHUNK:
                yield bytes(held)
                held.clear()
            held += part
    except Exception as error:
        if held:
            yield bytes(held)
        if isinstance(error, Unfinished):
            raise
        raise _unfinished("is packed, and broken inside", error) from error
    if held:
        yield bytes(held)


def _unfinished(what: str, error: Exception) -> Unfinished:
    """Why a decompressor gave up, each in its own words. Raises what is the file's own error again."""
    if isinstance(error, OSError) and error.errno:
        raise error
    if isinstance(error, MemoryError) or "Memory usage limit" in str(error):
        message = "would take more memory to unpack than it may"
        return Unfinished(message, reason=image_reasons.OVER_BUDGET)
    return Unfinished(f"{what}: {str(error) or 'it is cut off'}")


def _too_much() -> Unfinished:
    return Unfinished("has more in it than was unpacked", reason=image_reasons.NOT_LOOKED_AT)


class _Source:
    """The file, of which no more is read than is good, all in all and at once."""

    def __init__(self, file: IO[bytes], allowance: int) -> None:
        self._allowance = allowance
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Raises Unfinished where there is more than that."""
        data = self._file.read(DIRECTORY + 1 if size < 0 else min(size, DIRECTORY + 1))
        self._allowance -= len(data)
        if self._allowance < 0 or len(data) > DIRECTORY:
            raise _too_much()
        return data


def _parts(source: _Source, start: bytes) -> Iterator[bytes]:
    if start.startswith(_ZIP):
        yield from _zipped(source)
    elif start.startswith(_UTF16):
        yield from (part.replace(b"\0", b"") for part in iter(lambda: source.read(CHUNK), b""))
    else:
        yield from _streams(source, _decompressor(start), start)


class _Zlib:
    """A decompressor like those of bz2 and lzma, which keep what they have not read yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)

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
    import bz2
    import lzma

    if start.startswith(_GZIP):
        return _Zlib
    if start.startswith(_XZ):
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
    return bz2.BZ2Decompressor


def _streams(source: _Source, decompressor: Callable[[], Any], start: bytes) -> Iterator[bytes]:
    """One compressed stream behind the other, and perhaps zeros to fill a block of a tape or disk."""
    rest = b""
    for _ in range(MOST_STREAMS):
        inflate = decompressor()
        while not inflate.eof:
            is_hungry = inflate.needs_input
            data = (rest or source.read(CHUNK)) if is_hungry else b""
            rest = b"" if is_hungry else rest
            part = inflate.decompress(data, CHUNK)  # also of nothing: it may hold something back
            if part:
                yield part
            elif is_hungry and not data and not inflate.eof:
                raise Unfinished("is packed, and cut off")
        rest = inflate.unused_data.lstrip(b"\0")
        while len(rest) < len(start[:2]):
            more = source.read(CHUNK)
            if not (rest or more):
                return
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")
        if not rest.startswith(start[:2]):
            raise Unfinished("is packed, and has something else behind that")
    raise _too_much()


def _zipped(source: _Source) -> Iterator[bytes]:
    """Each file of an archive in turn. One that cannot be unpacked is told when all others are through."""
    import zipfile

    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, ValueError) as error:
        raise Unfinished(f"is a zip file without a sound list of its files: {error}") from error
    unseen: Unfinished | None = None
    for member in archive.infolist():
        yield MEMBER
        try:
            with archive.open(member) as inside:
                yield from iter(lambda inside=inside: inside.read(CHUNK), b"")  # type: ignore[misc]
        except Unfinished:
            raise
        except Exception as error:  # a decompressor's, an unknown method's, a password's
            failed = _unfinished("has a file in it that cannot be unpacked", error)
            if failed.reason is not image_reasons.NOT_INTACT:
                raise failed from error
            unseen = unseen or failed
    if unseen:
        raise unseen
