"""Whose sshd it is decides whether a group of one may write (StrictModes)."""

from __future__ import annotations

import pytest

from firstkey.system.accounts import is_lenient


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
def test_whose_sshd_it_is(text: str, lenient: bool) -> None:
    """os-release(5) tells."""
    assert is_lenient(text.encode()) is lenient
