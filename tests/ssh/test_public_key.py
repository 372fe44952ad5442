"""Public keys: taken where OpenSSH takes them, and the same keys as OpenSSH sees."""

from __future__ import annotations

import hashlib
import random
import subprocess
from base64 import b64encode
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from firstkey import reasons
from firstkey.boot import launch_keys
from firstkey.model import OfferedKey
from firstkey.ssh.public_key import (
    JUDGED_HERE,
    SIZE_LIMIT,
    PublicKey,
    parse_launch_key,
    read_host_key,
    read_key,
)

pytestmark = pytest.mark.sshd  # ssh-keygen makes the keys

KINDS = ("ed25519", "rsa", "ecdsa256", "ecdsa384", "ecdsa521", "ed25519-sk", "ecdsa-sk")
WORDS = (
    b"ssh-ed25519",
    b"ssh-rsa",
    b"rsa-sha2-256",
    b"ssh-dss",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"ssh-ed25519-cert-v01@openssh.com",
    b"SSH-RSA",
    b"rsa",
    b"",
)
EXAMPLES = settings(
    max_examples=3 * settings().max_examples // 2, suppress_health_check=[HealthCheck.too_slow]
)

# Where firstkey refuses on purpose what ssh-keygen prints, by the sentence that says so. There is
# no other difference but data of which OpenSSH makes another key, and RSA keys that prove nothing.
STRICTER = {
    "options, certificates, DSA": "it does not begin with a type of key that sshd takes for a login",
    "several lines, control characters": "it has a second line or a control character",
    "size": "no public key is longer",
}

Ask = Callable[[bytes], list[Any]]
Make = Callable[..., bytes]


def refused(text: bytes) -> str | None:
    """The sentence with which a text is refused, or None."""
    (judged,) = launch_keys.judge([OfferedKey("0", "", text)])[1]
    if judged.refusal is None or judged.refusal.reason is reasons.NOT_A_PUBLIC_KEY:
        return judged.refusal and judged.refusal.detail
    return f"WRONG REASON {judged.refusal.reason}"


def must_agree(text: bytes, ask: Ask) -> None:
    """Fail unless firstkey and ssh-keygen see the same, but for what STRICTER lists."""
    sentence, seen = refused(text), ask(text)
    if sentence is None:
        key = parse_launch_key(text)
        assert [(key.bits, key.fingerprint)] == seen
        assert ask(key.line.encode("utf-8", "surrogateescape")) == seen, "what is written is the same key"
    elif seen and not any(known in sentence for known in STRICTER.values()):
        assert is_data_of_another_key(text, seen) or exponent(text) in (0, 1, 2), sentence


def is_data_of_another_key(text: bytes, seen: list[Any]) -> bool:
    """Whether OpenSSH prints another key than the data's: its application up to a NUL."""
    if not text.startswith(b"sk-"):
        return False
    digest = hashlib.sha256(a2b_base64(text.split()[1])).digest()
    return [found.fingerprint for found in seen] != ["SHA256:" + b64encode(digest).decode().rstrip("=")]


def exponent(text: bytes) -> int | None:
    """The exponent of an RSA key."""
    blob = a2b_base64(text.split()[1])
    is_rsa = blob[4:11] == b"ssh-rsa"
    return int.from_bytes(blob[15 : 15 + int.from_bytes(blob[11:15], "big")], "big") if is_rsa else None


# --- agreement with ssh-keygen --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_the_key_that_ssh_keygen_prints(
    kind: str, lines: dict[str, bytes], ssh_keygen: Ask
) -> None:
    """Type, size and fingerprint are OpenSSH's own, and a proper line is written as it was read."""
    key = parse_launch_key(lines[kind])
    assert [(key.bits, key.fingerprint)] == ssh_keygen(lines[kind])
    assert key.line.encode() + b"\n" == lines[kind]
    assert key.short_type == {"ecdsa256": "ecdsa", "ecdsa384": "ecdsa", "ecdsa521": "ecdsa"}.get(kind, kind)


