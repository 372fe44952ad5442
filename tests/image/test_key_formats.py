"""Private keys by content: what real programs write is found, wherever it stands; mentions are not."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from image_builder import Builder

from firstkey.image import key_formats, rules
from firstkey.image.audit import verdict_of
from firstkey.image.examples import pem
from firstkey.image.rules import authorized_keys, private_keys

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="needs openssl")


def run(*argv: str | Path, stdin: bytes = b"") -> bytes:
    """What the program prints."""
    return subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, check=True).stdout


def ssh_key(directory: Path, *options: str) -> bytes:
    """A new private key, in the format that the options ask for."""
    run("ssh-keygen", "-q", "-f", directory / "key", "-C", "c", *options)
    return (directory / "key").read_bytes()


def found(builder: Builder, content: bytes, path: str = "/srv/some/file") -> str | None:
    """What the rule says of a file with that content."""
    builder.file(path, content)
    findings = verdict_of(rules.by_id("private-keys"), builder.image()).findings
    return findings[0].reason if findings else None


# --- keys -----------------------------------------------------------------------------------------

SSH = {
    "OpenSSH, ed25519": ["-t", "ed25519", "-N", ""],
    "OpenSSH, ecdsa": ["-t", "ecdsa", "-N", ""],
    "OpenSSH, rsa": ["-t", "rsa", "-b", "1024", "-N", ""],
    "OpenSSH, encrypted": ["-t", "ed25519", "-N", "secret"],
    "PEM, rsa": ["-t", "rsa", "-b", "1024", "-N", "", "-m", "PEM"],
    "PEM, encrypted": ["-t", "rsa", "-b", "1024", "-N", "secret", "-m", "PEM"],
    "PEM, ecdsa": ["-t", "ecdsa", "-N", "", "-m", "PEM"],
    "PKCS#8": ["-t", "rsa", "-b", "1024", "-N", "", "-m", "PKCS8"],
    "PKCS#8, encrypted": ["-t", "rsa", "-b", "1024", "-N", "secret", "-m", "PKCS8"],
}


@pytest.mark.parametrize("options", SSH.values(), ids=SSH)
@pytest.mark.sample(9)
def test_what_ssh_keygen_writes(builder: Builder, tmp_path: Path, options: list[str]) -> None:
    """Every format that ssh-keygen writes a private key in."""
    assert "PEM" in str(found(builder, ssh_key(tmp_path, *options)))


@needs_openssl
@pytest.mark.slow
def test_what_openssl_writes(builder: Builder, tmp_path: Path) -> None:
    """DER in all its forms, and PKCS#12 with a key; certificates and public keys are no secrets."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-subj",
        "/CN=x",
    )
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "ec.pem")
    secrets = {
        "RSA private key (DER)": run("openssl", "rsa", "-in", key, "-outform", "DER", "-traditional"),
        "private key (PKCS#8, DER)": run(
            "openssl", "pkcs8", "-topk8", "-nocrypt", "-in", key, "-outform", "DER"
        ),
        "encrypted private key": run(
            "openssl", "pkcs8", "-topk8", "-in", key, "-outform", "DER", "-passout", "pass:secret"
        ),
        "EC private key (DER)": run("openssl", "ec", "-in", tmp_path / "ec.pem", "-outform", "DER"),
        "key store (PKCS#12)": run(
            "openssl", "pkcs12", "-export", "-inkey", key, "-in", cert, "-passout", "pass:secret"
        ),
    }
    for what, content in secrets.items():
        assert what in str(found(builder, content)), what
    harmless = {
        "certificate": cert.read_bytes(),
        "certificate (DER)": run("openssl", "x509", "-in", cert, "-outform", "DER"),
        "public key": run("openssl", "rsa", "-in", key, "-pubout"),
        "public key (DER)": run("openssl", "rsa", "-in", key, "-pubout", "-outform", "DER"),
        "store of certificates": run(
            "openssl", "pkcs12", "-export", "-nokeys", "-in", cert, "-passout", "pass:secret"
        ),
    }
    for what, content in harmless.items():
        assert found(builder, content) is None, what


