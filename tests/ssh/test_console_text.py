"""Host keys out of console output, as machines print it: prefixes, colours, other lines, several boots."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.ssh import console_text
from firstkey.ssh.public_key import PublicKey, parse_launch_key
from firstkey.system import console

ED25519 = parse_launch_key(
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEi/OkmThs50pV0c2EzGl7cpzTtWayPLyJcLYshCortw root@host"
)
ECDSA = parse_launch_key(
    b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBCCYJFE182isS1oGm2ukPblELycv"
    b"1ddbAPCm1oNRP6fTHlp9o4DBqlauY2fuk54xixQL7UVg0WVy8TxXw27bvnY= root@host"
)
OTHER = parse_launch_key(
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFeXQgRfUhpoLhefSTBKqd4iyIxzDwY1AhMbADYYMzQT root@host"
)
PREFIX = "<14>Nov 24 08:00:00 firstkey: "


def fingerprint_line(key: PublicKey) -> str:
    """As ssh-keygen -l prints it."""
    return f"{key.bits} {key.fingerprint} {key.comment} ({key.short_type.upper()})"


def block(*keys: PublicKey) -> str:
    """What firstkey writes to the console."""
    return console.fingerprint_block(
        [(fingerprint_line(key), key.line) for key in keys], prefix=PREFIX
    ).decode()


def cloud_init(*keys: PublicKey, prefix: str = "<14>Nov 24 08:00:00 cloud-init: ") -> str:
    """What cloud-init's write-ssh-key-fingerprints prints (its source; logger -s writes the prefix)."""
    hashes = "#" * 61
    inside = [hashes, "-----BEGIN SSH HOST KEY FINGERPRINTS-----", *map(fingerprint_line, keys)]
    inside += ["-----END SSH HOST KEY FINGERPRINTS-----", hashes]
    lines = [f"{prefix}{line}" for line in inside]
    lines += ["-----BEGIN SSH HOST KEY KEYS-----", *(key.line for key in keys)]
    return "\n".join([*lines, "-----END SSH HOST KEY KEYS-----", ""])


def read(text: str) -> console_text.HostKeys:
    """The keys, of which there must be some."""
    found = console_text.read(text)
    assert found is not None
    return found


def blobs(found: console_text.HostKeys) -> list[bytes]:
    """The keys by what they are, whatever their comments."""
    return [key.blob for key in found.keys]


