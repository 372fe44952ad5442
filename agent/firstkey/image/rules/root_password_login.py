"""G2: root cannot log in over SSH with a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import sshd_change
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Doubt, Verdict, not_applicable
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

SETTING = sshd_change.PERMIT_ROOT_LOGIN
DROPBEAR = ("/usr/sbin/dropbear", "/usr/bin/dropbear")


def check(image: Image) -> Verdict:
    """Ask sshd, for root and for every client that a Match block speaks of."""
    doubts = _other_servers(image)
    if not image.sshd.is_there:
        return Verdict(doubts=tuple(doubts)) if doubts else not_applicable("no SSH server is installed")
    bad = [answer for answer in image.sshd.answers("root") if not SETTING.holds(answer.effective)]
    findings = []
    if bad:
        whom = "every client" if len(bad) == len(image.sshd.clients) else f"a client with {bad[0].client}"
        reason = f"sshd lets root log in with a password (PermitRootLogin yes is effective for {whom})."
        findings.append(sshd_change.finding(image, SETTING, reason, "root-password-login"))
    if image.sshd.unasked:
        doubts.append(Doubt(image.sshd.config, image.sshd.unasked))
    return Verdict(tuple(findings), tuple(doubts))


def remedy(image: Image) -> list[Change]:
    """Set it where it has an effect."""
    return [sshd_change.change(image, SETTING)] if check(image).findings else []


def _other_servers(image: Image) -> list[Doubt]:
    detail = (
        "dropbear is installed, and what it lets root do is not read here (its option -g forbids passwords)"
    )
    there = next((path for path in DROPBEAR if image.tree.exists(path)), None)
    return [Doubt(there, Refusal(image_reasons.NOT_LOOKED_AT, detail))] if there else []


def _failing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "PasswordAuthentication yes\nPermitRootLogin yes\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/ssh/sshd_config", "PermitRootLogin prohibit-password\nPermitRootLogin yes\n")


RULE = Rule(
    id="root-password-login",
    title="Root cannot log in over SSH with a password",
    guideline="G2",
    severity=ERROR,
    prose=(
        "A root password in an image that others start is soon known, and asking them to change it leaves a "
        "window. PermitRootLogin must not be yes. What counts is the effective value, which sshd itself "
        "tells: Include, Match and the order of lines are its own to resolve, the options of the unit that "
        "starts it (-o) come first, and it is asked for every client that a Match block speaks of; with "
        "more than 64, or without a main file, the verdict is unknown. seal sets prohibit-password in an "
        "early drop-in, or at the top of the main file; sshd must accept the result before it is put in "
        "place, and say that it is effective after. Where the host has no sshd, the verdict is unknown."
    ),
    check=check,
    remedy=remedy,
    failing=_failing,
    passing=_passing,
)