@EXAMPLES
@given(data=st.data())
@pytest.mark.slow
def test_damaged_data_is_judged_as_ssh_keygen_does(
    data: st.DataObject, lines: dict[str, bytes], ssh_keygen: Ask
) -> None:
    """A flipped byte, a cut or an addition anywhere in the data: nothing is taken that OpenSSH refuses."""
    word, base64, comment = lines[data.draw(st.sampled_from(KINDS))].split(b" ", 2)
    blob = bytearray(a2b_base64(base64))
    for _ in range(data.draw(st.integers(0, 2))):
        # Most of what can go wrong is at the beginning, where types, lengths and signs are.
        at = data.draw(st.one_of(st.integers(0, min(60, len(blob) - 1)), st.integers(0, len(blob) - 1)))
        blob[at] = data.draw(st.one_of(st.sampled_from([0, 1, 4, 127, 128, 255]), st.integers(0, 255)))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(blob))))
    blob = blob[:cut] + data.draw(st.sampled_from([b"", b"", b"", b"\0", b"\0\0\0\0", b"\0\0\0\1x"]))
    must_agree(b" ".join((word, b2a_base64(blob, newline=False), comment)), ssh_keygen)


@EXAMPLES
@given(data=st.data())
@pytest.mark.slow
def test_damaged_text_is_judged_as_ssh_keygen_does(
    data: st.DataObject, lines: dict[str, bytes], ssh_keygen: Ask
) -> None:
    """Another type, another byte, blanks, options and comments: nothing is taken that OpenSSH refuses."""
    word, base64, comment = lines[data.draw(st.sampled_from(KINDS))].rstrip(b"\n").split(b" ", 2)
    blank = st.text(" \t", min_size=1, max_size=3).map(str.encode)
    text = b"".join(
        (
            data.draw(
                st.sampled_from(
                    [
                        b"",
                        b"",
                        b"",
                        b" ",
                        b"\t",
                        b"\n",
                        b"no-pty ",
                        b'command="a b" ',
                        b"12 ",
                        b"\xef\xbb\xbf",
                    ]
                )
            ),
            data.draw(st.one_of(st.just(word), st.just(word), st.sampled_from(WORDS))),
            data.draw(blank),
            base64,
            data.draw(st.sampled_from([b"", b"=", b"==", b"A", b"\r"])),
            data.draw(blank),
            data.draw(st.one_of(st.just(comment), st.binary(max_size=8))),
            data.draw(st.sampled_from([b"\n", b"\r\n", b"", b"\n\n", b" \n"])),
        )
    )
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = (
            text[:at]
            + data.draw(st.one_of(st.sampled_from([b"\n", b"-", b"=", b" "]), st.binary(max_size=2)))
            + text[at + 1 :]
        )
    must_agree(text, ssh_keygen)


def number(value: int, zeros: int = 0) -> bytes:
    """An mpint (RFC 4251, 5), with as many needless zeros before it."""
    return b"\0" * zeros + value.to_bytes(value.bit_length() // 8 + 1, "big")


@EXAMPLES
@given(
    bits=st.sampled_from([1, 1023, 1024, 1025, 2048, 3071, 4096, 16383, 16384, 16385, 16392]),
    seed=st.integers(0, 2**32),
    exponent=st.sampled_from([0, 1, 2, 3, 35, 65537, 2**64 + 1, 2**1030 + 1]),
    zeros=st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (0, 7), (3, 3)]),
)
@example(bits=16384, seed=0, exponent=65537, zeros=(0, 1))
@example(bits=16384, seed=0, exponent=65537, zeros=(0, 0))
@example(bits=1024, seed=0, exponent=3, zeros=(1, 1))
@pytest.mark.slow
def test_rsa_numbers_are_judged_as_ssh_keygen_does(
    bits: int, seed: int, exponent: int, zeros: tuple[int, int], make_line: Make, ssh_keygen: Ask
) -> None:
    """Sizes around OpenSSH's limits and needless zeros: taken or not as OpenSSH does, and the same key."""
    modulus = random.Random(seed).getrandbits(bits) | 1 << (bits - 1) | 1
    must_agree(make_line("ssh-rsa", number(exponent, zeros[0]), number(modulus, zeros[1])), ssh_keygen)


