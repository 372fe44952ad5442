"""Putting on the disk what another program has written."""

from __future__ import annotations

from pathlib import Path

import callwatch
import processes
import pytest
from deep import nested

from firstkey.system import settle
from firstkey.system.tree import Tree

PROGRAM = """
    import sys
    from firstkey.system import settle
    from firstkey.system.tree import Tree
    with Tree(sys.argv[1]) as tree, tree.opened("/home") as home:
        settle.everything(home)
"""


@pytest.mark.skipif(bool(callwatch.missing()), reason=str(callwatch.missing()))
def test_every_file_and_directory_is_synced_and_no_link_followed(tmp_path: Path) -> None:
    """Files before the directory that names them; what a link leads to is none of it."""
    (tmp_path / "home/below").mkdir(parents=True)
    for name in ("home/one", "home/below/two", "outside"):
        (tmp_path / name).write_text("x")
    (tmp_path / "home/link").symlink_to("../outside")
    ended = callwatch.run(processes.program(PROGRAM, tmp_path), tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert [(call.name, call.path) for call in ended.calls] == [
        ("fsync", "/home/below/two"), ("fsync", "/home/below"), ("fsync", "/home/one"), ("fsync", "/home"),
    ]  # fmt: skip


def test_it_does_not_go_down_without_end(tmp_path: Path) -> None:
    """Whoever owns the directory could make it deeper than any program's stack."""
    (tmp_path / "home").mkdir()
    with nested(tmp_path / "home"), Tree(str(tmp_path)) as tree, tree.opened("/home") as home:
        settle.everything(home)


@pytest.mark.root
@pytest.mark.skipif(bool(callwatch.missing()), reason=str(callwatch.missing()))
def test_another_file_system_is_not_looked_into(tmp_path: Path) -> None:
    """What is mounted there is not of whoever wrote the rest, and may never answer."""
    (tmp_path / "home/mounted").mkdir(parents=True)
    (tmp_path / "home/one").write_text("x")
    mount = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none "$0"; : >"$0/two"; exec "$@"']
    argv = [*mount, str(tmp_path / "home/mounted"), *processes.program(PROGRAM, tmp_path)]
    ended = callwatch.run(argv, tmp_path)
    assert (ended.status, ended.err) == (0, "")
    synced = [call.path for call in ended.calls if call.name == "fsync"]
    assert synced == ["/home/one", "/home"]
