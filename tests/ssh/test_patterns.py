"""sshd's patterns: what they fit, and what depends on a client that is not known."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.ssh.access import BadPattern, Client, host_matches, matches, matches_list, user_matches

HERE = Client("192.0.2.7", "Host.Example.com")


@pytest.mark.parametrize(
    "text,pattern,fits",
    [
        ("alice", "alice", True),
        ("alice", "Alice", False),
        ("alice", "al*", True),
        ("alice", "*ce", True),
        ("alice", "a*i*e", True),
        ("alice", "a?ice", True),
        ("alice", "alice?", False),
        ("alice", "", False),
        ("", "*", True),
        ("", "**", True),
        ("a", "*a*a", False),
        ("a[b]", "a[b]", True),
        ("ab", "a[b]", False),
        ("a\nb", "a*b", True),
    ],
)
def test_wildcards(text: str, pattern: str, fits: bool) -> None:
    """Only * and ? mean more than themselves, and the whole text has to fit."""
    assert matches(text, pattern) is fits


@given(text=st.text("ab", max_size=8), pattern=st.text("ab*?", max_size=8))
def test_wildcards_agree_with_the_shells(text: str, pattern: str) -> None:
    """Where there are no brackets, the rules are those of file names in a shell."""
    assert matches(text, pattern) == fnmatch.fnmatchcase(text, pattern)


def test_many_wildcards_take_no_time() -> None:
    """A pattern in a user's own file must not keep root busy: it would be 2^60 attempts."""
    assert not matches("a" * 120, "a*" * 60 + "b")


@pytest.mark.parametrize(
    "patterns,fits",
    [
        ("x,host", True),
        ("!host,*", False),
        ("*,!host", False),
        ("!other,*", True),
        ("!other", False),
        ("", False),
    ],
)
def test_lists(patterns: str, fits: bool) -> None:
    """One that fits is enough, and one with ! that fits refuses, wherever it stands."""
    assert matches_list("host", patterns) is fits


@pytest.mark.parametrize(
    "patterns,fits",
    [
        ("192.0.2.7", True),
        ("192.0.2.0/24", True),
        ("192.0.2.*", True),
        ("192.0.3.0/24", False),
        ("::/0", False),
        ("192.0.2.0/255.255.255.0", False),
        ("*.example.com", True),
        ("host.EXAMPLE.com", True),
        ("!192.0.2.7,*", False),
        ("!*.example.com,192.0.2.7", False),
        ("!10.0.0.0/8,192.0.0.0/8", True),
        ("*", True),
    ],
)
def test_hosts_and_addresses(patterns: str, fits: bool) -> None:
    """Names, addresses, blocks and refusals, in one list."""
    assert host_matches(HERE, patterns) is fits


def test_a_mask_that_cuts_off_bits_is_an_error() -> None:
    """Sshd ends the connection over it, so it is no mere mismatch."""
    with pytest.raises(BadPattern, match=r"10\.0\.0\.1/8"):
        host_matches(HERE, "10.0.0.1/8")


def test_an_ipv6_client() -> None:
    """Blocks of the other family do not fit."""
    client = Client("2001:db8::1", "2001:db8::1")
    assert host_matches(client, "2001:db8::/32")
    assert not host_matches(client, "0.0.0.0/0")


@pytest.mark.parametrize(
    "pattern,known,unknown",
    [
        ("alice", True, True),
        ("al*", True, True),
        ("bob", False, False),
        ("alice@192.0.2.0/24", True, None),
        ("alice@10.0.0.0/8", False, None),
        ("bob@192.0.2.0/24", False, False),
        ("alice@*", True, True),
        ("*@*.example.com", True, None),
    ],
)
def test_users(pattern: str, known: bool, unknown: bool | None) -> None:
    """Without a client, what would depend on one is neither yes nor no."""
    assert user_matches("alice", HERE, pattern) is known
    assert user_matches("alice", None, pattern) is unknown


@pytest.mark.sshd
@pytest.mark.parametrize(
    "patterns",
    [
        "alice",
        "al*",
        "b?b",
        "*",
        "!alice,*",
        "*,!al*",
        "alice,!alice",
        "bob,alice",
        "a*i*",
        "!bob",
        "Alice",
        "a[l]ice",
    ],
)
def test_lists_agree_with_sshd(patterns: str, tmp_path: Path) -> None:
    """Sshd itself says whether a Match block with the list fits."""
    config = tmp_path / "sshd_config"
    config.write_text(f'Match User "{patterns}"\nBanner /fits\n', encoding="utf-8")
    key = str(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    argv = ["-T", "-f", str(config), "-h", key, "-C", "user=alice,host=h,addr=192.0.2.7"]
    sshd = str(shutil.which("sshd"))
    done = subprocess.run([sshd, *argv], capture_output=True, text=True, check=False)
    if "Missing privilege separation directory" in done.stderr:
        pytest.skip("needs sshd's directory in /run, which the first start of sshd makes")
    assert done.returncode == 0, done.stderr
    assert matches_list("alice", patterns) == ("banner /fits" in done.stdout.lower())