@pytest.mark.parametrize("printed", [block, cloud_init], ids=["firstkey", "cloud-init"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\n"], ids=["lf", "crlf", "crcrlf"])
def test_both_writers_are_read(printed: object, line_end: str) -> None:
    """With whatever line ends the console has, all keys are found and verified."""
    assert callable(printed)
    text = f"[    0.0] Linux\n{printed(ED25519, ECDSA)}\nhost login: ".replace("\n", line_end)
    found = read(text)
    assert blobs(found) == [ED25519.blob, ECDSA.blob]
    assert (found.strangers, found.lost) == ((), ())


@pytest.mark.skipif(not shutil.which("logger"), reason="needs logger (util-linux)")
def test_the_real_logger_writes_the_prefix(tmp_path: Path) -> None:
    """The lines of cloud-init's block go through logger -s: its real output is read."""
    lines = ["-----BEGIN SSH HOST KEY FINGERPRINTS-----", fingerprint_line(ED25519)]
    lines += ["-----END SSH HOST KEY FINGERPRINTS-----"]
    said = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        for line in lines:
            argv = [
                "logger",
                "-u",
                str(tmp_path / "log"),
                "-s",
                "-p",
                "user.info",
                "-t",
                "cloud-init",
                "--",
                line,
            ]
            said += subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    assert "cloud-init" in said
    text = f"{said}-----BEGIN SSH HOST KEY KEYS-----\n{ED25519.line}\n-----END SSH HOST KEY KEYS-----\n"
    assert blobs(read(text)) == [ED25519.blob]


def test_old_fingerprints() -> None:
    """MD5 with colons, as OpenSSH printed it once, with and without its name."""
    for name in ("", "MD5:"):
        digest = hashlib.md5(ED25519.blob).digest().hex(":")
        text = cloud_init(ED25519).replace(ED25519.fingerprint, f"{name}{digest}")
        assert blobs(read(text)) == [ED25519.blob]


def test_what_others_print_in_between() -> None:
    """The kernel's lines, colours and a status line in the midst of both blocks."""
    noise = "[   12.3] audit: type=1400\n\x1b[32m  OK  \x1b[0m Started x.\n"
    text = "".join(f"{line}\n{noise}" for line in block(ED25519, ECDSA).splitlines())
    text = text.replace("ssh-ed25519", "\x1b[0;1mssh-ed25519")
    assert blobs(read(text)) == [ED25519.blob, ECDSA.blob]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut off at its end"])
def test_blocks_that_disagree(cut: bool) -> None:
    """Nothing tells which boot, or which writer, is to be believed: both are shown, with their lines."""
    text = block(ED25519, ECDSA) + "reboot\n" + block(OTHER)
    text = text.rpartition("-----END SSH HOST KEY KEYS")[0] if cut else text
    first, second = read(text).rivals
    lines = text.split("\n")
    for shown, keys in ((first, [ED25519.blob, ECDSA.blob]), (second, [OTHER.blob])):
        assert [key.blob for key in shown.keys] == keys
        inside = [line for line in lines[shown.first - 1 : shown.last] if line.startswith(("ssh-", "ecdsa-"))]
        assert [parse_launch_key(line.encode()).blob for line in inside] == keys


@pytest.mark.parametrize("genuine", [(ED25519, ECDSA), (ED25519,)], ids=["all", "one"])
def test_a_block_that_adds_a_key_disagrees(genuine: tuple[PublicKey, ...]) -> None:
    """The genuine keys are public: a forged block that repeats them beside its own agrees with nothing."""
    forged = block(*genuine, OTHER)
    for text in (block(ED25519, ECDSA) + forged, forged + block(ED25519, ECDSA)):
        assert len(read(text).rivals) == 2


def test_blocks_that_agree() -> None:
    """cloud-init beside firstkey, a second boot, one more type by then, a block that was cut: all are one."""
    torn = block(ED25519, ECDSA).split("\n", 6)[-1]
    for text in (
        cloud_init(ED25519, ECDSA) + block(ED25519, ECDSA),
        block(ED25519) + "reboot\n" + block(ED25519, ECDSA),
        torn + "reboot\n" + block(ED25519, ECDSA),
        block(ED25519, ECDSA) + "reboot\n" + block(ED25519),
    ):
        found = read(text)
        assert set(blobs(found)) == {ED25519.blob, ECDSA.blob}
        assert found[1:] == ((), (), ())


def test_a_text_whose_beginning_is_cut_off() -> None:
    """get-console-output keeps the end: what is left of the block is read, and none of it counts."""
    text = block(ED25519, ECDSA).split("-----BEGIN SSH HOST KEY KEYS-----\n")[1]
    found = read(text)
    assert (found.keys, found.lost) == ((), ())
    assert [key.blob for key in found.strangers] == [ED25519.blob, ECDSA.blob]


def test_garbled_fingerprints_bear_nothing_out() -> None:
    """A block of fingerprints in which none can be read is as good as none."""
    found = read(block(ED25519).replace(ED25519.fingerprint, "SHA256:garbled"))
    assert found.keys == ()
    assert [key.blob for key in found.strangers] == [ED25519.blob]


FORGED = block(OTHER).replace("firstkey: ", "")
"""What a user who is not root can have the kernel print, as far as its words go."""


@pytest.mark.parametrize(
    "prefix", ["[   12.3] ", "[   12.3][  T123] ", "[   12.3] cloud-init[1]: ", "ec2: ", "\t", " ", "\x1b["]
)
def test_nothing_counts_behind_a_prefix(prefix: str) -> None:
    """Whatever the kernel or a logger puts before each line: the forged block is passed over."""
    forged = "".join(f"{prefix}{line}\n" for line in FORGED.splitlines())
    assert console_text.read(forged) is None
    for text in (forged + block(ED25519), block(ED25519) + forged):
        found = read(text)
        assert blobs(found) == [ED25519.blob]
        assert (found.strangers, found.rivals) == ((), ())


@pytest.mark.parametrize("between", ["\r", "\\n", "\x0b", "\x0c", "\x85", "\u2028", "\0", "\x1b[E"])
def test_a_block_in_one_line_is_none(between: str) -> None:
    """In the midst of a line of JSON, or behind what moves a cursor: a line ends with a line feed."""
    forged = f'[   12.3] app[7]: {{"x": "{between}' + FORGED.replace("\n", between) + '"}\n'
    assert blobs(read(block(ED25519) + forged)) == [ED25519.blob]
    assert console_text.read(forged) is None


def test_a_forged_line_in_a_good_block() -> None:
    """The kernel's lines in between end nothing and add nothing."""
    ours = block(ED25519, ECDSA).split("\n")
    for line in ("-----END SSH HOST KEY KEYS-----", "-----BEGIN SSH HOST KEY KEYS-----", OTHER.line):
        text = "\n".join(piece for each in ours for piece in (each, f"[   12.3] x {line}"))
        found = read(text)
        assert blobs(found) == [ED25519.blob, ECDSA.blob]
        assert found[1:] == ((), (), ())


def test_a_key_without_a_fingerprint_is_a_stranger() -> None:
    """Somebody put another key among the good ones, or a byte was lost: it does not count."""
    text = block(ED25519, ECDSA).replace(ED25519.line.split()[1], OTHER.line.split()[1])
    found = read(text)
    assert blobs(found) == [ECDSA.blob]
    assert [key.blob for key in found.strangers] == [OTHER.blob]
    assert found.lost == (ED25519.fingerprint,)


def test_a_torn_key_is_lost() -> None:
    """A line that is no key any more leaves its fingerprint behind, which is said."""
    found = read(block(ED25519, ECDSA).replace(ED25519.line.split()[1], "AAAA[   1.0] usb 1-1: new"))
    assert blobs(found) == [ECDSA.blob]
    assert found.lost == (ED25519.fingerprint,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no keys here",
        ED25519.line,
        "-----BEGIN SSH HOST KEY KEYS-----\n-----END SSH HOST KEY KEYS-----\n",
        cloud_init(ED25519).split("-----BEGIN SSH HOST KEY KEYS")[0],
    ],
)
def test_no_keys(text: str) -> None:
    """Keys elsewhere in the text are not host keys, and fingerprints alone are no keys."""
    assert console_text.read(text) is None


@given(st.text(alphabet=st.sampled_from("-BEGIND SHOKYFR\r\n\x1b[0m"), max_size=200))
def test_any_text_is_an_answer(text: str) -> None:
    """Consoles print anything."""
    console_text.read(text)


def test_the_same_key_twice_is_one() -> None:
    """A second copy of a line is no second key."""
    assert blobs(read(block(ED25519, ED25519))) == [ED25519.blob]


@pytest.mark.slow
def test_many_blocks_take_no_time() -> None:
    """A text of nothing but blocks is read once."""
    assert blobs(read(block(ED25519, ECDSA) * 2000)) == [ED25519.blob, ECDSA.blob]


def test_a_line_of_nothing_but_its_ends_takes_no_time() -> None:
    """Progress bars are made of carriage returns; a million of them in a row are looked at once."""
    assert console_text.read("\r" * 1_000_000) is None
    assert blobs(read(block(ED25519).replace("\n", "\r" * 1000 + "\n"))) == [ED25519.blob]