def test_a_point_beside_its_curve_costs_nobody_else_the_login(
    make_line: Make, ssh_keygen: Ask, lines: dict[str, bytes], key_files: dict[str, Path], sshd: Any
) -> None:
    """Without ssh-keygen, it is installed: sshd passes over such a line, and reads the next."""
    text = make_line("ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"p" * 64)
    assert ssh_keygen(text) == []
    assert parse_launch_key(text)
    file = sshd.directory / "authorized_keys"
    file.write_bytes(text + lines["ed25519"])
    let_in, log = sshd.login(key_files["ed25519"], patterns=file)
    assert let_in, log


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("ssh-ed25519", ()),
        ("ssh-ed25519", (b"k" * 31,)),
        ("ssh-ed25519", (b"k" * 33,)),
        ("ssh-ed25519", (b"k" * 32, b"")),
        ("ssh-rsa", (b"\1\0\1",)),
        ("ssh-rsa", (b"\1\0\1", b"\x80" + b"n" * 255)),
        ("ssh-rsa", (b"\x81", b"n" * 256)),
        ("ecdsa-sha2-nistp256", (b"nistp384", b"\4" + b"p" * 96)),
        ("ecdsa-sha2-nistp256", (b"nistp256", b"")),
        ("ecdsa-sha2-nistp256", (b"nistp256", b"\2" + b"p" * 64)),
        ("ecdsa-sha2-nistp256", (b"nistp256", b"\0")),
        ("ecdsa-sha2-nistp256", (b"nistp224", b"\4" + b"p" * 56)),
        ("sk-ssh-ed25519@openssh.com", (b"k" * 32,)),
        ("sk-ssh-ed25519@openssh.com", (b"k" * 32, b"a\0b")),
        ("sk-ssh-ed25519@openssh.com", (b"k" * 32, b"ssh:", b"more")),
        ("ssh-unknown", (b"k" * 32,)),
    ],
)
def test_malformed_keys_are_refused_as_by_ssh_keygen(
    kind: str, fields: tuple[bytes, ...], make_line: Make, ssh_keygen: Ask
) -> None:
    """What is no key of its type is refused, and not only here."""
    text = make_line(kind, *fields)
    assert ssh_keygen(text) == []
    assert refused(text)
    read = read_key(text)
    assert read is None or read.type not in JUDGED_HERE


# --- where firstkey is stricter -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda line: b"no-pty " + line, "does not begin with a type"),
        (lambda line: b'command="a \\" b",no-pty ' + line, "does not begin with a type"),
        (lambda line: b"host.example " + line, "does not begin with a type"),
        (lambda line: line + line, "second line"),
        (lambda line: b"# mine\n" + line, "but with '# mine'"),
        (lambda line: line[:-1] + b"\x1b]0;title\x07\n", "control character"),
        (lambda line: line[:-1] + b"\0\n", "control character"),
        (lambda line: line[:-1] + b"\0ssh-rsa\n", "control character"),
        (lambda line: line[:-1] + b"\rssh-rsa AAAA\n", "control character"),
        (lambda line: line[:-1] + "\x9b2J\n".encode(), "control character"),
        (lambda line: line[:-1] + b"\ttab\n", "control character"),
        (lambda line: line[:-30] + b"\v" + line[-30:], "control character"),
        (lambda line: line.replace(b"AAAA", b"AA\r\fAA", 1), "control character"),
        (lambda line: line[:-1] + b"x" * SIZE_LIMIT, "no public key is longer"),
    ],
)
@pytest.mark.sample(4)
def test_what_ssh_keygen_takes_and_a_launch_key_must_not_have(
    change: Callable[[bytes], bytes], sentence: str, kind: str, lines: dict[str, bytes], ssh_keygen: Ask
) -> None:
    """Each deliberate difference to ssh-keygen is one on purpose, and says what it is."""
    text = change(lines[kind])
    # From OpenSSH 10 on, no byte of these may stand within a key for ssh-keygen either.
    assert ssh_keygen(text) or b"AA\r\f" in text, "no difference any more: take it off the list"
    assert sentence in str(refused(text))


