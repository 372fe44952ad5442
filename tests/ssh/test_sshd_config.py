"""sshd's effective configuration: what `sshd -T` prints, and where sshd looks for keys."""

from __future__ import annotations

import grp
import itertools
import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from firstkey import reasons
from firstkey.model import Account
from firstkey.reasons import FirstkeyError
from firstkey.ssh import restrictions
from firstkey.ssh.sshd_config import (
    DEFAULTS,
    Effective,
    arguments,
    expand,
    fits,
    is_shared,
    parse,
)

ADMIN = Account("admin", 1000, 1000, "/home/admin", "/bin/sh")


# --- what sshd -T prints ----------------------------------------------------------------------------

CONFIG = """
authorizedKEYSfile /etc/ssh/keys/%u  .ssh/authorized_keys "%h/quoted"
PermitRootLogin no
StrictModes no
HostKey /nowhere/ssh_host_ed25519_key
HostKey "/nowhere/with a blank"
AuthorizedKeysFile too/late
Match User nobody
  AuthorizedKeysFile none
  PermitRootLogin yes
Match User daemon
  AuthorizedKeysFile .ssh/second
"""


@pytest.mark.sshd
def test_a_real_configuration_is_understood(sshd: Any) -> None:
    """Case, quotes, several patterns and host keys, the first value: sshd's own reading comes through."""
    effective = parse(sshd.effective(CONFIG, user="root"))
    assert effective.authorized_keys_files == ("/etc/ssh/keys/%u", ".ssh/authorized_keys", "%h/quoted")
    assert effective.host_keys == (
        str(sshd.host_key),
        "/nowhere/ssh_host_ed25519_key",
        "/nowhere/with a blank",
    )
    assert not restrictions.strict_modes(effective)
    assert restrictions.permit_root_login(effective) == "no"
    assert effective.first("Port") == "22"


@pytest.mark.sshd
def test_match_blocks_count_for_their_user_only(sshd: Any) -> None:
    """Each user has the patterns that sshd has for that user; `none` is no pattern."""
    nobody = parse(sshd.effective(CONFIG, user="nobody"))
    assert nobody.authorized_keys_files == ()
    assert restrictions.permit_root_login(nobody) == "yes"
    assert parse(sshd.effective(CONFIG, user="daemon")).authorized_keys_files == (".ssh/second",)


@pytest.mark.sshd
def test_the_defaults_are_those_of_sshd(sshd: Any) -> None:
    """Where there is no sshd to ask, the answer is what it would have been."""
    effective = parse(sshd.effective(""))
    assert effective.authorized_keys_files == DEFAULTS.authorized_keys_files
    assert restrictions.strict_modes(effective) == restrictions.strict_modes(DEFAULTS)
    assert restrictions.permit_root_login(effective) == restrictions.permit_root_login(DEFAULTS)
    assert restrictions.use_pam(effective) == restrictions.use_pam(DEFAULTS)


@pytest.mark.sshd
@pytest.mark.parametrize(
    "value", ["yes", "no", "prohibit-password", "without-password", "forced-commands-only"]
)
def test_permit_root_login_has_one_name_for_each_meaning(value: str, sshd: Any) -> None:
    """Old versions of sshd print the old name of prohibit-password, and so does the newest."""
    expected = "prohibit-password" if value == "without-password" else value
    assert restrictions.permit_root_login(parse(sshd.effective(f"PermitRootLogin {value}\n"))) == expected


def test_what_was_not_printed_has_sshds_default() -> None:
    """An old or foreign sshd that prints less is no reason to fail."""
    empty = parse("")
    assert empty == Effective({})
    assert (empty.host_keys, empty.authorized_keys_files) == ((), ())
    assert (
        restrictions.strict_modes(empty),
        restrictions.use_pam(empty),
        restrictions.permit_root_login(empty),
    ) == (
        True,
        False,
        "prohibit-password",
    )
    assert empty.first("port") is None
    assert empty.first("port", "22") == "22"


@given(st.text())
def test_no_output_makes_it_fail(text: str) -> None:
    """Unknown, empty and broken lines are values like others, or nothing."""
    effective = parse(text)
    assert effective.first("no such keyword") is None
    assert all(values for values in effective.settings.values())


