"""The ledger: what is written is read again, and what is not as it was written is not believed."""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstkey import config, reasons
from firstkey.boot import ledger
from firstkey.boot.ledger import (
    INSTALLED,
    PENDING,
    PRESENT,
    InstalledKey,
    Ledger,
    LedgerStore,
    MadeHostKey,
    Served,
)
from firstkey.boot.target import Target
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree

TEXT = st.text(max_size=20)  # lone surrogates among it: comments may be any bytes
STATES = st.sampled_from([PENDING, INSTALLED, PRESENT, "taken-out"])
NOTHING_OR_TEXT = st.none() | TEXT
PLACES = dict.fromkeys(("user", "file", "fingerprint", "options", "comment", "instance"), TEXT)
KEYS = st.builds(InstalledKey, **PLACES, state=STATES)
SERVED = st.builds(Served, name=TEXT, file=NOTHING_OR_TEXT, conditions=TEXT)
MADE = st.builds(
    MadeHostKey,
    file=TEXT,
    fingerprint=TEXT,
    digest=TEXT,
    instance=NOTHING_OR_TEXT,
    boot=NOTHING_OR_TEXT,
    made=st.booleans(),
)
LEDGERS = st.builds(
    Ledger,
    instance=NOTHING_OR_TEXT,
    firmware=NOTHING_OR_TEXT,
    served=st.lists(SERVED, max_size=2).map(tuple),
    keys=st.lists(KEYS, max_size=3).map(tuple),
    host_keys=st.lists(MADE, max_size=2).map(tuple),
    made_files=st.lists(TEXT, max_size=2).map(tuple),
    sshd_digest=NOTHING_OR_TEXT,
    sshd_host_keys=st.lists(TEXT, max_size=2).map(tuple),
)
AGAIN = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
A_KEY = InstalledKey("ann", "/home/ann/.ssh/authorized_keys", "SHA256:x", "", "launch", "i-1", INSTALLED)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """A scratch root."""
    with Tree(str(tmp_path)) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "var/lib/firstkey/ledger.json"


def opened(tree: Tree) -> LedgerStore:
    """As a run has it."""
    return LedgerStore(Target(tree, Accounts(tree), config.read(()), lambda _entry: None), None)


@AGAIN
@given(LEDGERS)
def test_what_is_written_is_read_again(tree: Tree, known: Ledger) -> None:
    """Every field, whatever is in it."""
    ledger.save(tree, known)
    assert ledger.load(tree) == (known, None)


def test_no_ledger_is_an_empty_one(tree: Tree, file: Path) -> None:
    """A fresh system; nothing is made by looking."""
    assert ledger.load(tree) == (Ledger(), None)
    assert not file.parent.exists()


