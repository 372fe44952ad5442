"""What belongs to a package: read from the package manager's records, and never believed of a path alone."""

from __future__ import annotations

import base64
import hashlib
import shutil
import sqlite3
import struct
import subprocess
from pathlib import Path

import pytest
from audits import audit
from image_builder import Builder

from firstkey import image_reasons
from firstkey.image import rpm, rules
from firstkey.image.audit import verdict_of
from firstkey.image.rules import ami_tools, private_keys
from firstkey.reasons import FirstkeyError

KEY = private_keys.EXAMPLE.encode()
PLACE = "/usr/share/doc/tls/test key.pem"


def outcome(builder: Builder) -> str:
    """What the rule about private keys says."""
    return verdict_of(rules.by_id("private-keys"), builder.image()).outcome


def md5(content: bytes) -> str:
    """As dpkg's records have it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_dpkg_files(builder: Builder) -> None:
    """A file as the package brought it passes; another in its place does not, nor does one beside it."""
    builder.file(PLACE, KEY)
    builder.file("/var/lib/dpkg/info/tls:amd64.md5sums", f"{md5(KEY)}  usr/share/doc/tls/test key.pem\n")
    builder.file("/var/lib/dpkg/info/tls:amd64.list", f"/.\n/usr\n{PLACE}\n")
    verdict = verdict_of(rules.by_id("private-keys"), builder.image())
    assert verdict.outcome == "pass"
    assert verdict.remark == "1 file is left out: as the package brought it (tls)."
    builder.file(PLACE, KEY.replace(b"\n", b"\n\n"))
    assert outcome(builder) == "finding"
    builder.file(PLACE, KEY)
    builder.file("/usr/share/doc/tls/mine.pem", KEY)
    assert [found.path for found in verdict_of(rules.by_id("private-keys"), builder.image()).findings] == [
        "/usr/share/doc/tls/mine.pem"
    ]


def test_dpkg_conffiles_and_merged_usr(builder: Builder) -> None:
    """Configuration files have their digests in the status file; /lib is /usr/lib to some packages."""
    builder.file("/etc/tls/default.pem", KEY)
    builder.file(
        "/var/lib/dpkg/status",
        "Package: tls\nStatus: install ok installed\nConffiles:\n"
        f" /etc/tls/other.conf {'0' * 32}\n /etc/tls/default.pem {md5(KEY)}\nVersion: 1\n",
    )
    builder.file("/usr/lib/tls/test.pem", KEY)
    builder.file("/var/lib/dpkg/info/tls.md5sums", f"{md5(KEY)}  lib/tls/test.pem\n")
    assert outcome(builder) == "pass"
    builder.file("/etc/tls/default.pem", KEY + b"# changed\n")
    assert outcome(builder) == "finding"


def test_compiled_python_counts_as_its_source(builder: Builder) -> None:
    """Python's own copies of a package's file are that file, unless there is another key in them."""
    source = b"KEY = '''\n" + KEY + b"'''\n"
    builder.file("/usr/lib/python3/tls.py", source)
    builder.file("/var/lib/dpkg/info/tls.md5sums", f"{md5(source)}  usr/lib/python3/tls.py\n")
    place = "/usr/lib/python3/__pycache__/tls.cpython-311.pyc"
    builder.file(place, b"\xa7\r\r\n\0\0\0\0" + KEY)
    assert outcome(builder) == "pass"
    builder.file(place, b"\xa7\r\r\n\0\0\0\0" + KEY.replace(b"MC4CAQ", b"MC4CAR"))
    assert outcome(builder) == "finding"


SITE = "/usr/local/lib/python3.11/site-packages"


def recorded(content: bytes) -> str:
    """As a wheel's RECORD has it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"sha256={digest},{len(content)}"


def test_files_of_a_wheel(builder: Builder) -> None:
    """A Python package's list of its files counts, and is believed of its own directory alone."""
    builder.file(f"{SITE}/tls/tests/key.py", KEY)
    builder.file(f"{SITE}/tls/tests/__pycache__/key.cpython-311.pyc", b"\xa7\r\r\n\0\0\0\0" + KEY)
    record = f"tls/tests/key.py,{recorded(KEY)}\n../../../../srv/key.pem,{recorded(KEY)}\n"
    builder.file(f"{SITE}/tls-1.0.dist-info/RECORD", record + "tls/broken.py,sha256=?,\n,,\n\xff\n")
    verdict = verdict_of(rules.by_id("private-keys"), builder.image())
    assert verdict.outcome == "pass"
    assert verdict.remark == "2 files are left out: as the package brought it (tls)."
    builder.file("/usr/local/srv/key.pem", KEY)
    builder.file("/home/ann/.ssh/id", KEY)
    builder.file("/home/ann/all.dist-info/RECORD", f".ssh/id,{recorded(KEY)}\n")
    builder.file("/srv/key.pem", KEY)
    found = verdict_of(rules.by_id("private-keys"), builder.image()).findings
    assert [each.path for each in found] == ["/home/ann/.ssh/id", "/srv/key.pem", "/usr/local/srv/key.pem"]


