"""Files of keys in every odd shape that people and programs leave: byte for byte, and by sshd's judgement."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from machine import Machine, new_key
from pipe_sshd import Sshd

from firstkey import config, events, reasons
from firstkey.boot import key_file
from firstkey.boot.key_file import Change, Existing
from firstkey.boot.ledger import INSTALLED, InstalledKey
from firstkey.boot.target import Target
from firstkey.reasons import FirstkeyError
from firstkey.ssh.authorized_keys import Line, Owned
from firstkey.ssh.public_key import PublicKey, parse_launch_key
from firstkey.system.accounts import Accounts
from firstkey.system.files import Directory
from firstkey.system.tree import Tree

pytestmark = pytest.mark.sshd


class Shape(NamedTuple):
    """What a file holds; LINE is the launch key's line, KEY that without its comment, OTHER another key's.

    `added`: whether the launch key is added. `lets_in`: whether sshd then lets it in.
    """

    content: bytes | None
    added: bool
    lets_in: bool = True


ADDED = {
    "no file": None,
    "an empty file": b"",
    "one empty line": b"\n",
    "empty lines": b"\n\n \n\t\n",
    "a comment": b"# mine\n",
    "no last newline": b"# mine",
    "another key": b"OTHER\n",
    "another key without a last newline": b"OTHER",
    "line endings of DOS": b"# mine\r\nOTHER\r\n",
    "line endings of DOS, the last one cut": b"OTHER\r\n# mine\r",
    "line endings of old Macs": b"# mine\rLINE\r",
    "the key in a comment": b"#LINE\n",
    "the key in a comment with a blank": b"   # LINE\n",
    "the key as an authority": b"cert-authority LINE\n",
    "the key as an authority with options": b'restrict,cert-authority,principals="a" LINE\n',
    "a quote that never ends": b'command="open LINE\n',
    "a byte order mark": b"\xef\xbb\xbfLINE\n",
    "UTF-16": "\ufeff# mine\n# yours\n".encode("utf-16-le"),
    "a NUL before the key": b"\0LINE\n",
    "only NULs": b"\0" * 4096,
    "a carriage return before the key": b"\rLINE\n",
    "a no-break space before the key": b"\xc2\xa0LINE\n",
    "bytes that are no text": b"\xff\xfe\x80 \xc3\x28\n",
    "terminal escapes": b"\x1b]0;owned\x07\x1b[2J\n",
    "form feeds and vertical tabs": b"\x0c\x0b\n",
    "Unicode's line separators": "# a\u2028b\u2029c\x85d\n".encode(),
    "the type alone": b"ssh-ed25519\n",
    "the type and a blank": b"ssh-ed25519 \n",
    "a key that is cut off": b"KEYCUT\n",
    "a key with a byte too many": b"KEYAA comment\n",
    "a type that the data is not": b"ssh-rsa DATA\n",
    "a type in capitals": b"SSH-ED25519 DATA\n",
    "the data without a type": b"DATA\n",
    "a key of protocol 1": b"2048 65537 " + b"1234567890" * 60 + b" me\n",
    "a private key": b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n",
    "an error page": b"<html><head><title>404</title></head>\n<body>Not Found</body></html>\n",
    "a long line": b"x" * 20000 + b"\n",
    "a long line without an end": b"x" * 20000,
    "many lines": b"# a comment\n" * 20000,
    "many keys": b"OTHER\n" * 500,
    "a backslash at the end": b"# mine \\",
    "quotes": b'"' * 99 + b"\n",
    "a name before the key": b"host.example,192.0.2.1LINE\n",
}  # fmt: skip
PRESENT = {
    "the very line": b"LINE\n",
    "the line without a newline": b"LINE",
    "the line as in DOS": b"LINE\r\n",
    "the line between others": b"# mine\nOTHER\nLINE\n# end",
    "another comment": b"KEY another comment\n",
    "no comment": b"KEY\n",
    "blanks before": b" \t LINE\n",
    "tabs between": b"TABS\n",
    "blanks behind": b"LINE \t \n",
    "a NUL behind": b"LINE\0\n",
    "twice": b"LINE\nLINE\n",
    "its own copy for a comment": b"LINE LINE\n",
    "behind a byte order mark's line": b"\xef\xbb\xbf# mine\nLINE\n",
    "restricted": b"restrict LINE\n",
    "several options": b'no-pty,no-X11-forwarding,permitopen="a:1",tunnel="0" LINE\n',
    "a command": b'command="echo \\"a b\\" # c" LINE\n',
    "options in capitals": b"NO-PTY,Restrict LINE\n",
    "first restricted, then not": b'from="192.0.2.1" LINE\nLINE\n',
    "an authority beside the key": b"cert-authority LINE\nLINE\n",
}
PRESENT_BUT_SHUT = {
    "from elsewhere": b'from="192.0.2.1" LINE\n',
    "expired": b'expiry-time="20200101" LINE\n',
    "an option that nobody knows": b"no-such-option LINE\n",
    "an option spelled wrongly": b'form="192.0.2.1" LINE\n',
    "an option without its value": b"command LINE\n",
}
SHAPES = {
    **{name: Shape(content, added=True) for name, content in ADDED.items()},
    **{name: Shape(content, added=False) for name, content in PRESENT.items()},
    **{name: Shape(content, added=False, lets_in=False) for name, content in PRESENT_BUT_SHUT.items()},
}


class Bench(NamedTuple):
    """A user's file on a scratch root, and the launch key."""

    machine: Machine
    target: Target
    key: PublicKey
    private: Path
    other: bytes
    said: list[events.Entry]

    @property
    def file(self) -> Path:
        return self.machine.keys_file

    def change(self, *, add: tuple[Line, ...] = (), revoke: tuple[Owned, ...] = ()) -> Change:
        account = self.target.accounts.find(self.machine.user)
        assert account
        path = f"{account.home}/.ssh/authorized_keys"
        stale = (InstalledKey(account.name, path, *line, "i-0", INSTALLED) for line in revoke)
        return Change(account, path, add, stale=tuple(stale))

    def make(self, change: Change, *, dry_run: bool = False) -> Change:
        """Make the change; raises what the visit comes to where it fails."""
        made: list[Change] = []
        key_file.visit(self.target._replace(dry_run=dry_run), [change], lambda *_: None, made.append)
        if made[0].failure:
            raise made[0].failure
        return made[0]

    def add(self, *, dry_run: bool = False) -> Change:
        """Add the launch key."""
        return self.make(self.change(add=(Line(self.key),)), dry_run=dry_run)

    def put(self, content: bytes | None) -> bytes:
        """Write the shape's content; returns what is there now."""
        if content is None:
            return b""
        line = self.key.line.encode()
        kind, data, _ = line.split(b" ")
        words = {
            b"LINE": line, b"OTHER": self.other, b"KEYCUT": b"%b %b" % (kind, data[:-8]),
            b"KEYAA": b"%b %bAA" % (kind, data), b"KEY": b"%b %b" % (kind, data), b"DATA": data,
            b"TABS": line.replace(b" ", b"\t"),
        }  # fmt: skip
        for word, meaning in words.items():
            content = content.replace(word, meaning)
        self.machine.write_keys(content)
        return content