def test_keywords_have_no_case_and_values_keep_theirs() -> None:
    """As in sshd_config(5); some versions of sshd print keywords in mixed case."""
    effective = parse("Port 22\nPORT 2222\r\nbanner  /etc/Issue \nprintmotd\n")
    assert effective.settings == {"port": ("22", "2222"), "banner": ("/etc/Issue",), "printmotd": ("",)}
    assert effective.first("Port") == "22"


def test_none_is_no_pattern_in_any_case() -> None:
    """Each pattern for itself may be none."""
    assert parse("authorizedkeysfile NONE /a/%u none").authorized_keys_files == ("/a/%u",)
    assert parse("authorizedkeysfile none").authorized_keys_files == ()


def test_use_pam_and_strict_modes_are_read() -> None:
    """Both values of both."""
    assert restrictions.use_pam(parse("usepam yes\nstrictmodes no"))
    assert not restrictions.strict_modes(parse("usepam yes\nstrictmodes no"))
    assert restrictions.strict_modes(parse("strictmodes yes\nusepam no"))
    assert not restrictions.use_pam(parse("strictmodes yes\nusepam no"))


# --- words of a line ---------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["\\'", '\\"', "\\\\", "'", "a"])
def test_quotes_without_an_end_take_no_time(inside: str) -> None:
    """There is one way to read what stands behind them, and not two for each character."""
    assert arguments('"' + inside * 2001)
    assert arguments(f'"{inside * 2000}"')