@pytest.mark.parametrize("change", ["content", "digest", "own work"])
def test_files_of_no_wheel(builder: Builder, change: str) -> None:
    """Whoever changed it, or installed it from a directory of his own, has put his own key there."""
    builder.file(f"{SITE}/tls/key.py", KEY + b"#\n" if change == "content" else KEY)
    record = recorded(KEY) if change != "digest" else "sha256=" + "A" * 43 + ",1"
    builder.file(f"{SITE}/tls-1.0.dist-info/RECORD", f"tls/key.py,{record}\n")
    if change == "own work":
        builder.file(f"{SITE}/tls-1.0.dist-info/direct_url.json", '{"url": "file:///srv/tls"}')
    assert outcome(builder) == "finding"


@pytest.mark.parametrize("digest", ["A", "A" * 43, "!" * 42 + "A", "=" * 43, ""])
def test_a_record_that_is_no_digest_vouches_for_nothing(builder: Builder, digest: str) -> None:
    """And keeps no key from being found."""
    wheel = "/usr/lib/python3/dist-packages"
    builder.grow(
        {
            "/lib/apk/db/installed": f"P:tls\nF:srv\nR:one\nZ:Q1{digest}\n",
            f"{wheel}/tls-1.dist-info/RECORD": f"two.py,sha256={digest},1\n",
            "/srv/one": KEY,
            f"{wheel}/two.py": KEY,
            "/srv/zoo": KEY,
        }
    )
    verdict = verdict_of(rules.by_id("private-keys"), builder.image())
    assert [finding.path for finding in verdict.findings] == ["/srv/one", "/srv/zoo", f"{wheel}/two.py"]
    assert verdict.unknowns == ()


def test_apk_files(builder: Builder) -> None:
    """Alpine's records have a sha1 for each file."""
    value = base64.b64encode(hashlib.sha1(KEY, usedforsecurity=False).digest()).decode()
    builder.file(PLACE, KEY)
    builder.file(
        "/lib/apk/db/installed",
        f"P:tls\nV:1\nF:usr/share/doc/tls\nR:other\nZ:Q1AAAA\nR:test key.pem\na:0:0:644\nZ:Q1{value}\n\n",
    )
    assert outcome(builder) == "pass"
    builder.file(PLACE, KEY + b"\n")
    assert outcome(builder) == "finding"


# --- rpm ------------------------------------------------------------------------------------------


def header(**tags: list[str] | list[int]) -> bytes:
    """A package's header as rpm's database holds it: count and length, an index, the data."""
    index, data = b"", b""
    for name, values in tags.items():
        number = getattr(rpm, name)
        if isinstance(values[0], int):
            data += b"\0" * (-len(data) % 4)
            kind, raw = 4, struct.pack(f">{len(values)}I", *values)
        else:
            kind = 6 if name in ("NAME", "VERSION", "RELEASE") else 8
            raw = b"".join(str(value).encode() + b"\0" for value in values)
        index += struct.pack(">IIiI", number, kind, len(data), len(values))
        data += raw
    return struct.pack(">II", len(tags), len(data)) + index + data


def write_database(builder: Builder, *blobs: bytes) -> None:
    """A database as rpm lays it out."""
    builder.directory("/var/lib/rpm")
    with sqlite3.connect(builder.path("/var/lib/rpm/rpmdb.sqlite")) as connection:
        connection.execute(
            "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
        )
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs])
    connection.close()


def tls_header() -> bytes:
    """The header of a package with a key in it."""
    return header(
        NAME=["tls"], VERSION=["1.2"], RELEASE=["3"],
        FILE_DIGESTS=["", hashlib.sha256(KEY).hexdigest()], DIRECTORY_INDEXES=[1, 0],
        BASE_NAMES=["tls", "test key.pem"], DIRECTORY_NAMES=["/usr/share/doc/tls/", "/usr/share/doc/"],
        DIGEST_ALGORITHM=[8],
    )  # fmt: skip


def test_rpm_files(builder: Builder) -> None:
    """Rpm's database is read without rpm, and left as it is."""
    builder.file(PLACE, KEY)
    write_database(builder, header(NAME=["other"], VERSION=["1"], RELEASE=["1"]), tls_header())
    builder.age()
    before = builder.snapshot()
    assert outcome(builder) == "pass"
    assert builder.image().packages.version("tls") == "1.2-3"
    after = builder.snapshot()
    assert [path for path in before if before[path][:2] != after[path][:2]] == []
    assert before.keys() == after.keys()
    builder.file(PLACE, KEY + b"\n")
    assert outcome(builder) == "finding"