@pytest.fixture
def bench(tmp_path: Path, machine: Machine) -> Iterator[Bench]:
    """A scratch root whose user is the caller."""
    line = new_key(tmp_path, "launch")
    other = new_key(tmp_path, "other").encode()
    said: list[events.Entry] = []
    with Tree(str(machine.root)) as tree:
        target = Target(tree, Accounts(tree), config.load(tree), said.append)
        yield Bench(machine, target, parse_launch_key(line.encode()), tmp_path / "launch", other, said)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Sshd:
    """A real sshd."""
    directory = tmp_path_factory.mktemp("sshd")
    new_key(directory, "host_key")
    return Sshd(directory, directory / "host_key")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.sample(34)
def test_a_file_of_any_shape(bench: Bench, sshd: Sshd, shape: Shape) -> None:
    """Added or not as sshd's reading demands; every other byte as it was; revoked, it is as before."""
    before = bench.put(shape.content)
    line = Line(bench.key)

    outcome = bench.add()

    gap = b"\n" if before and not before.endswith(b"\n") else b""
    after = before + gap + line.text if shape.added else before
    assert bench.file.read_bytes() == after
    assert bool(outcome.added) == shape.added
    assert bool(outcome.existing) != shape.added
    assert sshd.login(bench.private, patterns=str(bench.file))[0] == shape.lets_in
    if shape.added:
        revoked = bench.make(bench.change(revoke=(line.written,)))
        assert bench.file.read_bytes() == before + gap
        assert revoked.revoked == [bench.key.fingerprint]