WRITTEN_BY = {
    "PKCS#12": ("pkcs12", "-export", "-inkey", "key", "-in", "cert", "-passout", "pass:secret"),
    "PKCS#12, old": ("pkcs12", "-export", "-inkey", "key", "-in", "cert", "-passout", "pass:secret",
                     "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES"),
    "PKCS#8": ("pkcs8", "-topk8", "-nocrypt", "-in", "key", "-outform", "DER"),
}  # fmt: skip


@needs_openssl
@pytest.mark.parametrize("options", WRITTEN_BY.values(), ids=WRITTEN_BY)
def test_what_openssl_writes_in_an_archive(
    builder: Builder, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A backup of a web server's directory."""
    request = (
        "req",
        "-x509",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-keyout",
        "key",
        "-out",
        "cert",
        "-subj",
        "/CN=x",
    )
    for argv in (request, (*options, "-out", "store")):
        subprocess.run(["openssl", *argv], cwd=tmp_path, check=True, capture_output=True)
    assert "in an archive" in str(found(builder, tarred((tmp_path / "store").read_bytes())))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("keytool") is None, reason="needs keytool")
@pytest.mark.parametrize("kind", ["jks", "jceks", "pkcs12"])
def test_what_keytool_writes(builder: Builder, tmp_path: Path, kind: str) -> None:
    """Java's stores, as Java writes them."""
    of_kind = ("-storetype", kind, "-storepass", "hunter22")
    options = ("-alias", "a", "-keypass", "hunter22", *of_kind)
    store, secret, trusted = (tmp_path / name for name in ("store", "secret", "trusted"))
    run("keytool", "-genkeypair", "-keyalg", "EC", "-dname", "CN=x", "-keystore", store, *options)
    assert "key store" in str(found(builder, store.read_bytes()))
    if kind != "jks":  # which keeps pairs of keys alone
        run("keytool", "-genseckey", "-keyalg", "AES", "-keysize", "128", "-keystore", secret, *options)
        assert "key store" in str(found(builder, secret.read_bytes()))
    certificate = tmp_path / "certificate"
    run("keytool", "-exportcert", "-alias", "a", "-file", certificate, "-keystore", store, *of_kind)
    run("keytool", "-importcert", "-noprompt", "-file", certificate, "-keystore", trusted, *of_kind)
    assert found(builder, trusted.read_bytes()) is None


@pytest.mark.skipif(shutil.which("puttygen") is None, reason="needs puttygen")
@pytest.mark.parametrize("version", ["2", "3"])
def test_what_puttygen_writes(builder: Builder, tmp_path: Path, version: str) -> None:
    """Both formats that are in use."""
    ssh_key(tmp_path, "-t", "ed25519", "-N", "")
    run(
        "puttygen",
        tmp_path / "key",
        "-O",
        "private",
        "--ppk-param",
        f"version={version}",
        "-o",
        tmp_path / "ppk",
    )
    assert found(builder, (tmp_path / "ppk").read_bytes()) == "There is a private key (PuTTY) in it."


