"""authorized_keys: read as sshd reads it, and changed only where it shall be."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstkey.ssh.authorized_keys import Line, Merge, Owned, keyed, merge
from firstkey.ssh.public_key import PublicKey, parse_launch_key

pytestmark = pytest.mark.sshd  # ssh-keygen makes the keys

REDIRECT = 'no-pty,command="echo \'Please login as the user \\"admin\\" rather than root.\';sleep 10"'

Keys = dict[str, PublicKey]


@pytest.fixture(scope="session")
def keys(lines: dict[str, bytes]) -> Keys:
    """A key of each type."""
    return {kind: parse_launch_key(line) for kind, line in lines.items()}


def entries(content: bytes) -> list[Line]:
    """The lines with a key."""
    return [entry for _, entry in keyed(content)]


def text(key: PublicKey) -> bytes:
    """A key as firstkey would write it."""
    return Line(key).text


def added(content: bytes, *keys: PublicKey) -> Merge:
    """A file with keys added and none revoked."""
    return merge(content, add=[Line(key) for key in keys], revoke=[])


def revoked(content: bytes, *keys: PublicKey, options: str = "") -> Merge:
    """A file with keys revoked and none added."""
    return merge(content, revoke=[Line(key, options).written for key in keys])


# --- reading --------------------------------------------------------------------------------------

# What files are made of, good and odd: KEY stands for a key's line without its newline.
PIECES = [
    b"KEY",
    b"KEY\r",
    b" \tKEY",
    b"#KEY",
    b"# KEY",
    b"no-pty KEY",
    b'from="10.0.0.0/8,!10.0.0.1",command="say \\"a b\\" #" KEY',
    b'command="a KEY',
    b'command="a\\" KEY',
    b'command="a\\\\" KEY',
    b'environment="A=b c"\tKEY',
    b"\xef\xbb\xbfKEY",
    b"\x00KEY",
    b"KEY\x00behind",
    b"KEYKEY",
    b"KEY KEY",
    b"KEY\rKEY",
    b"ssh-rsa KEY",
    b"",
    b" ",
    b"\r",
    b"\\",
    b"#",
    b"ssh-ed25519",
    b"ssh-ed25519 ",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
    b"\xff\xfe\x00s\x00s\x00h",
    b"x" * 100,
    b'"' * 99,
]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(PIECES), st.sampled_from(["ed25519", "rsa", "ecdsa-sk"])), max_size=12
    ),
    last=st.booleans(),
)
@pytest.mark.slow
def test_the_keys_of_a_file_are_those_that_ssh_keygen_finds(
    pieces: list[tuple[bytes, str]],
    last: bool,
    lines: dict[str, bytes],
    ssh_keygen: Callable[[bytes], list[Any]],
) -> None:
    """Options, quotes, comments, NULs, line endings: the same keys in the same order as OpenSSH."""
    content = b"\n".join(piece.replace(b"KEY", lines[kind].rstrip(b"\n")) for piece, kind in pieces)
    content += b"\n" if last else b""
    found = [entry.key.fingerprint for entry in entries(content)]
    assert found == [seen.fingerprint for seen in ssh_keygen(content)]


@pytest.mark.parametrize("piece", [piece for piece in PIECES if b"KEY" in piece])
@pytest.mark.sample(18)
def test_sshd_reads_the_same_key_in_a_line(
    piece: bytes, lines: dict[str, bytes], key_files: dict[str, Any], sshd: Any
) -> None:
    """A real sshd sees the key in every line in which firstkey sees one, and in no other."""
    content = piece.replace(b"KEY", lines["rsa"].rstrip(b"\n")) + b"\n"
    file = sshd.directory / "authorized_keys"
    file.write_bytes(content)
    _, log = sshd.login(key_files["rsa"], patterns=file)
    # Only then does sshd look at what the options before the key say, and may refuse the line for them.
    read = "matching key found" in log or "bad key options" in log
    assert bool(entries(content)) == read, log


def test_options_are_as_they_stand(keys: Keys) -> None:
    """Quotes, escapes and all: they are compared with what firstkey wrote."""
    for options in ("", "no-pty", REDIRECT, 'command="a  b",from="x"'):
        (entry,) = entries(b" \t" + Line(keys["rsa"], options).text)
        assert entry.options == options
        assert entry.key == keys["rsa"]


def test_a_line_ends_at_a_newline_and_nowhere_else(keys: Keys) -> None:
    """Neither a carriage return nor a form feed nor a Unicode line separator begins a line for sshd."""
    content = b"a\rb\x0cc\x0b\x1c\x85" + "\u2028".encode() + b"\n" + text(keys["rsa"])
    assert [number for number, _ in keyed(content)] == [2]


def test_lines_are_written_with_single_spaces_and_a_newline(keys: Keys) -> None:
    """Options, type, data, comment: as sshd(8) has it."""
    rsa = keys["rsa"]
    assert Line(rsa).text == rsa.line.encode() + b"\n"
    assert Line(rsa, "no-pty").text == b"no-pty " + rsa.line.encode() + b"\n"


# --- adding ---------------------------------------------------------------------------------------


def test_a_key_is_added_to_an_empty_file(keys: Keys) -> None:
    """The first line needs nothing before it."""
    result = added(b"", keys["rsa"])
    assert result == Merge(text(keys["rsa"]), added=(keys["rsa"].fingerprint,))


@settings(max_examples=2 * settings().max_examples)
@given(
    content=st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=9).map(b"\n".join))
)
def test_adding_keeps_every_byte_and_is_found_again(content: bytes, keys: Keys) -> None:
    """Before the new line stands the old file, with a newline if it had none; once more changes nothing."""
    result = added(content, keys["rsa"])
    gap = b"" if content.endswith(b"\n") or not content else b"\n"
    assert result.content == content + gap + text(keys["rsa"])
    again = added(result.content, keys["rsa"])
    assert again.content is result.content
    assert (again.added, again.existing) == ((), (Line(keys["rsa"]),))


@pytest.mark.parametrize(
    "content",
    [
        b"# no newline",
        b"\\",
        b"\0",
        b"ssh-rsa AAAA\r",
        b'command="open',
        "\ufeff# a comment\n# another".encode("utf-16"),
        b"\xef\xbb\xbf# with a byte order mark",
        b"a\r\nb\r\n",
    ],
)
def test_sshd_reads_a_key_behind_any_ending(
    content: bytes, keys: Keys, ssh_keygen: Callable[[bytes], list[Any]]
) -> None:
    """Nothing at the end of a file swallows the line that is added to it."""
    result = added(content, keys["ed25519"])
    assert result.content.startswith(content)
    assert [seen.fingerprint for seen in ssh_keygen(result.content)] == [keys["ed25519"].fingerprint]


@pytest.mark.parametrize(
    "there",
    [
        b"%s %s another comment\n",
        b'from="10.0.0.0/8" %s %s\n',
        b"no-such-option %s %s x\n",
        b'command="cert-authority" %s %s x\n',
        b" \t%s\t%s\t\n",
        b"# first\r\n%s %s\r\n",
        b"%s %s\0\n",
    ],
)
def test_a_key_that_is_there_is_not_added_again(there: bytes, keys: Keys, lines: dict[str, bytes]) -> None:
    """Whatever its comment and options: what a person restricted stays restricted."""
    content = there % tuple(lines["rsa"].split()[:2])
    result = added(content, keys["rsa"])
    assert result.content is content
    assert [line.key.fingerprint for line in result.existing] == [keys["rsa"].fingerprint]


@pytest.mark.parametrize(
    "there",
    [
        b"#%s",
        b"# \r%s",
        b"x%s",
        b"\0%s",
        b"\xef\xbb\xbf%s",
        b'command="open %s',
        b"cert-authority %s",
        b'Cert-Authority,principals="a,b" %s',
        b"no-pty,cert-authority,no-such-option %s",
    ],
)
def test_a_key_that_sshd_does_not_see_is_added(there: bytes, keys: Keys) -> None:
    """A comment, a broken line or one that only trusts certificates lets nobody in: the key is not there."""
    content = there % text(keys["rsa"])
    assert added(content, keys["rsa"]).content == content + text(keys["rsa"])


def test_two_of_the_same_are_added_once_and_in_order(keys: Keys) -> None:
    """The first of two lines with the same key counts; the order is the caller's."""
    rsa, other = keys["rsa"], keys["ed25519"]
    add = [Line(rsa, "no-pty"), Line(other), Line(rsa), Line(rsa._replace(comment="again"))]
    result = merge(b"", add=add, revoke=[])
    assert result.content == Line(rsa, "no-pty").text + text(other)
    assert result.added == (rsa.fingerprint, other.fingerprint)


