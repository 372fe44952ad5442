"""G2 and G7: what sshd's own settings must say, as sshd itself resolves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import sshd_change
from firstkey.image.rule import Rule
from firstkey.image.sshd_change import PERMIT_ROOT_LOGIN, USE_DNS
from firstkey.image.verdict import ERROR, NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.image.sshd_change import Setting
    from firstkey.image.subject import Image

CONFIG = "/etc/ssh/sshd_config"
DROPBEAR = ("/usr/sbin/dropbear", "/usr/bin/dropbear")


def _finding(image: Image, setting: Setting, reason: str) -> Finding:
    """That it is not as it should be; an option that sshd is started with is for a person to change."""
    place = image.sshd.place_of(setting.keyword)
    remedy = ""
    if place != image.sshd.config:
        remedy = f"Take {setting.keyword} out of the options that sshd is started with there"
    return Finding(place, reason, remedy)


def check_root(image: Image) -> Verdict:
    """Ask sshd, for root and for every client that a Match block speaks of."""
    others = tuple(_other_servers(image))
    if not image.sshd.is_there:
        return Verdict(doubts=others) if others else not_applicable("no SSH server is installed")
    bad = [answer for answer in image.sshd.answers("root") if not PERMIT_ROOT_LOGIN.holds(answer.effective)]
    doubts = (*others, *image.sshd.doubts)
    if not bad:
        return Verdict(doubts=doubts)
    whom = "every client" if len(bad) == len(image.sshd.clients) else f"a client with {bad[0].client}"
    reason = f"sshd lets root log in with a password (PermitRootLogin yes is effective for {whom})."
    return Verdict((_finding(image, PERMIT_ROOT_LOGIN, reason),), doubts)


def _other_servers(image: Image) -> Iterator[Doubt]:
    there = next((path for path in DROPBEAR if image.tree.exists(path)), None)
    if there:
        detail = (
            "dropbear is installed, and what it lets root do is not read here "
            "(its option -g forbids passwords)"
        )
        yield Doubt(there, Refusal(image_reasons.NOT_LOOKED_AT, detail))


def check_dns(image: Image) -> Verdict:
    """Ask sshd."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    if USE_DNS.holds(image.sshd.effective("root")):
        return Verdict()
    reason = "sshd looks up the name of each client; where DNS is broken, no login works."
    return Verdict((_finding(image, USE_DNS, reason),))


RULES = (
    Rule(
        id="root-password-login",
        title="Root cannot log in over SSH with a password",
        guideline="G2",
        severity=ERROR,
        prose=(
            "A root password in a shared image is soon known, and a request to change it leaves a "
            "window. PermitRootLogin must not be yes. The effective setting counts, as sshd itself "
            "reports it: sshd resolves Include, Match and the order of lines, the options of the unit "
            "that starts it (-o) come first, and it is asked for every client that a Match block "
            "names; with more than 64, or without a main file, the verdict is unknown. seal sets "
            "prohibit-password in an early drop-in, or at the top of the main file. Before the result "
            "is put in place, sshd must accept it and report it as effective. Where the host has no "
            "sshd, the verdict is unknown."
        ),
        check=check_root,
        remedy=lambda image, _: [sshd_change.change(image, PERMIT_ROOT_LOGIN)],
        failing={CONFIG: "PasswordAuthentication yes\nPermitRootLogin yes\n"},
        passing={CONFIG: "PermitRootLogin prohibit-password\nPermitRootLogin yes\n"},
    ),
    Rule(
        id="use-dns",
        title="sshd does not depend on DNS",
        guideline="G7",
        severity=NOTE,
        prose=(
            "With UseDNS yes, sshd looks up the name of each client and holds the login while DNS "
            "gives no answer. The guide switches it off, as an option: the check is worth little, and "
            "a broken DNS locks out every user. OpenSSH's own default has been no since 6.8; the "
            "effective setting counts. seal sets it, as it sets PermitRootLogin; --skip use-dns "
            "leaves it."
        ),
        check=check_dns,
        remedy=lambda image, _: [sshd_change.change(image, USE_DNS)],
        failing={CONFIG: "UseDNS yes\nMatch User ann\n    X11Forwarding no\n"},
        passing={CONFIG: "UseDNS no\nUseDNS yes\n"},
    ),
)
