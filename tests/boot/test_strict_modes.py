"""Whose sshd it is decides whether a group of one may write (StrictModes)."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstkey.boot.key_file import is_lenient
from firstkey.system.tree import Tree


@pytest.mark.parametrize(
    "text,lenient",
    [
        ("ID=debian\n", True),
        ("ID=ubuntu\nID_LIKE=debian\n", True),
        ('ID=mint\nID_LIKE="ubuntu debian"\n', True),
        ('ID="amzn"\nID_LIKE="fedora"\n', False),
        ("", False),
    ],
)
def test_whose_sshd_it_is(tmp_path: Path, text: str, lenient: bool) -> None:
    """os-release(5) tells, in either of its places."""
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(text)
    with Tree(str(tmp_path)) as tree:
        assert is_lenient(tree) is lenient
