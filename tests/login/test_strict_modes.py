"""StrictModes, step by step, without root."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firstkey.login import view
from firstkey.model import Account
from firstkey.ssh import authorized_keys
from firstkey.ssh.authorized_keys import Part
from firstkey.system.accounts import Accounts
from firstkey.system.tree import Tree

ALICE = Account("alice", 1000, 1000, "/home/alice", "/bin/sh")
SITE: Any = SimpleNamespace(tree=SimpleNamespace(is_running_system=False))
HOME = "/home/alice"


def step(path: str, mode: int, uid: int = 1000, gid: int = 1000) -> Part:
    """A directory, or a file where the name says so."""
    kind = stat.S_IFREG if path.endswith("keys") else stat.S_IFDIR
    return Part(path, uid, gid, kind | mode)


def judged(
    tmp_path: Path, steps: list[Part], *, group: str = "alice:x:1000:\n", lenient: bool = False
) -> list[str]:
    """The remedies for what is wrong."""
    etc = tmp_path / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(
        "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n"
    )
    (etc / "group").write_text(group)
    with Tree(str(tmp_path)) as tree:
        accounts = Accounts(tree)
        found = authorized_keys.flaws(
            steps, (0, 1000), HOME, may_share=lambda gid: lenient and accounts.has_group_alone(ALICE, gid)
        )
        return [view.remedy(SITE, flaw, ALICE, HOME) for flaw in found]


def test_what_is_right_has_no_remedy(tmp_path: Path) -> None:
    """The user's or root's, and nobody else may write."""
    assert judged(tmp_path, [step(f"{HOME}/keys", 0o644), step(HOME, 0o755, uid=0)]) == []


def test_above_the_home_nobody_looks(tmp_path: Path) -> None:
    """Sshd stops at the home."""
    assert (
        judged(tmp_path, [step(f"{HOME}/keys", 0o600), step(HOME, 0o755), step("/home", 0o777, uid=9)]) == []
    )


def test_outside_the_home_all_the_way_counts(tmp_path: Path) -> None:
    """Up to the root; there the owner is to be root."""
    steps = [step("/srv/keys", 0o600), step("/srv", 0o757, uid=9), step("/", 0o755, uid=0)]
    assert judged(tmp_path, steps) == ["chown -h root /srv && chmod go-w /srv"]


@pytest.mark.parametrize(
    "mode,uid,remedy",
    [
        (0o602, 1000, "chmod go-w '/home/alice/my keys'"),
        (0o620, 1000, "chmod go-w '/home/alice/my keys'"),
        (0o600, 1001, "chown -h alice '/home/alice/my keys'"),
        (0o666, 1001, "chown -h alice '/home/alice/my keys' && chmod go-w '/home/alice/my keys'"),
    ],
)
def test_each_flaw_has_its_command(tmp_path: Path, mode: int, uid: int, remedy: str) -> None:
    """A name with a blank in it is quoted for the shell."""
    assert judged(tmp_path, [step(f"{HOME}/my keys", mode, uid), step(HOME, 0o700)]) == [remedy]


@pytest.mark.parametrize(
    "group,fine",
    [
        ("alice:x:1000:\n", True),
        ("alice:x:1000:alice\n", True),
        ("alice:x:1000:alice,bob\n", False),
        ("alice:x:1000:bob\n", False),
        ("", False),
    ],
)
def test_a_group_of_one(tmp_path: Path, group: str, fine: bool) -> None:
    """Debian's sshd lets a group write in which there is only the user; others do not."""
    steps = [step(f"{HOME}/keys", 0o620), step(HOME, 0o775)]
    assert (judged(tmp_path, steps, group=group, lenient=True) == []) is fine
    assert len(judged(tmp_path, steps, group=group)) == 2
