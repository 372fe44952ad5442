"""Files that are made to keep an audit busy, to fill the memory, or to have it change something.

Each is looked at by a process that may have as much memory as a small instance, and has a time limit. What it
did not see to its end is unknown, with a reason; what is beside it is found; and nothing changes anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from image_builder import Builder

from firstkey import image_reasons
from firstkey.image import packed, rpm
from firstkey.image.rules import private_keys
from firstkey.reasons import FirstkeyError

KEY = private_keys.EXAMPLE.encode()
MEMORY = 512 * 1024 * 1024
SECONDS = 100
"""In which each audit ends, on a busy machine too: the time of processors is the box's own budget."""
DATABASE = "/var/lib/rpm/rpmdb.sqlite"
TABLE = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
MIB = 1024 * 1024


@pytest.fixture
def victims(tmp_path: Path) -> Iterator[Path]:
    """A directory outside of the tree that must stay as it is."""
    outside = tmp_path / "victims"
    outside.mkdir()
    (outside / "file").write_text("kept\n")
    yield outside
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "kept\n"


def audit(builder: Builder, *rules: str) -> dict[str, Any]:
    """What the rules say of the tree, by their ids; the tree is as it was."""
    builder.age()
    before = builder.snapshot()
    chosen = [word for rule in rules for word in ("--rule", rule)]
    argv = ("audit", "--root", str(builder.root), "--json", *chosen)
    done = fork_server.firstkey(*argv, environ=os.environ, timeout=SECONDS, memory=MEMORY)
    assert done.status in (0, 1), done.err.decode()
    after = builder.snapshot()
    assert {path: found[:2] for path, found in after.items()} == {
        path: found[:2] for path, found in before.items()
    }
    return {rule["id"]: rule for rule in json.loads(done.out)["rules"]}


def reasons_of(rule: dict[str, Any]) -> list[str]:
    """Why something is not known."""
    return [unknown["reason"] for unknown in rule["unknown"]]


# A second or more of a processor, and of a kind with one that is not here.
LONG = (
    "bzip2 bomb", "xz bomb", "zip bomb", "zip of bzip2 bombs", "large tar", "many numbers",
    "names alone", "bomb",
)  # fmt: skip


def each(table: Iterable[str]) -> list[Any]:
    """The table's names, those that take long marked so."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in table]


# --- rpm's database -------------------------------------------------------------------------------


def database(path: Path, *statements: str) -> Path:
    """A database that was made with these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def hot_journal(path: Path, scratch: Path, *, names: Path) -> None:
    """A database in the midst of a transaction, whose journal names a super-journal to be deleted."""
    source = database(
        scratch / "source",
        TABLE,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO Packages (blob) SELECT zeroblob(2000) FROM n",
    )
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA cache_size = 5")
    connection.execute("BEGIN")
    connection.execute("UPDATE Packages SET blob = zeroblob(2001)")
    journal = (scratch / "source-journal").read_bytes()
    path.write_bytes(source.read_bytes())
    connection.execute("ROLLBACK")
    connection.close()
    name = os.fsencode(names)
    locking_page = struct.pack(">I", 0x40000000 // 4096 + 1)
    trailer = name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    Path(f"{path}-journal").write_bytes(journal + locking_page + trailer)


@pytest.mark.parametrize(
    "name", ["db?mode=rw#", "db%3fmode=rwc#", "db?mode=rwc&cache=shared#", "db?vfs=unix-dotfile#"]
)
@pytest.mark.parametrize("exists", [False, True], ids=["dangling", "there"])
@pytest.mark.sample(4)
def test_a_links_name_is_no_part_of_an_address(
    builder: Builder, tmp_path: Path, victims: Path, name: str, exists: bool
) -> None:
    """SQLite reads options behind a question mark: it would write, and delete what a journal names."""
    builder.directory("/var/lib/rpm")
    hot_journal(builder.path("/var/lib/rpm/db"), tmp_path, names=victims / "file")
    builder.link(DATABASE, name)
    if exists:
        database(builder.path(f"/var/lib/rpm/{name}"), TABLE)
    builder.file("/srv/key", KEY)
    rules = audit(builder, "ami-tools", "private-keys")
    assert rules["private-keys"]["outcome"] == "finding"
    if not exists:
        assert reasons_of(rules["ami-tools"]) == ["packages-unknown"]


def test_a_hot_journal_stays(builder: Builder, tmp_path: Path, victims: Path) -> None:
    """The database itself is in the midst of a transaction: it is read as it is, and not rolled back."""
    builder.directory("/var/lib/rpm")
    hot_journal(builder.path(DATABASE), tmp_path, names=victims / "file")
    audit(builder, "ami-tools")


DATABASES: dict[str, Callable[[Path], object]] = {
    "virtual table": lambda path: database(path, "CREATE VIRTUAL TABLE Packages USING rtree (blob, a, b)"),
    "no header": lambda path: database(
        path, "CREATE TABLE Packages (blob)", "INSERT INTO Packages VALUES ('aws-amitools-ec2')"
    ),
    "no blob": lambda path: database(path, "CREATE TABLE Packages (blob)", "INSERT INTO Packages VALUES (5)"),
    "no table": lambda path: database(path, "CREATE TABLE t (blob)"),
    "pages of 64 KiB": lambda path: database(path, "PRAGMA page_size = 65536", "CREATE TABLE t (blob)"),
    "no database": lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096),
}


