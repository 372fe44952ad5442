"""What is inside packed files, as a stream: what Python itself can unpack, and a bounded part of it.

An archive's files follow one another in the stream, so a key in one of them is seen as in any other file.
What cannot be read to its end has a reason: it is too much, or broken, cut off or encrypted. The box
in which files are unpacked bounds the memory and the time that this takes, whatever a file says of its sizes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO, Any

from firstkey import image_reasons
from firstkey.reasons import Reason

CHUNK = 64 * 1024
PLENTY = 64 * 1024 * 1024
"""How much is unpacked of one file at most, unless its reader says otherwise."""
PADDING = 1024 * 1024
"""How many zeros may fill a block of a tape or disk behind a compressed stream; a hole may be larger."""

_GZIP, _XZ, _ZIP = b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"PK\x03\x04"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""The marks that a text of Windows starts with, more often than not."""
PACKED = re.compile(
    rb"\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\0|PK\x03\x04|\xff\xfe|\xfe\xff|(?:[\n -~]\0){8}|(?:\0[\n -~]){8}"
)
"""How files start that can be unpacked."""
_TAR = b"ustar"
MEMBER = _TAR + bytes(250)
"""What stands before each file of a zip archive, as in a tar archive: so one sees where it starts."""


class Unfinished(Exception):  # noqa: N818 - no error: what there was to see was seen
    """There is more in the file than was seen: why, as what is said of it behind its name."""

    def __init__(self, detail: str, *, reason: Reason = image_reasons.NOT_INTACT) -> None:
        super().__init__(detail)
        self.reason = reason


def unpacked(file: IO[bytes], start: bytes, *, plenty: int = PLENTY, nested: bool = False) -> Iterator[bytes]:
    """What is inside (`nested`: of what is packed in it), in parts of some `CHUNK` bytes; `start`: its start.

    Raises Unfinished when `plenty` bytes are through, or as soon as it cannot go on.
    """
    held, through = bytearray(), 0
    failed: Exception | None = None
    try:
        # Each part costs its reader something, however small it is.
        for part in (_nested if nested else _parts)(file, start):
            through += len(part)
            if through > plenty:
                raise _too_much()  # noqa: TRY301 - what is held comes first, as with the others
            if len(held) + len(part) > CHUNK:
                yield bytes(held)
                held.clear()
            held += part
    except Exception as error:  # noqa: BLE001 - a decompressor's
        failed = error
    if held:
        yield bytes(held)
    if failed:
        raise _unfinished("is packed, and broken inside", failed)


def _unfinished(what: str, error: Exception) -> Unfinished:
    """Why a decompressor gave up, each in its own words. Raises what is the file's own error again."""
    if isinstance(error, Unfinished):
        return error
    if isinstance(error, OSError) and error.errno:
        raise error
    if isinstance(error, MemoryError):
        return Unfinished("would take more memory to unpack than it may", reason=image_reasons.OVER_BUDGET)
    return Unfinished(f"{what}: {str(error) or 'it is cut off'}")


def _too_much() -> Unfinished:
    return Unfinished("has more in it than was unpacked", reason=image_reasons.NOT_LOOKED_AT)


def _parts(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    import bz2
    import codecs
    import lzma
    import zlib

    if start.startswith(_ZIP):
        return _zipped(file)
    if start.startswith(_GZIP):
        return _streams(file, lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), start)
    if start.startswith((_XZ, b"BZh")):
        return _streams(file, lzma.LZMADecompressor if start.startswith(_XZ) else bz2.BZ2Decompressor, start)
    encoding = "utf-32" if start.startswith(codecs.BOM_UTF32_LE) else "utf-16"  # one begins as the other
    if not start.startswith(_UTF16):
        encoding = "utf-16-be" if start.startswith(b"\0") else "utf-16-le"
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return (decoder.decode(part).encode("utf-8", "replace") for part in _chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


def _streams(file: IO[bytes], decompressor: Callable[[], Any], start: bytes) -> Iterator[bytes]:
    """One compressed stream behind the other, and perhaps zeros to fill a block."""
    data = b""
    while True:
        inflate = decompressor()
        while not inflate.eof:
            part = inflate.decompress(data, CHUNK)
            data = getattr(inflate, "unconsumed_tail", b"")  # zlib's; the others keep it themselves
            if part:
                yield part
            elif not (data or inflate.eof):  # nor is anything held back
                data = file.read(CHUNK)
                if not data:
                    raise Unfinished("is packed, and cut off")
        data, zeros = inflate.unused_data.lstrip(b"\0"), 0
        while len(data) < len(start[:2]) and (more := file.read(CHUNK)):
            data, zeros = (data + more).lstrip(b"\0"), zeros + len(more)
            if zeros > PADDING:
                raise _too_much()
        if not data:
            return
        if not data.startswith(start[:2]):
            raise Unfinished("is packed, and has something else behind that")


def _zipped(file: IO[bytes]) -> Iterator[bytes]:
    """Each file of an archive in turn. One that cannot be unpacked is reported behind all others."""
    import zipfile

    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError) as error:
        raise Unfinished(f"is a zip file without a sound list of its files: {error}") from error
    unseen: Unfinished | None = None
    for member in archive.infolist():
        yield MEMBER
        try:
            with archive.open(member) as inside:
                yield from _chunks(inside)
        except Exception as error:  # a decompressor's, an unknown method's, a password's
            failed = _unfinished("has a file in it that cannot be unpacked", error)
            if failed.reason is not image_reasons.NOT_INTACT:
                raise failed from error
            unseen = unseen or failed
    if unseen:
        raise unseen


def _nested(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    """What is inside of each packed file in an archive, however deep, or in a file that is packed twice.

    One that cannot be unpacked is reported behind all others.
    """
    import tarfile
    import zipfile

    unseen: Exception | None = None
    members: Iterable[Callable[[], IO[bytes] | None]] = (lambda: file,)
    if start.startswith(_ZIP):
        archive = zipfile.ZipFile(file)
        members = (partial(archive.open, each) for each in archive.infolist())
    else:
        if PACKED.match(start):
            whole = io.BytesIO()
            try:
                whole.writelines(unpacked(file, start))
            except Unfinished as error:
                unseen = error
            whole.seek(0)
            start = whole.read(tarfile.BLOCKSIZE)
            whole.seek(0)
            file = whole
        if start.startswith(_TAR, 257):
            tar = tarfile.TarFile(fileobj=file, ignore_zeros=True)  # one may stand behind another
            members = (partial(tar.extractfile, each) for each in tar if each.isreg())
    for opened in members:
        try:
            if member := opened():
                head = member.read(tarfile.BLOCKSIZE)
                member.seek(0)
                if PACKED.match(head):
                    yield MEMBER
                    yield from _parts(member, head)
                    member.seek(0)
                if PACKED.match(head) or head.startswith(_TAR, 257):
                    yield from _nested(member, head)
        except (MemoryError, RecursionError):  # noqa: PERF203 - as in a zip archive
            raise
        except Exception as error:  # noqa: BLE001 - whatever broken content leads to
            unseen = unseen or error
    if unseen:
        raise unseen
