"""G3: nobody else has a password either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import passwords
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.rule import Builder


def _is_other(name: str) -> bool:
    return name != "root"


def _failing(tree: Builder) -> None:
    tree.file("/etc/gshadow", "wheel:$6$salt$hash::ann\nusers:::ann\n", mode=0o640)
    tree.file("/etc/shadow", "admin::19000:0:99999:7:::\nann:$6$salt$hash:19000::::::\n", mode=0o640)


def _passing(tree: Builder) -> None:
    tree.file("/etc/gshadow", "wheel:!::ann\nusers:::ann\n", mode=0o640)
    tree.file("/etc/shadow", "admin:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n", mode=0o640)


RULE = Rule(
    id="other-passwords",
    title="No other account has a password, or an empty one",
    guideline="G3",
    severity=ERROR,
    prose=(
        "A password of any account is as public as the image, and an empty one is a door without a lock. "
        "Every field in /etc/shadow (and in /etc/passwd, where old systems keep them) must start with ! "
        "or *, or be x where a shadow file has the real one; a group's password counts too. seal locks "
        "each of them; passwd -u NAME brings one back."
    ),
    check=passwords.checker(_is_other),
    remedy=passwords.locker(_is_other),
    failing=_failing,
    passing=_passing,
)
