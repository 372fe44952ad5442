"""G7: sshd does not look up its clients' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image import sshd_change
from firstkey.image.rule import Rule
from firstkey.image.verdict import NOTE, Verdict, not_applicable

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

SETTING = sshd_change.USE_DNS


def check(image: Image) -> Verdict:
    """Ask sshd."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    if SETTING.holds(image.sshd.effective("root")):
        return Verdict()
    reason = "sshd looks up the name of each client; where DNS is broken, nobody can log in."
    return Verdict((sshd_change.finding(image, SETTING, reason, "use-dns"),))


def remedy(image: Image) -> list[Change]:
    """Set it where it has an effect."""
    return [sshd_change.change(image, SETTING)] if check(image).findings else []


def _failing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "UseDNS yes\nMatch User ann\n    X11Forwarding no\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "UseDNS no\nUseDNS yes\n")


RULE = Rule(
    id="use-dns",
    title="sshd does not depend on DNS",
    guideline="G7",
    severity=NOTE,
    prose=(
        "With UseDNS yes, sshd looks up the name of each client and holds the login while DNS gives no "
        "answer. The guide has it switched off, as an option: the check is worth little, and a broken DNS "
        "locks everybody out. OpenSSH's own default has been no since 6.8; the effective value counts. "
        "seal sets it, as it sets PermitRootLogin; --skip use-dns leaves it."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