def test_it_is_for_root_alone(tree: Tree, file: Path) -> None:
    """Who may log in where is nobody's business."""
    ledger.save(tree, Ledger(keys=(A_KEY,)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@AGAIN
@given(data=st.data())
def test_a_changed_byte_is_noticed(tree: Tree, file: Path, data: st.DataObject) -> None:
    """A bad disk makes firstkey remove no other line: the ledger is as it was, or not believed."""
    known = Ledger(instance="i-1", keys=(A_KEY,), made_files=("/a",))
    ledger.save(tree, known)
    content = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(["change", "cut", "add", "zeros"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "change":
        content[at] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        del content[at : at + data.draw(st.integers(1, 50))]
    elif kind == "add":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    file.write_bytes(content)
    loaded, refusal = ledger.load(tree)
    assert (loaded, refusal) == (known, None) or (refusal and loaded == Ledger())


@pytest.mark.parametrize(
    "place, value",
    [
        ("keys", "text"),
        ("keys", [{"user": "ann"}]),
        ("served", [1]),
        ("host_keys", None),
    ],
)
def test_another_form_is_not_believed(tree: Tree, file: Path, place: str, value: object) -> None:
    """Not even with a right checksum: a ledger of another make does not end the run."""
    ledger.save(tree, Ledger(instance="i-1", keys=(A_KEY,)))
    plain = {**json.loads(file.read_text())["ledger"], place: value}
    body = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    file.write_text(f'{{"version":1,"check":{zlib.crc32(body.encode())},"ledger":{body}}}\n')
    loaded, refusal = ledger.load(tree)
    assert loaded == Ledger()
    assert refusal
    assert refusal.reason is reasons.LEDGER_DAMAGED


@pytest.mark.parametrize(
    "name, mode",
    [("ledger.json", 0o606), ("ledger.json", 0o660), (".", 0o770), (".", 0o707), (".", 0o777)],
)
def test_what_others_can_write_is_not_believed(tree: Tree, file: Path, name: str, mode: int) -> None:
    """Neither the file nor its directory."""
    ledger.save(tree, Ledger(keys=(A_KEY,)))
    (file.parent / name).chmod(mode)
    loaded, refusal = ledger.load(tree)
    assert loaded == Ledger()
    assert refusal
    assert "written by others" in refusal.detail


@pytest.mark.root
@pytest.mark.parametrize("name", ["ledger.json", "."])
def test_what_another_user_has_is_not_believed_on_the_running_system(
    tree: Tree, file: Path, name: str
) -> None:
    """A scratch root is its maker's, and so is the ledger in it; the running system's is root's."""
    ledger.save(tree, Ledger(keys=(A_KEY,)))
    os.chown(file.parent / name, 65534, -1)
    assert ledger.load(tree)[1] is None
    tree.is_running_system = True
    loaded, refusal = ledger.load(tree)
    assert (loaded, refusal and refusal.reason) == (Ledger(), reasons.LEDGER_DAMAGED)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_file_is_not_believed(tree: Tree, file: Path, kind: str) -> None:
    """A link is not followed, a pipe not waited for; it is moved out of the way."""
    file.parent.mkdir(parents=True, mode=0o700)
    if kind == "link":
        file.symlink_to("/etc/passwd")
    elif kind == "directory":
        file.mkdir()
    else:
        os.mkfifo(file)
    assert ledger.load(tree)[1]
    store = opened(tree)
    assert [path.name.partition(".2")[0] for path in file.parent.iterdir()] == ["ledger.json.damaged"]
    store.save(Ledger(keys=(A_KEY,)))
    assert ledger.load(tree) == (Ledger(keys=(A_KEY,)), None)


def test_one_that_is_set_aside_is_kept(tree: Tree, file: Path) -> None:
    """Also the second one in the same second."""
    file.parent.mkdir(parents=True, mode=0o700)
    for content in ("first", "second"):
        file.write_text(content)
        assert opened(tree).ledger == Ledger()
    assert sorted(path.read_text() for path in file.parent.iterdir()) == ["first", "second"]
    assert opened(tree).warnings == []


OLD = (
    '{"version":1,"check":CHECK,"ledger":{"firmware":null,"host_keys":[{"boot":null,"digest":"d","file":'
    '"/etc/ssh/ssh_host_rsa_key","fingerprint":"SHA256:h","instance":"i-1","made":true}],"instance":"i-1",'
    '"keys":[{"comment":"launch","file":"/home/ann/.ssh/authorized_keys","fingerprint":"SHA256:x","instance":'
    '"i-1","options":"","state":"installed","user":"ann"}],"made_files":["/home/ann/.ssh"],"served":[{'
    '"conditions":"c","file":null,"name":"ann"}],"sshd_digest":"s"MORE,"sshd_host_keys":["/k"]}}\n'
)


@pytest.mark.parametrize(
    "more, check",
    [
        ("", 40482752),
        (',"sshd_has_key_agent":false', 889664447),
        (',"sshd_has_key_agent":false,"soon":[1]', 1034206637),
    ],
    ids=["before the key agent", "today's", "a later one"],
)
def test_a_ledger_of_another_version_is_read(tree: Tree, file: Path, more: str, check: int) -> None:
    """What it does not know of has its default, and what it knows besides is passed over."""
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text(OLD.replace("MORE", more).replace("CHECK", str(check)))
    file.chmod(0o600)
    assert ledger.load(tree) == (
        Ledger(
            instance="i-1",
            served=(Served("ann", None, "c"),),
            keys=(A_KEY,),
            host_keys=(MadeHostKey("/etc/ssh/ssh_host_rsa_key", "SHA256:h", "d", "i-1", None, made=True),),
            made_files=("/home/ann/.ssh",),
            sshd_digest="s",
            sshd_host_keys=("/k",),
        ),
        None,
    )


def test_a_key_is_remembered_once_for_each_place() -> None:
    """User, file, key and instance are the place; its state and form may change."""
    known = Ledger().with_key(A_KEY).with_key(A_KEY._replace(state=PENDING, options="no-pty"))
    assert [key.state for key in known.keys] == [PENDING]
    for other in ({"user": "bob"}, {"file": "/f"}, {"fingerprint": "SHA256:y"}, {"instance": "i-2"}):
        assert len(known.with_key(A_KEY._replace(**other)).keys) == 2


def test_only_firstkeys_own_lines_are_another_instances() -> None:
    """What was there before it came, and what a person took out, is not its own to revoke."""
    keys = [
        A_KEY._replace(state=state, fingerprint=state) for state in (PENDING, INSTALLED, PRESENT, "taken-out")
    ]
    known = Ledger(keys=tuple(keys))
    assert {key.state for key in known.of_other_instances("i-2")} == {PENDING, INSTALLED}
    assert known.of_other_instances("i-1") == []