@pytest.mark.slow
@pytest.mark.sshd
@settings(max_examples=3 * settings().max_examples // 2, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text("ab/ \"'\\\t#", min_size=1, max_size=14))
def test_words_are_told_apart_as_by_sshd(text: str, sshd: Any) -> None:
    """Quotes of both kinds, escapes and comments: together the words are what sshd prints."""
    try:
        printed = parse(sshd.effective(f"AuthorizedKeysFile x{text}\n")).first("AuthorizedKeysFile")
    except subprocess.CalledProcessError:
        assume(False)
    assert " ".join(arguments(f"x{text}")).strip() == printed


# --- where a user's keys are ------------------------------------------------------------------------


@pytest.mark.sshd
def test_paths_are_those_that_sshd_looks_at(sshd: Any, key_files: dict[str, Any]) -> None:
    """A real sshd's log names the file that each pattern means: absolute, relative, with every token."""
    pieces = ("", "%u", "%U", "%h", "%%", "%%u", ".ssh/", "x")
    patterns = [
        "".join(parts) for parts in itertools.product(("/nowhere/", "", "%h/", "%u/"), pieces, pieces)
    ]
    patterns = [pattern for pattern in patterns if pattern]
    _, log = sshd.login(key_files["rsa"], patterns=" ".join(patterns))
    tried = re.findall(r"trying public key file (.*)", log)
    login = Account(sshd.account.pw_name, sshd.account.pw_uid, 0, sshd.account.pw_dir, "")
    assert tried
    wanted = [expand(pattern, login) for pattern in patterns]
    if "/nowhere/x" not in tried:  # from OpenSSH 10 on it looks first which there are
        wanted = [path for path in wanted if os.path.exists(path)]
    # sshd asks twice, before and after the signature, where it lets the key in.
    assert wanted
    assert tried[: len(wanted)] == wanted


PIECES = ["%h", "%u", "%U", "%%", "/", ".", "x", "ä", "'"]


@pytest.mark.slow
@pytest.mark.sshd
@settings(max_examples=2 * settings().max_examples // 5, suppress_health_check=[HealthCheck.too_slow])
@given(
    patterns=st.lists(
        st.lists(st.sampled_from(["%h", "%u", "%U", "%%", "/", ".", "x", "ä", "'"]), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    match=st.sampled_from(["Match User {user}", "Match Group {group}", "Match all", "Match User !nobody,*"]),
)
def test_paths_under_match_are_those_that_sshd_looks_at(
    patterns: list[list[str]], match: str, sshd: Any, key_files: dict[str, Any]
) -> None:
    """From its configuration by `sshd -T -C` to the files in its log: sshd and firstkey go the same way."""
    words = ["".join(pieces) for pieces in patterns]
    written = " ".join(f'"{word}"' for word in words)
    account = sshd.account
    group = grp.getgrgid(account.pw_gid).gr_name
    block = f"{match.format(user=account.pw_name, group=group)}\n  AuthorizedKeysFile {written}\n"
    _, log = sshd.login(key_files["rsa"], patterns="/elsewhere/%u", more=block)
    tried = re.findall(r"trying public key file (.*)", log)
    config = (sshd.directory / "sshd_config").read_text()
    printed = parse(sshd.effective(config, user=account.pw_name)).authorized_keys_files
    login = Account(account.pw_name, account.pw_uid, 0, account.pw_dir, "")
    found = [expand(pattern, login) for pattern in printed]
    # The log shows bytes that are no ASCII in octal.
    assert tried[: len(words)] == [logged(path) for path in found]


def logged(path: str) -> str:
    """A path as sshd's log has it (strnvis(3) with VIS_OCTAL among its flags)."""
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in path.encode())


@pytest.mark.sshd
@pytest.mark.parametrize("pattern", ["/nowhere/%x", "%d/keys", "%", "/nowhere/%", "%%%"])
@pytest.mark.sample(5)
def test_unknown_tokens_are_refused_as_by_sshd(pattern: str, sshd: Any, key_files: dict[str, Any]) -> None:
    """`sshd -T` and `sshd -t` find nothing wrong with them; every login fails."""
    let_in, log = sshd.login(key_files["rsa"], patterns=pattern)
    assert not let_in
    assert "percent_expand" in log
    with pytest.raises(FirstkeyError) as error:
        expand(pattern, ADMIN)
    assert error.value.reason is reasons.SSHD_CONFIG_INVALID


@pytest.mark.parametrize(
    "pattern, path",
    [
        (".ssh/authorized_keys", "/home/admin/.ssh/authorized_keys"),
        ("%h/.ssh/authorized_keys", "/home/admin/.ssh/authorized_keys"),
        ("/etc/keys/%u", "/etc/keys/admin"),
        ("/etc/keys/%U.%%u", "/etc/keys/1000.%u"),
        ("%u", "/home/admin/admin"),
    ],
)
def test_tokens_stand_for_the_user(pattern: str, path: str) -> None:
    """Relative paths are below the home."""
    assert expand(pattern, ADMIN) == path


def test_what_a_token_brings_in_is_not_expanded_again() -> None:
    """A home with a percent sign in its name is that home."""
    assert expand("%h/%u", Account("a%Ub", 7, 7, "/home/%u", "/bin/sh")) == "/home/%u/a%Ub"


@pytest.mark.parametrize(
    "path, pattern, expected",
    [
        ("/a/10-ops", "/a/[0-9][0-9]-*", True),
        ("/a/.hidden", "/a/*", False),
        ("/a/.hidden", "/a/.h*", True),
        ("/a/b/c", "/a/*", False),
        ("/a/b", "/?/b", True),
        ("/a/b", "/a/b", True),
    ],
)
def test_patterns_of_files(path: str, pattern: str, expected: bool) -> None:
    """Part by part, as in a shell."""
    assert fits(path, pattern) is expected


@given(pattern=st.text("%huUx/.", min_size=1, max_size=12))
def test_a_pattern_is_shared_if_two_users_get_one_file(pattern: str) -> None:
    """Two users who differ in everything have the same file, or the pattern is not shared."""
    one, other = ADMIN, Account("root", 0, 0, "/root", "/bin/sh")
    try:
        same = expand(pattern, one) == expand(pattern, other)
    except FirstkeyError:
        return
    assert is_shared(pattern) == same


@pytest.mark.parametrize("pattern", ["/etc/ssh/authorized_keys", "/etc/%%u", "/etc/%%h%%"])
def test_files_that_users_share_are_noticed(pattern: str) -> None:
    """A key in it would let its owner in as anybody."""
    assert is_shared(pattern)


@pytest.mark.parametrize("pattern", [".ssh/authorized_keys", "/etc/%u", "/etc/%%%u", "%h/x", "/x%U"])
def test_files_of_one_user_are_not_called_shared(pattern: str) -> None:
    """What depends on the user's name, number or home is the user's own."""
    assert not is_shared(pattern)