PUTTY = b"""PuTTY-User-Key-File-3: ssh-ed25519\r
Encryption: none\r
Comment: c\r
Public-Lines: 2\r
AAAAC3NzaC1lZDI1NTE5AAAAIJ1hsZ3v\r
Private-Lines: 1\r
AAAAIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\r
"""
SSH2 = """---- BEGIN SSH2 {} PRIVATE KEY ----
Comment: "c"
P2/56wAAAi4AAAA3aWYtbW9kbntzaWdue3JzYS1wa2NzMS1zaGExfSxlbmNyeXB0e3Jz
---- END SSH2 {} PRIVATE KEY ----
"""
JAVAS = b"\x06\x0a\x2b\x06\x01\x04\x01\x2a\x02\x11\x01\x01"
"""How an encrypted entry of a Java key store starts."""
OTHERS = {
    "PuTTY": PUTTY,
    "GnuPG, canonical": b"(21:protected-private-key(3:rsa(1:n257:",
    "GnuPG, extended": b"Created: 20240101T000000\nKey: (protected-private-key (ecc (curve Ed25519)\n",
    "SSH.com": SSH2.format("ENCRYPTED", "ENCRYPTED").encode(),
    "SSH protocol 1": b"SSH " + b"PRIVATE KEY FILE FORMAT 1.1\n\0\0\0\0\0",
    "JKS": b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\1\0\5alias" + bytes(8) + b"\0\0\0\x0d" + JAVAS,
    "JCEKS, a certificate before": b"\xce\xce\xce\xce\0\0\0\2\0\0\0\2"
     b"\0\0\0\2\0\1a" + bytes(8) + b"\0\5X.509\0\0\0\3cer"
    + b"\0\0\0\1\0\1b" + bytes(8) + b"\0\0\0\x0d" + JAVAS,
    "age": b"# created: x\nAGE-SECRET-KEY-1" + b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 2 + b"\n",
    "JSON Web Key, certbot's": json.dumps(
        {"n": "n" * 683, "e": "AQAB", "d": "Sot+" * 171, "qi": "p" * 342, "kty": "RSA"}).encode(),
    "JSON Web Key, EC": b'{"crv":"P-256","d":"' + b"aB3-" * 10 + b'123","kty":"EC"}',
    "OpenVPN": b"<tls-crypt>\n-----BEGIN OpenVPN Static key V1-----\n" + b"0123456789abcdef" * 2 + b"\n",
    "tinc": pem("ED25519 PRIVATE KEY", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 3 + "abcd").encode(),
    "Nebula": pem("NEBULA X25519 PRIVATE KEY", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7Labcdefghijk=").encode(),
    "OpenPGP, new format": b"\xc5\xc0\x10\x04\x65\0\0\0\x16\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01",
    "OpenPGP, version 6": b"\xc5\x46\x06\x65\0\0\0\x1b\0\0\0\x20" + bytes(60),
    "KeePass": b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5rest of it",
}  # fmt: skip


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_what_others_write(builder: Builder, content: bytes) -> None:
    """PuTTY, GnuPG, SSH.com, Java and KeePass; each after its maker's description."""
    assert found(builder, content) is not None


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048", "nistp256", "dsa2048"])
@pytest.mark.sample(4)
def test_what_gpg_exports(builder: Builder, tmp_path: Path, algorithm: str) -> None:
    """A secret key that is exported without armour is found; the public one is nobody's secret."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--passphrase", ""]
    try:
        run(*gpg, "--quick-generate-key", "ann", algorithm)
        assert found(builder, run(*gpg, "--export-secret-keys")) == "There is a private key (OpenPGP) in it."
        assert found(builder, run(*gpg, "--export")) is None
        # As Kleopatra writes it, with words among the headers that look like base64.
        begin, body = run(*gpg, "--armor", "--export-secret-keys").split(b"\n", 1)
        headers = b"\nComment: User-ID:\tann\nComment: Fingerprint:\t%b\n" % (b"A1B2C3D4E5" * 4)
        assert "PGP" in str(found(builder, begin + headers + body))
    finally:
        run("gpgconf", "--homedir", home, "--kill", "all")


# --- keys inside of something else ----------------------------------------------------------------

KEY = private_keys.EXAMPLE
WRAPPED = {
    "alone": KEY,
    "CRLF": KEY.replace("\n", "\r\n"),
    "in JSON": json.dumps({"type": "service_account", "private_key": KEY}),
    "twice in JSON": json.dumps(json.dumps({"private_key": KEY})),
    "in YAML": "key: |\n" + "".join(f"    {line}\n" for line in KEY.splitlines()),
    "in a shell script": "echo '" + KEY.replace("\n", "\\n") + "' > key",
    "in Python": "\n".join(f'    "{line}\\n"' for line in KEY.splitlines()),
    "added in a diff": "".join(f"+{line}\n" for line in KEY.splitlines()),
    "removed in a diff": "".join(f"-{line}\n" for line in KEY.splitlines()),
    "quoted mail": "".join(f"> {line}\n" for line in KEY.splitlines()),
    "in base64": "data: " + base64.b64encode(KEY.encode()).decode(),
    "in base64, in lines": "key: !!binary |\n" + base64.encodebytes(KEY.encode()).decode(),
    "behind a lot": "x" * 1_000_000 + KEY,
    "across a block": "x" * (256 * 1024 - 20) + KEY,
    "across a block, in the body": "x" * (256 * 1024 - 60) + KEY,
    "across a later block": "x" * (256 * 1024 * 3 - 8 * 1024 * 2 - 17) + KEY,
    "behind another mention": "-----BEGIN PRIVATE KEY-----\n...\n" * 1000 + KEY,
    "with entities": f"<key>{KEY.replace(chr(10), '&#10;')}</key>",
    "in XML": f"<PrivateKey>\n{KEY}</PrivateKey>",
    "with escaped slashes": json.dumps({"private_key": KEY}).replace("/", "\\/"),
    "with escaped code points": json.dumps({"private_key": KEY}).replace("\\n", "\\u000a"),
    "continued, in a shell script": KEY.rstrip("\n").replace("\n", "\\n\\\n"),
    "continued lines": KEY.replace("\n", "\\\n"),
    "in JavaScript": " +\n".join(f'  "{line}\\n"' for line in KEY.splitlines()),
    "commented out": "".join(f"// {line}\n" for line in KEY.splitlines()),
    "in UTF-16, little end first": ("\ufeff" + KEY).encode("utf-16-le").decode("latin-1"),
    "in UTF-16, big end first": ("\ufeff" + KEY).encode("utf-16-be").decode("latin-1"),
    "in UTF-16, without a mark": KEY.encode("utf-16-le").decode("latin-1"),
    "in UTF-16, big end first, without a mark": KEY.encode("utf-16-be").decode("latin-1"),
    "in UTF-32": ("\ufeff" + KEY).encode("utf-32-le").decode("latin-1"),
    "in a binary": "\x7fELF\0\0\0" + KEY + "\0",
    "of PGP, with a checksum": pem("PGP PRIVATE KEY BLOCK", "", base64.b64encode(
        b"\x94" + bytes(range(119))
    ).decode(), "=fTzV"),
}  # fmt: skip


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_a_key_inside_of_something(builder: Builder, content: str) -> None:
    """A key is found wherever it stands in a file."""
    assert found(builder, content.encode("latin-1")) is not None


START = "MIIEpAIBAAKCAQEA04up8hoqzS1+APIB0RhjXyObwHQnOzhAk5Bd7mhkSbPkyhP1"
MENTIONS = {
    "a placeholder": pem("RSA PRIVATE KEY", "..."),
    "words": pem("PRIVATE KEY", "insert the key that you got by mail here and nothing else, thank you"),
    "a format": "if line == '-----BEGIN PRIVATE KEY-----': parse_the_private_key_that_follows_in_base64()",
    "x's": pem("PRIVATE KEY", "X" * 64),
    "a start": pem("RSA PRIVATE KEY", START, "..."),
    "a start and an end": pem("RSA PRIVATE KEY", START, "[...]", "hkSb=="),
    "31 letters": pem("RSA PRIVATE KEY", "MIIEpAIBAAKCAQEA04up8hoqzS1APIB"),
    "an OpenSSH start": pem("OPENSSH PRIVATE KEY", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAA", "..."),
    "a PGP start": pem("PGP PRIVATE KEY BLOCK", "", "lQOYBF9Xx0sBCADEyn9h0CyVZpZ4pqXU", "..."),
    "AWS's own": KEY.replace("PVpezJp", "EXAMPLE").replace("Vpez", "EXAMPLE"),
    "repeated": pem("RSA PRIVATE KEY", *["MIIE" * 12] * 30),
    "words about OpenVPN": "-----BEGIN OpenVPN Static key V1-----\n...\n-----END OpenVPN Static key V1",
    "words about Nebula": pem("NEBULA X25519 PRIVATE KEY", "your key here, in base64, forty-four letters"),
    "x's about age": "AGE-SECRET-KEY-1" + "QQQQQQQQ" * 7 + "QQ",
    "words about PuTTY": "PuTTY-User-Key-File-3: ssh-rsa\n...\nPrivate-Lines: 8\n<base64>",
    "a public key": pem("PUBLIC KEY", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    "strings of a program": "-----BEGIN RSA PRIVATE KEY-----\0-----BEGIN EC PRIVATE KEY-----\0SSL_CTX_use_x",
    "a certificate request": pem("CERTIFICATE REQUEST", "MIIBfjCCASOgAwIBAgIUfaGiYvA8lj6zDJ5EGlR"),
    "empty JKS": "\xfe\xed\xfe\xed\0\0\0\2\0\0\0\0",
    "a smart card's key": "(20:shadowed-private-key(3:rsa",
    "words about age": "An identity starts with AGE-SECRET-KEY-1 and is kept secret.",
    "a public JSON Web Key": '{"e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWh","kty":"RSA"}',
    "a drawing": json.dumps({"d": "M10" * 20, "x": "1"}),
    "another public one": '{"crv":"P-256","x":"WKn-ZIGevcwGIyyrzFoZNBdaq9_TsqzGl96oc0CWuis","kty":"EC"}',
    "an OpenPGP public key": "\xc6\xc0\x10\x04\x65\0\0\0\x16\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01",
    "Latin-1": "\xc5ngstr\xf6m and \x94quoted\x94",
    "digits": "00000000000000000000000000",
}  # fmt: skip


@pytest.mark.parametrize("content", MENTIONS.values(), ids=MENTIONS)
def test_a_mention_is_no_key(builder: Builder, content: str) -> None:
    """Documentation, programs and empty forms are left in peace."""
    assert found(builder, content.encode("latin-1")) is None


def test_firstkeys_own_code_is_no_leak(builder: Builder) -> None:
    """An image with firstkey in it, outside of any package and compiled too, is clean of what it finds."""
    agent = Path(__file__).parents[2] / "agent"
    shutil.copytree(agent, builder.path("/opt/firstkey"))
    run("python3", "-m", "compileall", "-q", builder.path("/opt/firstkey"))
    image = builder.image()
    for kind in (key_formats.KIND, key_formats.STORE, "access-key"):
        assert image.sightings(kind) == ()


def zipped(content: bytes) -> bytes:
    """A zip file with that in its second member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("first", "nothing")
        archive.writestr("dir/second", content)
    return file.getvalue()


def tarred(*contents: bytes) -> bytes:
    """A compressed tar file with that in it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for content in contents:
            member = tarfile.TarInfo("home/ann/.ssh/id")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def plain_tar(*contents: bytes) -> bytes:
    """The same, not compressed."""
    return gzip.decompress(tarred(*contents))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip, twice": lambda content: gzip.compress(b"x" * 100_000) + gzip.compress(content),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "tar.gz": tarred,
    "tar": plain_tar,
    "behind a lot": lambda content: gzip.compress(b"x" * 1_000_000 + content),
    "gzip of gzip": lambda content: gzip.compress(gzip.compress(content)),
    "zip in tar": lambda content: plain_tar(zipped(content)),
    "zip in gzip": lambda content: gzip.compress(zipped(content)),
    "tar.gz in zip": lambda content: zipped(tarred(content)),
    "xz in zip in tar.gz": lambda content: tarred(zipped(lzma.compress(content))),
    "gzip in tar in tar": lambda content: plain_tar(plain_tar(gzip.compress(content))),
    "gzip in tar in zip": lambda content: zipped(plain_tar(gzip.compress(content))),
    "gzip in tar behind tar": lambda content: plain_tar(b"x") + plain_tar(gzip.compress(content)),
    "gzip in tar, behind a broken one": lambda content: tarred(b"\x1f\x8b\x08", gzip.compress(content)),
    "UTF-16 in zip": lambda content: zipped(content.decode("latin-1").encode("utf-16")),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_key_in_a_compressed_file(builder: Builder, pack: Callable[[bytes], bytes]) -> None:
    """Backups are compressed more often than not."""
    assert found(builder, pack(KEY.encode()), "/root/backup") is not None
    assert found(builder, pack(b"nothing"), "/root/backup") is None


def test_a_key_in_an_archive_is_one_finding(builder: Builder) -> None:
    """Also where it is there a second time, in a packed file: the line is that of the first."""
    builder.file("/root/a.tar", plain_tar(KEY.encode(), gzip.compress(KEY.encode())))
    builder.file("/root/b", KEY)
    seen = builder.image().sightings(key_formats.KIND)
    assert [(each.path, each.line is None) for each in seen] == [("/root/a.tar", False), ("/root/b", False)]


def test_an_archive_hides_nothing_of_the_next_file(builder: Builder) -> None:
    """Files and links that are looked at after it, and are found by their names as it is."""
    builder.file("/srv/authorized_keys", plain_tar(KEY.encode(), gzip.compress(KEY.encode())))
    builder.link("/srv/authorized_keys2", "/root/b")
    builder.file("/srv/next/authorized_keys", "x")
    paths = [seen.path for seen in builder.image().sightings(authorized_keys.KIND)]
    assert paths == ["/srv/authorized_keys", "/srv/authorized_keys2", "/srv/next/authorized_keys"]


ARCHIVERS = {
    name: pack
    for name, pack in PACKERS.items()
    if name not in ("gzip, twice", "behind a lot", "UTF-16 in zip")
}


@pytest.mark.parametrize("pack", ARCHIVERS.values(), ids=ARCHIVERS)
@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
@pytest.mark.sample(6)
def test_other_keys_in_a_compressed_file(
    builder: Builder, pack: Callable[[bytes], bytes], content: bytes
) -> None:
    """Those that are known by how their file starts are known in an archive too."""
    assert found(builder, pack(content), "/root/backup") is not None


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_broken_compressed_file(builder: Builder, pack: Callable[[bytes], bytes]) -> None:
    """Cut off or spoilt anywhere, it is passed by without an error."""
    whole = pack(os.urandom(3000))
    for spoilt in (whole[:20], whole[: len(whole) // 2], whole[:100] + os.urandom(50) + whole[150:]):
        assert found(builder, spoilt, "/root/backup") is None


@pytest.mark.slow
def test_a_bomb_is_defused(builder: Builder) -> None:
    """A small file that unpacks to gigabytes costs a bounded part of it, and is told."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(1 << 20)
    builder.file("/root/bomb.gz", b"".join(deflate.compress(megabyte) for _ in range(300)) + deflate.flush())
    assert builder.path("/root/bomb.gz").stat().st_size < 400_000
    (unknown,) = verdict_of(rules.by_id("everything-seen"), builder.image()).unknowns
    assert unknown.refusal.detail == "/root/bomb.gz has more in it than was unpacked"


# --- the system's own -----------------------------------------------------------------------------


@needs_openssl
@pytest.mark.parametrize("kind", ["rsa:1024", "ec"])
def test_snake_oil_is_told_from_a_real_key(builder: Builder, tmp_path: Path, kind: str) -> None:
    """What ssl-cert made is known by its certificate; a real key in its place is a finding."""
    options = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else []
    argv = ["openssl", "req", "-x509", "-newkey", kind, *options, "-nodes", "-subj", "/CN=host"]
    run(*argv, "-keyout", tmp_path / "a.key", "-out", tmp_path / "a.pem")
    run(*argv, "-keyout", tmp_path / "b.key", "-out", tmp_path / "b.pem")
    key, certificate = "/etc/ssl/private/ssl-cert-snakeoil.key", "/etc/ssl/certs/ssl-cert-snakeoil.pem"
    builder.file(certificate, (tmp_path / "a.pem").read_bytes())
    assert found(builder, (tmp_path / "a.key").read_bytes(), key) is None
    assert found(builder, (tmp_path / "b.key").read_bytes(), key) is not None


def test_broken_certificates_prove_nothing() -> None:
    """Whatever stands where a certificate should be, the answer is no, and not an error."""
    for content in (
        b"",
        b"x",
        pem("CERTIFICATE", "AAAA").encode(),
        pem("CERTIFICATE", "MIIBfjCCASOgAw").encode(),
    ):
        assert not private_keys.is_self_signed_pair(content, KEY.encode())
