"""Which modules have a say in PAM's account rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstkey.login import pam
from firstkey.system.tree import Tree


@pytest.mark.parametrize(
    "files,modules",
    [
        ({"sshd": "account required pam_unix.so\nauth required pam_x.so\n"}, ["pam_unix"]),
        (
            {"sshd": "@include common\n", "common": "account [success=1 default=ignore] pam_unix.so\n"},
            ["pam_unix"],
        ),
        ({"sshd": "account include system\n", "system": "account x pam_a.so\nauth x pam_b.so\n"}, ["pam_a"]),
        ({"sshd": "account substack system\n", "system": "account x pam_a.so\n"}, ["pam_a"]),
        ({"sshd": "-account required /lib/security/pam_a.so arg # note\n"}, ["pam_a"]),
        ({"sshd": "account required \\\n pam_a.so\n"}, ["pam_a"]),
        ({"sshd": "account required \\ \n \\\n pam_a.so # x \\\naccount x pam_b.so\n"}, ["pam_a", "pam_b"]),
        ({"sshd": "# x \\\naccount required pam_a.so\n"}, ["pam_a"]),
        ({"sshd": "account include sshd\naccount required pam_a.so\n"}, ["pam_a"]),
        ({"sshd": "auth required pam_a.so\n", "other": "account required pam_deny.so\n"}, ["pam_deny"]),
        ({"sshd": "rubbish\n\naccount\n"}, []),
        ({}, []),
    ],
)
def test_modules(tmp_path: Path, files: dict[str, str], modules: list[str]) -> None:
    """Includes are followed, also where they go round; what is no rule is passed over."""
    (tmp_path / "etc/pam.d").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "etc/pam.d" / name).write_text(content)
    with Tree(str(tmp_path)) as tree:
        assert [rule.module for rule in pam.rules(tree, "sshd", "account")] == modules


def test_the_vendors_rules(tmp_path: Path) -> None:
    """Where /etc has none, those below /usr count."""
    (tmp_path / "usr/lib/pam.d").mkdir(parents=True)
    (tmp_path / "usr/lib/pam.d/sshd").write_text("account required pam_unix.so\n")
    with Tree(str(tmp_path)) as tree:
        assert [rule.module for rule in pam.rules(tree, "sshd", "account")] == ["pam_unix"]