def test_rpm_files_are_known_in_the_box(builder: Builder) -> None:
    """There the tree is elsewhere than the host has it."""
    builder.file(PLACE, KEY)
    write_database(builder, tls_header())
    done = audit(builder, "--json", "--rule", "private-keys", "--rule", "ami-tools")
    assert {rule["id"]: rule["unknown"] for rule in done.report["rules"]} == {
        "private-keys": [],
        "ami-tools": [],
    }
    assert (done.rule("private-keys")["outcome"], done.status) == ("pass", 0)


@pytest.mark.parametrize("name", ["Packages", "rpmdb.sqlite"])
def test_an_unreadable_rpm_database_is_unknown(builder: Builder, name: str) -> None:
    """A key that may be a package's own is told, with the reason why that is not known."""
    builder.file(PLACE, KEY)
    builder.file(f"/var/lib/rpm/{name}", b"\0" * 4096)
    verdict = verdict_of(rules.by_id("private-keys"), builder.image())
    assert verdict.outcome == "finding"
    assert verdict.unknowns[0].refusal.reason is image_reasons.PACKAGES_UNKNOWN


@pytest.mark.parametrize("length", [0, 7, 40, 200])
def test_a_damaged_header_is_refused(length: int) -> None:
    """A header that is cut off anywhere is an error with a reason, never a wrong answer."""
    with pytest.raises(FirstkeyError) as caught:
        rpm.header(tls_header()[:length])
    assert caught.value.reason is image_reasons.PACKAGES_UNKNOWN


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("rpmbuild") and shutil.which("rpm")),
    reason="needs rpm and rpmbuild, which make a real database",
)
def test_a_database_that_rpm_made(builder: Builder, tmp_path: Path) -> None:
    """The records of a real package that a real rpm installed."""
    spec = tmp_path / "tls.spec"
    spec.write_text(
        "Name: tls\nVersion: 1.2\nRelease: 3\nSummary: test\nLicense: none\nBuildArch: noarch\n"
        "%description\ntest\n%install\nmkdir -p %{buildroot}/usr/share/tls\n"
        f"cp {tmp_path}/key %{{buildroot}}/usr/share/tls/test.pem\n%files\n/usr/share/tls/test.pem\n"
    )
    (tmp_path / "key").write_bytes(KEY)
    subprocess.run(
        ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/build", str(spec)],
        check=True,
        capture_output=True,
    )
    (package,) = (tmp_path / "build" / "RPMS").rglob("*.rpm")
    builder.directory("/var/lib/rpm")
    database = ["--dbpath", str(builder.path("/var/lib/rpm")), "--define", "_db_backend sqlite"]
    subprocess.run(["rpm", *database, "--initdb"], check=True, capture_output=True)
    subprocess.run(
        ["rpm", *database, "--install", "--justdb", "--nodeps", "--noscripts", str(package)],
        check=True,
        capture_output=True,
    )
    builder.file("/usr/share/tls/test.pem", KEY)
    assert builder.image().packages.version("tls") == "1.2-3"
    assert outcome(builder) == "pass"


# --- the AMI tools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "older,newer",
    [("1.5.7-1", "1.5.19-1"), ("1.4", "1.4.0.9"), ("1.5~rc1", "1.5"), ("1.5", "1.5a"), ("9", "10")],
)
def test_versions_are_compared_by_number(older: str, newer: str) -> None:
    """As package managers have it."""
    assert ami_tools.ordered(older) < ami_tools.ordered(newer)


def test_ami_tools_of_amazon_linux(builder: Builder) -> None:
    """The version is rpm's, the newest what the repositories' lists in yum's cache name; none is unknown."""
    import gzip

    write_database(builder, header(NAME=["aws-amitools-ec2"], VERSION=["1.5.13"], RELEASE=["1.2.amzn2"]))
    assert verdict_of(ami_tools.RULES[0], builder.image()).outcome == "unknown"
    primary = (
        '<package><name>aws-amitools-ec2</name><version epoch="0" ver="1.5.19" rel="1.amzn2"/></package>'
    )
    listed = "/var/cache/yum/x86_64/2/amzn2-core/0123-primary.xml.gz"
    builder.file(listed, gzip.compress(primary.encode()))
    (finding,) = verdict_of(ami_tools.RULES[0], builder.image()).findings
    assert "1.5.19-1.amzn2 is there" in finding.reason
    assert (
        finding.remedy == "Run in the image, or on an instance of it: yum --assumeyes update aws-amitools-ec2"
    )
