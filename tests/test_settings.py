"""The table of settings: which texts each takes, and what the published defaults are."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.config import Source, read
from firstkey.settings import SECTIONS, SETTINGS, Setting, account_name, boolean, endpoint, seconds, text_of

VENDOR = Path(__file__).parent.parent / "packaging/firstkey.conf"

# The published defaults; those of a user are the ones that give nobody anything.
DEFAULTS = """
IMDS Endpoints=http://169.254.169.254 http://[fd00:ec2::254]
IMDS Version=auto
IMDS TokenTTLSec=21600
IMDS RequestTimeoutSec=2
IMDS BootTimeoutSec=30
Keys Users=root
Keys Revoke=previous-instance
Keys RedirectRoot=no
HostKeys Types=auto
HostKeys Background=rsa
HostKeys Regenerate=clones
HostKeys Console=yes
User Create=no
User Groups=
User Shell=/bin/bash
User Sudo=
User AuthorizedKeysFile=
Image Publisher=
Image Contact=
Image Description=
"""

GOOD = {
    "Endpoints": ["http://127.0.0.1", "http://127.0.0.1:8080/", "http://[::1]:1", "http://[::ffff:1.2.3.4]"],
    "Version": ["auto", "1", "2"],
    "TokenTTLSec": ["1", "6h", "21600", "1min 1s", "1000ms"],
    "RequestTimeoutSec": ["0.5", "1ms", "2s", "1w"],
    "BootTimeoutSec": ["0", "1h 30min", "90", "7d"],
    "Users": ["deploy", "_x", "a.b-c_d", "host$", "x" * 31],
    "Revoke": ["never", "previous-instance"],
    "RedirectRoot": ["YES", "on", "0"],
    "Types": ["rsa", "ecdsa", "ed25519"],
    "Background": ["rsa", "ecdsa", "ed25519"],
    "Regenerate": ["clones", "missing", "new-instance", "never"],
    "Console": ["t", "n"],
    "Create": ["1", "False"],
    "Groups": ["wheel", "systemd-journal"],
    "Shell": ["/bin/sh", "/usr/bin/fish"],
    "Sudo": ["ALL=(ALL) NOPASSWD: ALL", "ALL=(ALL:ALL) /usr/bin/systemctl restart x, !/bin/sh"],
    "AuthorizedKeysFile": ["/etc/ssh/keys/%u", "~/.ssh/authorized_keys", "%h/k", "/a/%U/100%%"],
    "Publisher": ["Müller & Söhne 100%"],
    "Contact": ["mailto:a@example.com # not a comment"],
    "Description": ["a = b; c"],
}

BAD = {
    "Endpoints": [
        *("https://127.0.0.1", "http://metadata", "http://127.1", "http://1.2.3.4:0", "http://1.2.3.4:65536"),
        *(
            "http://1.2.3.4/latest",
            "http://u@1.2.3.4",
            "http://fd00::1",
            "http://[fd00::1%eth0]",
            "http://[fe80::1%]",
            "1.2.3.4",
        ),
        *("http://1.2.3.4:8\u0660", "http://[1.2.3.4]", "http://999.1.1.1", "http://"),
    ],
    "Version": ["3", "v2", "Auto", "1 2"],
    "TokenTTLSec": ["0", "21601", "1.5", "-1", "infinity", "x", "9" * 5000],
    "RequestTimeoutSec": ["0", "0.5ms", "8d", "-2", "2 parsecs", "1.5.2s", "infinity"],
    "BootTimeoutSec": ["-1", "8d", "1H", "5ss", "\u0665", "nan", "1e3", "30s,"],
    "Users": ["ALL", "0", "12", "-x", "a/b", "a:b", "x" * 32, "ü", "..", "$", "a$b", "@admins", "%wheel"],
    "Revoke": ["always", "yes"],
    "RedirectRoot": ["maybe", "2", "yes no"],
    "Types": ["dsa", "RSA", "auto2"],
    "Background": ["auto", "dsa", "RSA"],
    "Regenerate": ["always", "clone"],
    "Console": ["ja", "/dev/console"],
    "Create": ["si"],
    "Groups": ["ALL", "27", "a,b"],
    "Shell": ["bash", "/bin/ba sh", "/bin/", "/", "/bin/sh:x", "~/sh"],
    "Sudo": ["ALL=(ALL)\tALL", "ALL=ALL \\", "ALL\u2028root ALL"],
    "AuthorizedKeysFile": ["none", ".ssh/authorized_keys", "~bob/keys", "/a b", "/%x", "/%", "/keys/", "/"],
    "Publisher": ["a\u202eb", "a\tb"],
    "Contact": ["\u0085"],
    "Description": ["a\u2029b"],
}


def cases(texts: dict[str, list[str]]) -> list[tuple[Setting, str]]:
    """Each setting with each of its texts."""
    return [(setting, text) for setting in SETTINGS for text in texts[setting.key]]


def test_defaults_are_the_published_ones() -> None:
    """A default is part of the contract: images rely on it."""
    listed = [f"{setting.section} {setting.key}={text_of(setting.default)}" for setting in SETTINGS]
    assert listed == DEFAULTS.split("\n")[1:-1]


def test_a_key_means_one_thing() -> None:
    """No key is in two sections, so a line in the wrong section can be told where it belongs."""
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_defaults_can_be_written_down(setting: Setting) -> None:
    """What `firstkey config` prints for a default is a text that the setting takes."""
    words = text_of(setting.default).split() if setting.is_list else [text_of(setting.default)]
    read_again = [setting.parse(word) for word in words if word not in setting.resets]
    assert read_again in ([], list(setting.default) if setting.is_list else [setting.default])


@pytest.mark.parametrize("setting, text", cases(GOOD))
def test_good_values_are_taken_and_can_be_written_down(setting: Setting, text: str) -> None:
    """The text of a value reads back as the same value."""
    value = setting.parse(text)
    assert setting.parse(text_of((value,)) if setting.is_list else text_of(value)) == value


@pytest.mark.parametrize("setting, text", cases(BAD))
@pytest.mark.sample(2)
def test_bad_values_are_refused(setting: Setting, text: str) -> None:
    """With ValueError and nothing else, whatever the text."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reader tells what is accepted, from the table
        setting.parse(text)