@pytest.mark.parametrize("kind", each(DATABASES))
@pytest.mark.sample(3)
def test_hostile_databases(builder: Builder, victims: Path, kind: str) -> None:
    """What is no plain table of headers is not read, and keys that may be a package's are told."""
    builder.directory("/var/lib/rpm")
    DATABASES[kind](builder.path(DATABASE))
    builder.file("/srv/key", KEY)
    rules = audit(builder, "ami-tools", "private-keys")
    assert reasons_of(rules["ami-tools"]) == ["packages-unknown"]
    assert rules["private-keys"]["outcome"] == "finding"
    assert reasons_of(rules["private-keys"]) == ["packages-unknown"]


ENDLESS = "WITH RECURSIVE c(blob) AS (SELECT x'00' UNION ALL SELECT blob FROM c) SELECT blob FROM c"


@pytest.mark.slow
def test_a_database_without_end(builder: Builder) -> None:
    """The box has no room for it, or ends what reads it; keys that may be a package's are not harmless."""
    database(builder.path(DATABASE), f"CREATE VIEW Packages AS {ENDLESS}")
    builder.file("/srv/key", KEY)
    rules = audit(builder, "ami-tools", "private-keys")
    for rule in rules.values():
        assert reasons_of(rule) in (["packages-unknown"], ["over-budget"])
    assert not rules["private-keys"]["fit"]


@pytest.mark.parametrize("offset", [-1, -20, -(1 << 31)])
def test_a_tag_before_the_data(offset: int) -> None:
    """An index that points to before the data is damage."""
    blob = struct.pack(">II", 1, 4) + struct.pack(">IIiI", rpm.NAME, 4, offset, 1) + b"\0" * 4
    with pytest.raises(FirstkeyError) as caught:
        rpm.header(blob)
    assert caught.value.reason is image_reasons.PACKAGES_UNKNOWN


# --- what is packed -------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    """A zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return bytearray(file.getvalue())


def overlapping(content: bytes, times: int) -> bytes:
    """A zip file whose list names one and the same member so often."""
    whole = zipped(("a", content))
    listed = whole.index(b"PK\x01\x02")
    entry = whole[listed : whole.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(entry) * times, listed, 0)
    return bytes(whole[:listed] + entry * times + end)


def with_flag(whole: bytearray) -> bytes:
    """The last member of the list is said to be encrypted."""
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


def with_method(whole: bytearray, method: int) -> bytes:
    """The last member of the list is said to be packed otherwise."""
    whole[whole.rindex(b"PK\x01\x02") + 10] = method
    return bytes(whole)


def with_checksum(whole: bytearray) -> bytes:
    """The last member of the list has a wrong checksum."""
    whole[whole.rindex(b"PK\x01\x02") + 16] ^= 1
    return bytes(whole)


def broken_inside(whole: bytes) -> bytes:
    """A bit in the middle is another one."""
    return whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]


def greedy_xz() -> bytes:
    """An xz file that asks for 4 GiB (the xz file format, 5.3.1)."""
    whole = bytearray(lzma.compress(KEY))
    header = whole[12 : 12 + (whole[12] + 1) * 4 - 4]
    at = header.index(b"\x21\x01")
    header[at + 2] = 40
    whole[12 : 12 + len(header)] = header
    struct.pack_into("<I", whole, 12 + len(header), zlib.crc32(header))
    return bytes(whole)