def test_a_key_in_another_file_of_the_user_is_there(keys: Keys) -> None:
    """Sshd reads that one too, so a copy here would undo what it says."""
    rsa, other = keys["rsa"], keys["ed25519"]
    result = merge(b"# mine\n", add=[Line(rsa), Line(other)], elsewhere={rsa.fingerprint})
    assert result.content == b"# mine\n" + text(other)
    assert (result.added, result.existing) == ((other.fingerprint,), ())


def test_what_stands_before_a_key_that_is_there_is_told(keys: Keys) -> None:
    """All lines with the key, in their order."""
    content = b'from="10.0.0.1" ' + text(keys["rsa"]) + text(keys["rsa"])
    assert added(content, keys["rsa"]).existing == (Line(keys["rsa"], 'from="10.0.0.1"'), Line(keys["rsa"]))


def test_nothing_to_do_is_the_same_object(keys: Keys) -> None:
    """A caller can tell at once that there is nothing to write."""
    for content in (b"", b"# mine", text(keys["rsa"])):
        assert merge(content).content is content
        assert revoked(content, keys["ed25519"]).content is content


# --- revoking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", REDIRECT])
@given(
    before=st.lists(st.sampled_from(PIECES), max_size=5), after=st.lists(st.sampled_from(PIECES), max_size=5)
)
def test_revoking_undoes_adding(options: str, before: list[bytes], after: list[bytes], keys: Keys) -> None:
    """Exactly the line that was written goes, from between whatever lines, and every other byte stays."""
    rsa = keys["rsa"]
    start = b"".join(piece + b"\n" for piece in before)
    end = b"\n".join(after)
    result = revoked(start + Line(rsa, options).text + end, rsa, options=options)
    assert result == Merge(start + end, revoked=(rsa.fingerprint,))