@given(setting=st.sampled_from(SETTINGS), text=st.text())
def test_no_text_raises_anything_else(setting: Setting, text: str) -> None:
    """A parser takes a text or refuses it; what it takes can be written down and read again."""
    try:
        value = setting.parse(text)
    except ValueError:
        return
    assert setting.parse(text_of((value,)) if setting.is_list else text_of(value)) == value


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
@pytest.mark.sample(7)
def test_no_value_takes_long(setting: Setting) -> None:
    """No pattern runs away on a long value."""
    start = time.monotonic()
    for unit in ("1", " ", "1 ", "a", "/", "%h", "http://", "1.", ":", "-"):
        for text in (unit * 60000, f"1{unit * 60000}!", f"/{unit * 60000} !", f"x{unit * 60000}!"):
            with suppress(ValueError):
                setting.parse(text)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "text, value",
    [
        ("30", 30),
        ("5s", 5),
        ("2min", 120),
        ("1h 30min", 5400),
        ("1h30min", 5400),
        ("500ms", 0.5),
        ("55s500ms", 55.5),
        ("300ms20s 5day", 432020.3),
        ("2 h", 7200),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("100us", 0.0001),
        ("1m", 60),
        ("5 5", 10),
    ],
)
def test_time_spans_are_systemds(text: str, value: float) -> None:
    """Each of these means to systemd what it means here."""
    assert seconds(text) == value
    if shutil.which("systemd-analyze"):
        said = subprocess.run(
            ["systemd-analyze", "timespan", text], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert re.search(rf"s: {round(value * 1e6)}$", said, re.MULTILINE)


@pytest.mark.parametrize("text", ["1", "yes", "Y", "true", "T", "On"])
def test_booleans_are_systemds(text: str) -> None:
    """The words of systemd's own parser, in any case."""
    assert boolean(text) is True
    assert boolean({"1": "0", "y": "no", "t": "False", "o": "OFF"}[text[0].lower()]) is False


def test_values_are_what_the_rest_relies_on() -> None:
    """Endpoints have no slash at the end, a home is sshd's %h, names are never turned into others."""
    assert endpoint("http://[::1]:8080/") == "http://[::1]:8080"
    assert endpoint("http://[fe80::a9fe:a9fe%eth0]") == "http://[fe80::a9fe:a9fe%eth0]"
    assert SECTIONS["User"]["AuthorizedKeysFile"].parse("~/x") == "%h/x"
    assert account_name("Deploy") == "Deploy"


def vendor_settings() -> list[tuple[str, str, str, str]]:
    """Section, key, value and the comment above, of each commented setting in the package's file."""
    found, section, comment = [], "", ""
    for line in VENDOR.read_text().splitlines():
        if header := re.fullmatch(r"#?\[(\w+)(?: NAME)?\]", line):
            section = header[1]
        elif setting := re.fullmatch(r"#(\w+)=(.*)", line):
            found.append((section, setting[1], setting[2], comment))
        comment = f"{comment} {line[2:]}".strip() if line.startswith("# ") else ""
    return found


def test_the_packages_file_shows_each_setting_with_its_default_and_what_it_does() -> None:
    """The file is documentation: it can neither lack a setting or its meaning nor tell of another default."""
    shown = vendor_settings()
    assert [found[:3] for found in shown] == [(s.section, s.key, text_of(s.default)) for s in SETTINGS]
    for setting, (*_, comment) in zip(SETTINGS, shown):
        assert comment.endswith("."), setting.key


def test_the_packages_file_changes_nothing() -> None:
    """As installed, and with the comment signs before its settings taken off."""
    text = VENDOR.read_text()
    assert read([Source("/f", text.encode())]) == read([])
    bared = re.sub(r"(?m)^#(?=\w+=|\[)", "", text).replace("[User NAME]", "[User root]")
    config = read([Source("/f", bared.encode())])
    assert not config.warnings
    assert config._replace(users={}, origins={}) == read([])
    assert config.users == {"root": read([]).user("root")}


def test_the_packages_file_fits_a_terminal_and_is_plain() -> None:
    """It is read in editors over serial consoles: ASCII, at most 110 columns."""
    assert all(line.isascii() and len(line) <= 110 for line in VENDOR.read_text().splitlines())