def test_a_certificate_is_not_a_launch_key(
    lines: dict[str, bytes], key_files: dict[str, Path], tmp_path: Path
) -> None:
    """Nobody gets in for a certificate in authorized_keys, so it would only look as if it worked."""
    subject = tmp_path / "subject.pub"
    subject.write_bytes(lines["ed25519"])
    command = ["ssh-keygen", "-q", "-s", str(key_files["ecdsa256"]), "-I", "id", "-n", "me", str(subject)]
    subprocess.run(command, check=True)
    certificate = (tmp_path / "subject-cert.pub").read_bytes()
    assert "ssh-ed25519-cert-v01@openssh.com" in str(refused(certificate))
    assert read_key(certificate) is None


def test_a_dsa_key_is_no_launch_key_but_a_host_key(make_line: Make) -> None:
    """Nobody gets in with DSA any more; an old host key is shown as what it is."""
    text = make_line("ssh-dss", number(2**1023 + 1), number(2**159 + 1), number(3), number(5))
    assert "but with 'ssh-dss" in str(refused(text))
    assert read_key(text) is None
    key = read_host_key(text)
    assert key is not None
    assert (key.short_type, key.bits) == ("dsa", 1024)


def test_an_rsa_key_that_anybody_can_sign_for_is_refused(make_line: Make, ssh_keygen: Ask) -> None:
    """With the exponent 1, the public key is all that a forger needs; ssh-keygen does not look."""
    text = make_line("ssh-rsa", b"\1", number(2**2047 + 1))
    assert ssh_keygen(text)
    assert "not the data of an ssh-rsa key" in str(refused(text))


# --- the line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [(b"", b""), (b"\n\n", b"\n\n"), (b" \t", b" \t"), (b"\r\n", b"\r\n")])
def test_blanks_around_a_key_count_for_nothing(around: tuple[bytes, bytes], lines: dict[str, bytes]) -> None:
    """A good key is not refused for an empty line or a line ending from elsewhere, and is written without."""
    line = lines["ed25519"].rstrip(b"\n")
    assert parse_launch_key(around[0] + line + around[1]).line.encode() == line


def test_blanks_between_the_words_become_single_spaces(lines: dict[str, bytes]) -> None:
    """What is written has one form, whatever form was read."""
    word, data, comment = lines["rsa"].rstrip(b"\n").split(b" ", 2)
    assert parse_launch_key(word + b" \t " + data + b"\t\t" + comment).line.encode() == lines["rsa"].rstrip(
        b"\n"
    )


def test_a_key_without_a_comment_has_none(lines: dict[str, bytes]) -> None:
    """No comment is no comment, and no blank at the end."""
    bare = b" ".join(lines["rsa"].split()[:2])
    key = parse_launch_key(bare + b" \n")
    assert key.comment == ""
    assert key.line.encode() == bare


@pytest.mark.parametrize(
    "comment", ["Jürgen's key 🔑".encode(), b"J\xfcrgen", b"# not a comment", b"a  b", b'"']
)
def test_comments_come_through_byte_for_byte(comment: bytes, lines: dict[str, bytes]) -> None:
    """A comment is the person's own, in whatever encoding, and no reason to refuse the key."""
    line = b" ".join(lines["rsa"].split()[:2]) + b" " + comment
    assert parse_launch_key(line + b"\n").line.encode("utf-8", "surrogateescape") == line