def test_only_the_line_that_was_written_goes(keys: Keys) -> None:
    """A person's own line with the same key stays, before it or behind it, and is told."""
    rsa = keys["rsa"]
    mine = text(rsa._replace(comment="my laptop"))
    result = revoked(mine + text(rsa) + b"# mine\n" + mine.rstrip(b"\n"), rsa)
    assert result.content == mine + b"# mine\n" + mine.rstrip(b"\n")
    assert (result.revoked, result.left) == ((rsa.fingerprint,), (rsa.fingerprint,))


def test_of_two_lines_that_read_the_same_one_is_a_persons(keys: Keys) -> None:
    """Firstkey adds no key that is there, so the second one was put there by somebody, after the first."""
    rsa = keys["rsa"]
    result = revoked(text(rsa) + b"# mine\n" + text(rsa), rsa)
    assert result.content == b"# mine\n" + text(rsa)
    assert result.left == (rsa.fingerprint,)


@pytest.mark.parametrize(
    "change", [(b"\n", b"\r\n"), (b" ", b"\t"), (b" ", b"   "), (b"\n", b""), (b"\n", b" \n")]
)
def test_other_blanks_and_line_endings_do_not_hide_a_line(change: tuple[bytes, bytes], keys: Keys) -> None:
    """An editor that converts a file makes no line its own."""
    rsa = keys["rsa"]._replace(comment="launch")
    content = b"# mine\n" + text(rsa).replace(*change)
    assert revoked(content, rsa).content == b"# mine\n"


@pytest.mark.parametrize(
    "written, found",
    [
        ("", "no-pty"),
        (REDIRECT, ""),
        (REDIRECT, REDIRECT + ",no-pty"),
        ("no-pty", "no-PTY"),
        ("", 'from="10.0.0.1"'),
    ],
)
def test_a_line_with_other_options_stays_and_is_told(written: str, found: str, keys: Keys) -> None:
    """Somebody made it their own since: it is not firstkey's to remove."""
    content = Line(keys["rsa"], found).text
    result = revoked(content, keys["rsa"], options=written)
    assert result.content is content
    assert (result.revoked, result.left) == ((), (keys["rsa"].fingerprint,))


def test_a_key_that_is_gone_already_is_not_told(keys: Keys) -> None:
    """Nothing is left of it, so there is nothing to say."""
    assert revoked(text(keys["ecdsa256"]), keys["rsa"]) == Merge(text(keys["ecdsa256"]))


def test_an_authority_is_not_the_launch_key(keys: Keys) -> None:
    """A person who trusts certificates of the same key goes on doing so, and it is no way in to warn of."""
    content = b"cert-authority " + text(keys["rsa"])
    assert revoked(content, keys["rsa"]) == Merge(content)
    assert revoked(content, keys["rsa"], options="cert-authority") == Merge(content)


def test_each_of_several_recorded_options_counts(keys: Keys) -> None:
    """The same key may have been written twice, as it is and as a redirection."""
    rsa = keys["rsa"]
    content = Line(rsa, REDIRECT).text + text(rsa) + Line(rsa, "no-pty").text
    revoke = [Line(rsa, REDIRECT).written, Line(rsa).written]
    result = merge(content, revoke=revoke)
    assert result.content == Line(rsa, "no-pty").text
    assert (result.revoked, result.left) == ((rsa.fingerprint,) * 2, (rsa.fingerprint,) * 2)