def test_there_are_many_shapes() -> None:
    """Nobody takes them off the list unnoticed."""
    assert len(SHAPES) >= 60


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o400, 0o444, 0o700])
def test_the_mode_of_a_persons_file_stays(bench: Bench, mode: int) -> None:
    """Also of one that its owner made read-only: it is replaced, not written to."""
    bench.put(b"OTHER\n")
    bench.file.chmod(mode)
    assert bench.add().changed
    assert stat.S_IMODE(bench.file.stat().st_mode) == mode


def test_other_names_of_a_file_keep_its_content(bench: Bench) -> None:
    """A hard link elsewhere is not written through."""
    before = bench.put(b"OTHER\n")
    twin = bench.machine.root / "twin"
    os.link(bench.file, twin)
    bench.add()
    assert twin.read_bytes() == before


@pytest.mark.parametrize("size", [0, 1])
def test_the_largest_file(bench: Bench, size: int) -> None:
    """Up to the limit a file is rewritten; beyond, it is refused and stays as it is."""
    content = b"#" * (key_file.LIMIT - 1 + size) + b"\n"
    bench.put(content)
    if not size:
        assert bench.add().added
        return
    with pytest.raises(FirstkeyError) as error:
        bench.add()
    assert error.value.reason is reasons.FILE_TOO_LARGE
    assert bench.file.read_bytes() == content


def test_a_dry_run_only_describes(bench: Bench) -> None:
    """Nothing is made, not even the directory; what would be is a diff that a terminal can show."""
    bench.machine.configure("[Keys]\nUsers=admin\n")
    outcome = bench.add(dry_run=True)
    assert outcome.changed
    assert outcome.diff.splitlines()[-1] == f"+{bench.key.line}"
    assert not bench.file.parent.exists()
    bench.put(b"\x1b[2J\xff\n")
    outcome = bench.add(dry_run=True)
    assert outcome.diff.replace("\n", "").isprintable()


@pytest.mark.parametrize("ignored", ["frob", "tunnel", 'principals="a"', 'form="x"'])
def test_a_line_that_sshd_heeds_counts_before_one_that_it_ignores(bench: Bench, ignored: str) -> None:
    """Wherever they stand; where all are ignored, the first is told."""
    bad, good = f"{ignored} LINE\n".encode(), b"no-pty LINE\n"
    for content in (bad + good, good + bad, bad + bad + good):
        bench.put(content)
        assert [entry.options for entry in bench.add().existing] == ["no-pty"]
    bench.put(bad + bad)
    assert [(entry.options, entry.flaw) for entry in bench.add().existing] == [(ignored, ignored)]


def test_a_line_elsewhere_that_lets_in_counts_before_one_that_sshd_ignores(bench: Bench, sshd: Sshd) -> None:
    """Sshd goes on to its next file, so nothing is wrong, and nothing is added."""
    before = bench.put(b"frob LINE\n")
    second = bench.file.with_name("second")
    second.write_bytes(before.replace(b"frob", b"no-pty"))
    change = bench.change(add=(Line(bench.key),))
    path = f"{os.path.dirname(change.path)}/second"
    made = bench.make(change._replace(also_read=(path,)))
    assert made.existing == [Existing(bench.key.fingerprint, path, "no-pty", None)]
    assert (made.result().file, made.result().refusal) == (path, None)
    assert bench.file.read_bytes() == before
    assert sshd.login(bench.private, patterns=f"{bench.file} {second}")[0]