def tar_with(size: int, *, said: int | None = None) -> bytes:
    """A tar file with an extended header of that size, whatever it is said to have; then a key."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, said or size
    file = tarfile.TarInfo("key")
    file.size = len(KEY)
    return header.tobuf() + bytes(size) + file.tobuf() + KEY + bytes(-len(KEY) % 512) + bytes(1024)


NOISE = os.urandom(300_000)
PAIR = (("key", KEY), ("other", NOISE))


def filled() -> bytes:
    """More than is unpacked of a file. As a constant, each fork of any test would have it too."""
    return KEY + bytes(packed.PLENTY + MIB)


# What is in the file, whether the key that is in it is seen, and why the rest is not known.
FILES: dict[str, tuple[Callable[[], bytes], bool, str | None]] = {
    "gzip": (lambda: gzip.compress(KEY), True, None),
    "bzip2": (lambda: bz2.compress(KEY), True, None),
    "xz": (lambda: lzma.compress(KEY, preset=9), True, None),
    "zip": (lambda: bytes(zipped(*PAIR)), True, None),
    "zip of bzip2": (lambda: bytes(zipped(*PAIR, method=zipfile.ZIP_BZIP2)), True, None),
    "several": (lambda: gzip.compress(NOISE) + gzip.compress(KEY) + bytes(100_000), True, None),
    "no bzip2": (lambda: b"BZhell no, this is a text\n" + KEY, True, None),
    "gzip bomb": (lambda: gzip.compress(filled()), True, "not-looked-at"),
    "bzip2 bomb": (lambda: bz2.compress(filled()), True, "not-looked-at"),
    "xz bomb": (lambda: lzma.compress(filled(), preset=0), True, "not-looked-at"),
    "zip bomb": (lambda: bytes(zipped(("a", filled()))), True, "not-looked-at"),
    "zip of bzip2 bombs": (
        lambda: bytes(zipped(("a", filled()), method=zipfile.ZIP_BZIP2)), True, "not-looked-at"
    ),
    "greedy xz": (greedy_xz, False, "over-budget"),
    "zip of lzma": (lambda: bytes(zipped(*PAIR, method=zipfile.ZIP_LZMA)), True, None),
    "tiny streams": (lambda: gzip.compress(KEY) + gzip.compress(b"") * 300_000, True, None),
    "empty blocks": (
        lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\0\0\0\xff\xff" * (13 * MIB), False, "not-intact",
    ),
    "cut off": (lambda: gzip.compress(KEY + NOISE)[:-1000], True, "not-intact"),
    "broken": (lambda: broken_inside(gzip.compress(KEY + NOISE)), True, "not-intact"),
    "broken bzip2": (lambda: broken_inside(bz2.compress(NOISE)), False, "not-intact"),
    "broken xz": (lambda: broken_inside(lzma.compress(bytes(MIB) + NOISE)), False, "not-intact"),
    "no more than a start": (lambda: b"\x1f\x8b\x08", False, "not-intact"),
    "something behind": (lambda: gzip.compress(KEY) + b"rest", True, "not-intact"),
    "encrypted": (lambda: with_flag(zipped(*PAIR)), True, "not-intact"),
    "encrypted first": (lambda: with_flag(zipped(("x", b"x"))) + bytes(zipped(*PAIR)), True, None),
    "unknown method": (lambda: with_method(zipped(*PAIR), 99), True, "not-intact"),
    "wrong checksum": (lambda: with_checksum(zipped(*PAIR)), True, "not-intact"),
    "no list": (lambda: bytes(zipped(*PAIR))[:-30], False, "not-intact"),
    "tar": (lambda: tar_with(MIB), True, None),
    "packed tar": (lambda: gzip.compress(tar_with(MIB)), True, None),
    "greedy tar": (lambda: gzip.compress(tar_with(MIB, said=1024 * MIB)), True, None),
    "large tar": (lambda: gzip.compress(tar_with(100 * MIB, said=1024 * MIB)), False, "not-looked-at"),
    "headers without end": (
        lambda: b"-----BEGIN PRIVATE KEY-----\n" + b"a: x\n\n\n\n\n\n\n" * 20 + b"!\n" + KEY, True, None
    ),
    "many beginnings": (lambda: KEY + b"-----BEGIN PRIVATE KEY-----\n" * 500_000, True, "over-budget"),
    "many numbers": (lambda: KEY + b'"crv"' * (8 * MIB), True, "over-budget"),
}  # fmt: skip


@pytest.mark.parametrize("kind", each(FILES))
@pytest.mark.sample(9)
def test_packed_files(builder: Builder, victims: Path, kind: str) -> None:
    """What can be seen is seen, and what cannot is told with a reason: an image with that is not fit."""
    make, is_found, reason = FILES[kind]
    builder.file("/srv/file", make())
    rules = audit(builder, "private-keys", "everything-seen")
    # A key that is packed as it is, is seen in the file as well.
    assert {found["path"] for found in rules["private-keys"]["findings"]} == (
        {"/srv/file"} if is_found else set()
    )
    assert reasons_of(rules["everything-seen"]) == ([reason] if reason else [])
    assert rules["everything-seen"]["outcome"] == ("unknown" if reason else "pass")
    assert rules["everything-seen"]["fit"] is (reason is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content,times", [(KEY + bytes(MIB), 50_000), (b"", 100_000)], ids=["large", "empty"]
)
def test_members_that_overlap(builder: Builder, content: bytes, times: int) -> None:
    """Some versions of zipfile refuse them, others read on: it ends, and what is too much is told."""
    builder.file("/srv/file", overlapping(content, times))
    rule = audit(builder, "everything-seen")["everything-seen"]
    assert reasons_of(rule) in (["not-intact"], ["not-looked-at"], [] if not content else ["not-intact"])


def sparse(path: Path, *parts: tuple[int, bytes]) -> None:
    """A file with something at these places, and holes between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for place, content in parts:
            file.seek(place)
            file.write(content)


