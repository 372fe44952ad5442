"""Whatever bytes stand in an image, its readers have an answer or a reason, and never a crash."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstkey.image import key_formats, packages, rpm
from firstkey.image import shadow as image_shadow
from firstkey.image.rules import (
    ami_tools,
    credentials,
    identities,
    private_keys,
)
from firstkey.image.scan import Headed, Needle
from firstkey.reasons import FirstkeyError
from firstkey.ssh import sshd_config
from firstkey.system import shadow, sshd_tree

KEY = private_keys.EXAMPLE.encode()
# Anything, and what looks like something: the starts of formats with anything behind.
STARTS = (
    b"",
    b"0\x82\x01\x0a\x02\x01",
    b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\2\0\0\0\2",
    b"\xce\xce\xce\xce",
    KEY[:60],
    b"(",
)
contents = st.builds(lambda start, rest: start + rest, st.sampled_from(STARTS), st.binary(max_size=400))
texts = st.text(st.sampled_from(":\n\r\0#!*$xyz0 \t\"'=,/%-\udcff"), max_size=200).map(
    lambda text: text.encode("utf-8", "surrogateescape")
)
config = st.lists(
    st.tuples(st.sampled_from(["Match", "Include", "PermitRootLogin", "match all", "HostKey", ""]), texts),
    max_size=8,
).map(lambda lines: b"\n".join(word.encode() + b" " + rest for word, rest in lines))


@given(contents)
def test_heads(head: bytes) -> None:
    """A head is judged from its first byte on, however short it is."""
    for watch in key_formats.KEYS:
        if isinstance(watch, Headed) and head:
            watch.judge(head)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_needles(before: bytes, behind: bytes) -> None:
    """A needle is judged by what is there around it, at either end of a file too."""
    for watch in (*key_formats.KEYS, *key_formats.CERTIFICATES, *credentials.ACCESS_KEYS):
        if isinstance(watch, Needle):
            content = before + watch.needle + behind
            watch.judge(content, content.find(watch.needle))


@given(contents, contents)
def test_certificates(certificate: bytes, key: bytes) -> None:
    """Nothing that is no certificate proves anything."""
    wrapped = b"-----BEGIN CERTIFICATE-----\n" + certificate + b"\n-----END CERTIFICATE-----\n"
    assert not private_keys.is_self_signed_pair(certificate, key)
    assert not private_keys.is_self_signed_pair(wrapped, KEY)


@given(st.binary(max_size=300))
def test_rpm_headers(blob: bytes) -> None:
    """A header is read, or refused with a reason."""
    with suppress(FirstkeyError):
        rpm.header(blob)


@given(texts)
def test_accounts(content: bytes) -> None:
    """Every line is an entry, broken, or nothing; what is masked has as many lines."""
    list(shadow.entries(content))
    for path in image_shadow.FIELDS:
        list(image_shadow.broken(path, content))
    assert image_shadow.masked(content).count(b"\n") == content.count(b"\n")


@given(texts, st.sampled_from("!*"))
def test_locking_changes_one_line(content: bytes, mark: str) -> None:
    """The mark is all that is added, and it can be taken away again."""
    for entry in list(shadow.entries(content)):
        locked = image_shadow.locked(content, entry.name, mark)
        added = next(place for place in range(len(locked)) if locked[:place] + locked[place + 1 :] == content)
        assert locked[added : added + 1] == mark.encode()


@given(config)
def test_sshd_configurations(content: bytes) -> None:
    """Whom to ask is known for every file; groups are put as users without losing a line."""
    assert sshd_tree.connections([content])
    [line.words for _, line in sshd_config.lines(content)]
    for raw in content.split(b"\n"):
        assert b"\n" not in sshd_tree.without_groups(raw, lambda _patterns: ["ann"])


@given(st.text(max_size=200))
def test_packages(text: str) -> None:
    """Paragraphs and versions of any kind can be read and put in order."""
    packages.field(text, "Version")
    assert ami_tools.ordered(text) == ami_tools.ordered(text)
    assert (ami_tools.ordered(text) < ami_tools.ordered("1.0")) is not (
        ami_tools.ordered(text) >= ami_tools.ordered("1.0")
    )


def test_versions_of_any_length() -> None:
    """A number with more digits than Python converts is a number all the same."""
    assert ami_tools.ordered("1." + "9" * 5000) < ami_tools.ordered("1.1" + "0" * 5000)
    assert ami_tools.ordered("1.0007") == ami_tools.ordered("1.7")


PATTERNS: dict[str, re.Pattern[bytes]] = {
    place.pattern: place.holds
    for place in (*credentials.CLOUDS, *credentials.TOOLS, *credentials.SERVICES)
    if place.holds
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"\n", b"a\n", b" ", b"# a: b\n", b"a", b"password ", b"gs_secret", b"HWADDR"], ids=repr
)
def test_a_long_file_of_an_image_takes_its_time_once(content: bytes) -> None:
    """Whoever made the image, or has a home in it, cannot keep an audit busy for hours."""
    patterns = [*PATTERNS.values(), identities.OWN_NAME, identities.EVERYWHERE, identities.MAC]
    assert len(patterns) > 20
    for pattern in patterns:
        pattern.search(content * (500_000 // len(content)))