def test_keys_elsewhere_are_found_where_sshd_finds_them(bench: Bench) -> None:
    """Only lines about the key itself count; a file that sshd ignores restricts nobody."""
    other = parse_launch_key(bench.other)
    content = bench.put(b"cert-authority LINE\nfrob OTHER\nno-pty OTHER\npty OTHER\n")
    path = bench.change().path
    change = bench.change(add=(Line(bench.key), Line(other)))._replace(
        path=f"{os.path.dirname(path)}/second", also_read=(f"{path}2", path)
    )
    made = bench.make(change)
    assert made.added == [bench.key.fingerprint]
    assert made.existing == [Existing(other.fingerprint, path, "no-pty", None)], "the first that sshd heeds"
    assert made.result().file == change.path
    bench.file.chmod(0o666)
    assert bench.make(change).added == [other.fingerprint]
    assert bench.file.read_bytes() == content


def test_a_key_that_was_elsewhere_comes_only_where_it_still_is(bench: Bench) -> None:
    """What a person took out of the other file stays out; what cannot be seen to be gone was not."""
    bench.put(b"KEY moved\n")
    path = bench.change().path
    moving = bench.change(add=(Line(bench.key),))._replace(path=f"{os.path.dirname(path)}/second")
    for file, comes in {f"{path}2": False, path: True, "/no/such": True}.items():
        old = InstalledKey("admin", file, *Line(bench.key).written, "i-1", INSTALLED)
        change = moving._replace(moved=((bench.key.fingerprint, old),))
        assert bool(bench.make(change, dry_run=True).added) == comes, file


def test_long_options_of_a_key_that_is_there_anyway_take_no_time(bench: Bench) -> None:
    """A user could have the boot wait for a visit that reads them until its time is over."""
    line = b'expiry-time="20301231",' * 100 + b"pty KEY\n"
    before = bench.put(b"KEY\n" + line * 1600)
    bench.file.with_name("second").write_bytes(before)
    change = bench.change(add=(Line(bench.key),))
    change = change._replace(also_read=(f"{os.path.dirname(change.path)}/second",))
    (entry,) = bench.make(change).existing
    assert (entry.options, bench.file.read_bytes()) == ("", before)


class _Automounted(Tree):
    """There is no home of 4242 when it is first looked for, and one right after that."""

    def open(self, path: str) -> Directory | None:
        found = super().open(path)
        if found is None and path == "/home/late":
            user = os.geteuid()
            os.seteuid(0)
            os.mkdir(f"{self.root}{path}", 0o755)
            os.chown(f"{self.root}{path}", 4242, 4242)
            os.seteuid(user)
        return found


@pytest.mark.root
def test_a_home_that_comes_meanwhile_is_its_users(bench: Bench) -> None:
    """What is above a missing home is root's alone; the home is not, and root is no one on an NFS."""
    bench.machine.write("/etc/passwd", "late:x:4242:4242::/home/late:/bin/sh\n")
    with _Automounted(str(bench.machine.root)) as tree:
        target = bench.target._replace(tree=tree, accounts=Accounts(tree))
        account = target.accounts.find("late")
        assert account
        change = Change(account, "/home/late/.ssh/authorized_keys", (Line(bench.key),))
        assert bench._replace(target=target).make(change).added
    file = bench.machine.path(change.path)
    assert [(path.stat().st_uid, oct(path.stat().st_mode)) for path in (file, file.parent)] == [
        (4242, "0o100600"),
        (4242, "0o40700"),
    ]


@pytest.mark.root
@pytest.mark.parametrize("flag", ["+i", "+a"])
def test_an_immutable_file_is_refused(bench: Bench, flag: str) -> None:
    """It is as it was, nothing lies about, and the remedy names the flag."""
    before = bench.put(b"OTHER\n")
    flagged = subprocess.run(["chattr", flag, bench.file], capture_output=True, check=False)
    if flagged.returncode:
        pytest.skip(f"this file system has no such flags: {flagged.stderr.decode()}")
    try:
        with pytest.raises(FirstkeyError) as error:
            bench.add()
    finally:
        subprocess.run(["chattr", "=", bench.file], check=True)
    assert error.value.reason is reasons.READ_ONLY
    assert "chattr" in error.value.hint
    assert [path.name for path in bench.file.parent.iterdir()] == ["authorized_keys"]
    assert bench.file.read_bytes() == before
