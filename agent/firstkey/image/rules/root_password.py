"""G3: root's password is locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import passwords
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR

if TYPE_CHECKING:
    from firstkey.image.rule import Builder


def _is_root(name: str) -> bool:
    return name == "root"


def _failing(tree: Builder) -> None:
    tree.file("/etc/shadow", "root:$6$salt$hash:19000:0:99999:7:::\n", mode=0o640)


def _passing(tree: Builder) -> None:
    tree.file("/etc/shadow", "root:!$6$salt$hash:19000:0:99999:7:::\n", mode=0o640)


RULE = Rule(
    id="root-password",
    title="Root's password is locked",
    guideline="G3",
    severity=ERROR,
    prose=(
        "Whoever knows a password that is in an image has it on every instance, at the console and for su. "
        "Root's field in /etc/shadow, or in /etc/tcb/root/shadow, must start with ! or *; where passwd says "
        "that there is one and neither has it, the verdict is unknown, and so it is without any accounts, as "
        "in a commit of ostree, whose /etc is in /usr/etc. seal locks it as passwd -l does, so "
        "that passwd -u root brings it back; sudo is not affected. Where sshd works without PAM, ! would "
        "keep root's keys out too, and * is put there instead."
    ),
    check=passwords.checker(_is_root),
    remedy=passwords.locker(_is_root),
    failing=_failing,
    passing=_passing,
)
