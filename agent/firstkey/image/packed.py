"""What is inside compressed files, as a stream: what Python itself can unpack, and a bounded part of it.

An archive's files follow one another in the stream, so a key in one of them is seen as in any other file.
What is encrypted or broken ends the stream: nobody can see into that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

CHUNK = 64 * 1024
PLENTY = 64 * 1024 * 1024
"""How much is unpacked of one file at most, and how much memory its decompressor may take."""

STARTS = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")


class TooMuch(Exception):  # noqa: N818 - no error: the limit was reached
    """There is more in the file than is unpacked."""


def unpacked(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    """What is inside, in parts of `CHUNK` bytes at most. Raises TooMuch when `PLENTY` bytes are through."""
    allowance = PLENTY
    for part in _until_broken(file, start):
        allowance -= len(part)
        if allowance < 0:
            raise TooMuch
        yield part


def _until_broken(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    import lzma
    import zipfile
    import zlib

    broken = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError, EOFError)
    # zipfile says with these that a member is encrypted, or that it does not know how it was packed.
    unknown = (RuntimeError, NotImplementedError, ValueError)
    try:
        yield from _parts(file, start)
    except (*broken, *unknown):
        return


def _parts(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    import bz2
    import gzip

    if start.startswith(b"PK"):
        yield from _zipped(file)
    elif start.startswith(b"\xfd"):
        yield from _xz(file)
    else:
        stream = bz2.BZ2File(file) if start.startswith(b"BZh") else gzip.GzipFile(fileobj=file)
        with stream:
            yield from iter(lambda: stream.read(CHUNK), b"")


def _zipped(file: IO[bytes]) -> Iterator[bytes]:
    import zipfile

    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield from iter(lambda: member.read(CHUNK), b"")
            yield b"\n"


def _xz(file: IO[bytes]) -> Iterator[bytes]:
    """By hand: an xz file says itself how much memory it takes, and LZMAFile would give it."""
    import lzma

    inflate = lzma.LZMADecompressor(memlimit=PLENTY)
    while not inflate.eof:
        data = file.read(CHUNK) if inflate.needs_input else b""
        if inflate.needs_input and not data:
            return
        yield inflate.decompress(data, CHUNK)