def test_the_name_of_a_signature_stands_for_its_type(lines: dict[str, bytes], ssh_keygen: Ask) -> None:
    """OpenSSH takes rsa-sha2-256 for ssh-rsa at the beginning of a line; it is the same key."""
    text = b"rsa-sha2-256" + lines["rsa"][len(b"ssh-rsa") :]
    assert ssh_keygen(text) == ssh_keygen(lines["rsa"])
    assert parse_launch_key(text) == parse_launch_key(lines["rsa"])


@pytest.mark.parametrize(
    "text, sentence",
    [
        (b"", "but with ''"),
        (b" \r\n\n", "but with ''"),
        (b"<!DOCTYPE html>\n<html><head><title>502</title>", "<!DOCTYPE html>"),
        (b'<?xml version="1.0" encoding="iso-8859-1"?>\n<Error/>', "<?xml"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "PRIVATE KEY"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n", "PRIVATE KEY"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\nc2VjcmV0\n", "PuTTY-User-Key"),
        (b"-----BEGIN PUBLIC KEY-----\nc2VjcmV0\n", "PUBLIC KEY"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nc2VjcmV0\n", "PUBLIC KEY"),
        (b"404 - Not Found", "404 - Not Found"),
        (b"ssh-ed25519", "cut off"),
        (b"ssh-ed25519 \n", "cut off"),
        (b"ssh-ed25519 not/base64!", "not the data"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI", "cut off"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "cut off"),
        (b"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==", "cut off"),
    ],
)
def test_what_is_no_key_at_all_gets_a_sentence_of_its_own(text: bytes, sentence: str) -> None:
    """Somebody who reads the journal learns what the metadata service handed out in place of a key."""
    message = refused(text)
    assert sentence in str(message)
    assert "c2VjcmV0" not in str(message)


@settings(max_examples=3 * settings().max_examples)
@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"ssh-ed25519 AAAA" + tail))
)
@example(b"\x1b[31m" * 40)
@example(b"<" + b"\xff\x00\x9b" * 100)
@example("\u202egnp.exe \u2028".encode() * 5)
def test_a_refusal_can_be_printed(text: bytes) -> None:
    """Whatever stands there, the sentence is short and plain ASCII: nothing in it acts on a terminal."""
    message = refused(text)
    assert message is not None
    assert not message.startswith("WRONG")
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250


def test_the_largest_key_fits(make_line: Make) -> None:
    """The limit on the size refuses no key."""
    assert parse_launch_key(make_line("ssh-rsa", number(65537), number(2**16384 - 1))).bits == 16384


# --- lines of a file ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_a_file_are_read_as_the_same_keys(kind: str, lines: dict[str, bytes]) -> None:
    """What is installed is found again."""
    assert read_key(lines[kind]) == parse_launch_key(lines[kind])


def test_a_line_may_hold_what_a_launch_key_must_not(lines: dict[str, bytes]) -> None:
    """As sshd reads past control characters in a comment and line endings in the data, the key is seen."""
    word, data, comment = lines["rsa"].split(b" ", 2)
    key = parse_launch_key(lines["rsa"])
    for line in (
        word + b" " + data + b"\r\n",
        word + b" " + data[:9] + b"\v" + data[9:] + b" \x1b" + comment,
    ):
        found = read_key(line)
        assert found is not None
        assert found.blob == key.blob


def test_a_key_is_a_plain_value() -> None:
    """Two keys with the same type, data and comment are the same key, and can be told apart by each."""
    key = PublicKey("ssh-ed25519", b"data", "me")
    assert key == PublicKey("ssh-ed25519", b"data", "me")
    assert len({key, key._replace(comment="you"), key._replace(blob=b"other")}) == 3