def test_a_list_of_four_gigabytes(builder: Builder) -> None:
    """A zip file of a few blocks says that the list of its files takes all the memory that there is."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFF0, 0, 0)
    sparse(builder.path("/srv/file"), (0, b"PK\x03\x04"), (6 << 30, end))
    assert reasons_of(audit(builder, "everything-seen")["everything-seen"]) == ["over-budget"]


def test_a_wide_list(builder: Builder) -> None:
    """Numbers that are too large for their fields stand elsewhere (zip64), and are believed as little."""
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 62, 1 << 62)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 1 << 20, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    sparse(builder.path("/srv/file"), (0, b"PK\x03\x04"), (1 << 20, wide + locator + end))
    # Python 3.9 seeks to where the list is said to be, and the kernel refuses.
    logged = reasons_of(audit(builder, "everything-seen")["everything-seen"])
    assert logged in (["not-intact"], ["io-error"])


@pytest.mark.slow
def test_a_sparse_archive(builder: Builder) -> None:
    """A terabyte of nothing behind the start of a stream."""
    start = gzip.compress(KEY)
    sparse(builder.path("/srv/file"), (0, start), (1 << 40, b"x"))
    rules = audit(builder, "everything-seen", "private-keys")
    assert reasons_of(rules["everything-seen"]) == ["not-looked-at"]
    assert rules["private-keys"]["outcome"] == "finding"


def parts(content: bytes) -> tuple[bytes, str | None]:
    """All that is unpacked, and why it is not all."""
    found = []
    try:
        for part in packed.unpacked(io.BytesIO(content), content[:8]):
            found.append(part)  # noqa: PERF402 - what came before the end counts
    except packed.Unfinished as error:
        return b"".join(found), error.reason.code
    return b"".join(found), None


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, *(pytest.param(way, marks=pytest.mark.slow) for way in (bz2.compress, lzma.compress))],
)
def test_streams_come_out_whole(compress: Callable[[bytes], bytes]) -> None:
    """Whatever is in them, also where what is held back at the end is more than a part."""
    for content in (b"", b"x", NOISE, bytes(10 * MIB), NOISE + bytes(MIB) + NOISE, b"ab" * MIB):
        assert parts(compress(content)) == (content, None)
        assert parts(compress(content) + compress(NOISE)) == (content + NOISE, None)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.sample(3)
def test_zip_files_come_out_whole(method: int) -> None:
    """Members of every size, with something before the whole, and a comment behind it."""
    members = (("a", NOISE), ("directory/", b""), ("ü" * 100, bytes(5 * MIB)), ("b", b"x"))
    whole = bytes(zipped(*members, method=method))
    expected = b"".join(packed.MEMBER + content for _, content in members)
    assert parts(whole) == (expected, None)
    assert parts(b"PK\x03\x04" + NOISE + whole) == (expected, None)
    comment = whole[:-2] + struct.pack("<H", 5) + b"PK\x05xx"
    assert parts(comment) == (expected, None)


def test_a_zip_file_with_wide_numbers() -> None:
    """Python writes a member's sizes into the extra field where it is told to reckon with large ones."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(NOISE)
    whole = bytearray(file.getvalue())
    listed = whole.index(b"PK\x01\x02")
    extra = struct.pack("<2H2Q", 1, 16, len(NOISE), len(NOISE))
    struct.pack_into("<2L", whole, listed + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", whole, listed + 30, len(extra))
    whole[listed + 47 : listed + 47] = extra
    end = whole.index(b"PK\x05\x06")
    struct.pack_into("<L", whole, end + 12, end - listed)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.read("a") == NOISE
    assert parts(bytes(whole)) == (packed.MEMBER + NOISE, None)


# --- lists of packages ----------------------------------------------------------------------------

LISTED = "/var/cache/dnf/amzn/repodata/0123-primary.xml.gz"
NAME = b"<name>aws-amitools-ec2</name>"
NEWER = NAME + b'<arch>noarch</arch>\n<version epoch="0" ver="9.1" rel="1"/></package>'
LISTS: dict[str, tuple[Callable[[], bytes], str, str | None]] = {
    "names alone": (lambda: gzip.compress(NAME * 1_000_000), "unknown", "packages-unknown"),
    "names and versions": (
        lambda: gzip.compress((NAME + b"<version ") * 500_000), "unknown", "packages-unknown"
    ),
    "far away": (lambda: gzip.compress(NAME + b" " * MIB + NEWER), "finding", None),
    "another's version": (
        lambda: gzip.compress(NAME + b"</package><name>x</name>" + NEWER[len(NAME) :]),
        "unknown", "packages-unknown",
    ),
    "across parts": (lambda: gzip.compress(b"x" * (packed.CHUNK - 10) + NEWER), "finding", None),
    "bomb": (lambda: gzip.compress(NEWER + bytes(1100 * MIB), 1), "finding", "not-looked-at"),
    "cut off": (lambda: gzip.compress(NEWER + NOISE)[:-500], "finding", "not-intact"),
    "cut off before": (lambda: gzip.compress(NOISE + NEWER)[:-500], "unknown", "not-intact"),
    "broken": (lambda: b"\x1f\x8b\x08" + NOISE[:100], "unknown", "not-intact"),
}  # fmt: skip


@pytest.mark.parametrize("kind", each(LISTS))
@pytest.mark.sample(5)
def test_lists_of_packages(builder: Builder, kind: str) -> None:
    """A repository's list is read as it comes, and never for longer than it is."""
    make, outcome, reason = LISTS[kind]
    builder.file("/var/lib/dpkg/info/x.list", "")
    builder.file(
        "/var/lib/dpkg/status", "Package: aws-amitools-ec2\nStatus: install ok installed\nVersion: 1-1\n"
    )
    builder.file(LISTED, make())
    rule = audit(builder, "ami-tools")["ami-tools"]
    assert rule["outcome"] == outcome
    assert reasons_of(rule) == ([reason] if reason else [])


# --- names, depths and numbers --------------------------------------------------------------------


def test_a_name_as_long_as_may_be(builder: Builder) -> None:
    """What would stand beside it has a name that no file can have; the keys behind it are found."""
    paths = [f"/srv/{letter * 255}" for letter in "an"] + ["/srv/z"]
    for path in paths:
        builder.file(path, KEY)
    rule = audit(builder, "private-keys")["private-keys"]
    assert ([found["path"] for found in rule["findings"]], reasons_of(rule)) == (paths, [])


def test_a_home_that_no_file_can_be(builder: Builder) -> None:
    """There is nothing in it."""
    builder.directory("/home")
    builder.file("/etc/passwd", f"ann:x:1000:1000::/home/{'a' * 300}/ann:/bin/sh\n")
    for rule in audit(builder, "everything-seen", "histories").values():
        assert (rule["outcome"], reasons_of(rule)) == ("pass", [])


def test_what_lies_too_deep_is_no_pass(builder: Builder) -> None:
    """A log in more directories than anybody has there."""
    builder.file(f"/var/log/{'d/' * 70}builder", "x")
    builder.file("/var/log/z", "x")
    rule = audit(builder, "logs")["logs"]
    assert [found["path"] for found in rule["findings"]] == ["/var/log/z"]
    assert reasons_of(rule) == ["not-looked-at"]


def test_a_configuration_of_sshds_that_cannot_be_read_hides_nothing_else(builder: Builder) -> None:
    """Host keys where they are as a rule, and passwords; what it may name besides is unknown."""
    builder.file("/etc/ssh/sshd_config", b"#" * 2 * MIB)
    builder.file("/etc/ssh/ssh_host_rsa_key", KEY, mode=0o600)
    builder.file("/etc/shadow", "root:$6$salt$hash:19000::::::\n", mode=0o640)
    rules = audit(builder, "host-keys", "root-password")
    assert [found["path"] for found in rules["host-keys"]["findings"]] == ["/etc/ssh/ssh_host_rsa_key"]
    assert reasons_of(rules["host-keys"])[-1:] == ["file-too-large"]
    assert [found["path"] for found in rules["root-password"]["findings"]] == ["/etc/shadow"]