def test_a_key_that_is_the_new_launch_key_too_is_not_revoked(keys: Keys) -> None:
    """The new instance has the same key pair: its owner must get in."""
    rsa = keys["rsa"]
    content = b"# mine\n" + text(rsa)
    result = merge(content, add=[Line(rsa._replace(comment="new name"))], revoke=[Line(rsa).written])
    assert result.content is content
    assert not result.added
    assert not result.revoked
    assert result.existing == (Line(rsa),)


def test_a_key_that_is_wanted_in_another_form_changes_its_form(keys: Keys) -> None:
    """The new instance redirects root, with the same key pair: the plain line may not stay."""
    rsa = keys["rsa"]
    result = merge(b"# mine\n" + text(rsa), add=[Line(rsa, REDIRECT)], revoke=[Line(rsa).written])
    assert result.content == b"# mine\n" + Line(rsa, REDIRECT).text


def test_old_keys_go_and_new_keys_come_in_one_step(keys: Keys) -> None:
    """A re-bundled image: the old launch key goes, a person's own key stays, the new launch key comes."""
    old, own, new = keys["rsa"], keys["ecdsa256"], keys["ed25519"]
    content = text(old) + b"# mine\n" + text(own).rstrip(b"\n")
    result = merge(content, add=[Line(new)], revoke=[Line(old).written])
    assert result == Merge(
        b"# mine\n" + text(own) + text(new), added=(new.fingerprint,), revoked=(old.fingerprint,)
    )


def test_nothing_is_revoked_that_sshd_does_not_read(keys: Keys) -> None:
    """A comment with the key in it is a person's."""
    for comment in (b"#", b"# mine\r", b"\0"):
        content = comment + text(keys["rsa"])
        assert revoked(content, keys["rsa"]) == Merge(content)


# --- all together ---------------------------------------------------------------------------------


@settings(max_examples=2 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_line_changes_but_what_is_firstkeys(data: st.DataObject, keys: Keys) -> None:
    """Whatever is added and revoked, all other lines are there still, byte for byte and in order."""
    kinds = st.sampled_from(["rsa", "ed25519", "ecdsa256"]).map(keys.__getitem__)
    forms = st.tuples(kinds, st.sampled_from(["", "no-pty", REDIRECT])).map(lambda form: Line(*form))
    pieces = st.one_of(
        forms.map(lambda line: line.text), st.sampled_from(PIECES).map(lambda piece: piece + b"\n")
    )
    content = b"".join(data.draw(st.lists(pieces, max_size=9))) + data.draw(st.sampled_from([b"", b"# end"]))
    revoke = [line.written for line in data.draw(st.lists(forms, max_size=3))]
    add = data.draw(st.lists(forms, max_size=3))
    result = merge(content, add=add, revoke=revoke)
    before, after = list(BytesIO(content)), list(BytesIO(result.content))
    gone = [line for line in before if written_as(line) in revoke]
    kept = [line for line in before if line not in gone]
    remaining = [line.rstrip(b"\n") for line in after]
    for line in kept:
        assert line.rstrip(b"\n") in remaining
    assert len(before) - len(result.revoked) + len(result.added) == len(after)
    assert is_subsequence([line.rstrip(b"\n") for line in kept], remaining)
    blobs = [entry.key.blob for entry in entries(result.content)]
    assert all(line.key.blob in blobs for line in add)


def is_subsequence(part: list[bytes], whole: list[bytes]) -> bool:
    """Whether the lines stand in that order among the others."""
    rest = iter(whole)
    return all(line in rest for line in part)


def written_as(raw: bytes) -> Owned | None:
    """What firstkey would remember of the line."""
    found = [(each.key.fingerprint, each.options, each.key.comment) for each in entries(raw)]
    return found[0] if found else None


# --- large files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", ["key\n", "\n", "x y\n", '"\\" ', "#", '"' * 99 + " ", '"a" ' * 30 + "\n"])
@pytest.mark.slow
def test_large_files_take_little_time(piece: str, keys: Keys) -> None:
    """Linear in the size, whatever a user filled the file with: this one's limit is generous."""
    unit = text(keys["ecdsa256"]) if piece == "key\n" else piece.encode()
    content = unit * (2**20 // len(unit))
    begin = time.process_time()
    merge(content, add=[Line(keys["rsa"])], revoke=[(keys["ed25519"].fingerprint, "", "x")])
    assert time.process_time() - begin < 5
