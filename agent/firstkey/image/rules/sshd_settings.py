"""G2 and G7, and AWS Marketplace's wishes: what sshd's settings must say, as sshd itself resolves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image import sshd_change
from firstkey.image.rule import Rule
from firstkey.image.sshd_change import PERMIT_ROOT_LOGIN, USE_DNS
from firstkey.image.verdict import ERROR, NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import Refusal
from firstkey.ssh import restrictions

if TYPE_CHECKING:
    from firstkey.image.sshd_change import Setting
    from firstkey.image.subject import Image
    from firstkey.ssh.sshd_config import Effective

CONFIG = "/etc/ssh/sshd_config"
DROPBEAR = ("/usr/sbin/dropbear", "/usr/bin/dropbear")
"""The other server that takes passwords; tinysshd takes none."""


def _finding(image: Image, setting: Setting, reason: str) -> Finding:
    """That it is not as it should be; an option that sshd is started with is for a person to change."""
    place = image.sshd.place_of(setting.keyword)
    remedy = ""
    if place != image.sshd.config:
        remedy = f"Take {setting.keyword} out of the options that sshd is started with there"
    return Finding(place, reason, remedy)


def check_root(image: Image) -> Verdict:
    """Ask sshd, for root and for every client that a Match block speaks of."""
    if not image.sshd.is_there:
        return _of_others(image)
    bad = [answer for answer in image.sshd.answers("root") if not PERMIT_ROOT_LOGIN.holds(answer.effective)]
    doubts = (*_others(image), *image.sshd.doubts)
    if not bad:
        return Verdict(doubts=doubts)
    whom = "every client" if len(bad) == len(image.sshd.clients) else f"a client with {bad[0].client}"
    reason = f"sshd lets root log in with a password (PermitRootLogin yes is effective for {whom})."
    return Verdict((_finding(image, PERMIT_ROOT_LOGIN, reason),), doubts)


def _of_others(image: Image) -> Verdict:
    """The verdict where there is no sshd."""
    others = _others(image)
    return Verdict(doubts=others) if others else not_applicable("no SSH server is installed")


def _others(image: Image) -> tuple[Doubt, ...]:
    there = next((path for path in DROPBEAR if image.tree.exists(path)), None)
    detail = (
        "dropbear is installed, and whom it lets in with a password is not read here (see its options -s, -g)"
    )
    return (Doubt(there, Refusal(image_reasons.NOT_LOOKED_AT, detail)),) if there else ()


def check_passwords(image: Image) -> Verdict:
    """Ask sshd, for every account and every client that a Match block speaks of."""
    if not image.sshd.is_there:
        return _of_others(image)
    open_to: dict[str, str] = {}
    for whom, effective in image.sshd.logins(account.name for account in image.accounts.all()):
        for keyword in _ways(effective):
            open_to.setdefault(keyword, whom)
    findings = []
    for keyword, whom in open_to.items():
        reason = f"sshd takes a password ({keyword} yes is effective for {whom})."
        remedy = f"Set {keyword} no before any other line that sets it"
        findings.append(image.sshd.finding(keyword, reason, remedy))
    return Verdict(tuple(findings), (*_others(image), *image.sshd.doubts))


def _ways(effective: Effective) -> Iterator[str]:
    """The settings by which a password lets somebody in (sshd_config(5))."""
    if effective.first("passwordauthentication", "yes") == "yes":
        yield "PasswordAuthentication"
    if restrictions.use_pam(effective) and effective.first("kbdinteractiveauthentication", "yes") == "yes":
        yield "KbdInteractiveAuthentication"


def check_root_login(image: Image) -> Verdict:
    """Ask sshd, for root and for every client that a Match block speaks of."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    ways = [restrictions.permit_root_login(answer.effective) for answer in image.sshd.answers("root")]
    way = next((way for way in ways if way != "no"), None)
    if way is None:
        return Verdict(doubts=image.sshd.doubts)
    reason = f"Root can log in over SSH (PermitRootLogin {way} is effective)."
    remedy = "Give the launch key to a user who may use sudo (Users=), then set PermitRootLogin no"
    return Verdict((image.sshd.finding("PermitRootLogin", reason, remedy),), image.sshd.doubts)


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
            "names; with more than 64, without a main file, or beside dropbear, the verdict is "
            "unknown. seal sets prohibit-password in an early drop-in, or at the top of the main "
            "file. Before the result is put in place, sshd must accept it and report it as effective. "
            "Where the host has no sshd, the verdict is unknown."
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
    Rule(
        id="password-login",
        title="No account can log in over SSH with a password",
        severity=NOTE,
        prose=(
            "Where sshd accepts passwords, one that is set later, by the user of an instance or by a "
            "program, can be guessed from everywhere. AWS Marketplace takes no product with it. The "
            "rule checks the effective settings of PasswordAuthentication, and of "
            "KbdInteractiveAuthentication where sshd uses PAM, for every account and every client "
            "that a Match block names; beside dropbear, the verdict is unknown. seal sets neither: a "
            "private image may need passwords."
        ),
        check=check_passwords,
        by_hand=True,
        failing={CONFIG: "KbdInteractiveAuthentication no\nPasswordAuthentication yes\n"},
        passing={CONFIG: "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"},
    ),
    Rule(
        id="root-login",
        title="Root cannot log in over SSH",
        severity=NOTE,
        prose=(
            "A person who logs in as another user and uses sudo leaves a record of each action. AWS "
            "Marketplace requires that: no login as root, with a key either. The rule checks the "
            "effective setting of PermitRootLogin, which must be no. seal leaves it: where the launch "
            "key is root's, no login would work."
        ),
        check=check_root_login,
        by_hand=True,
        failing={CONFIG: "PermitRootLogin prohibit-password\n"},
        passing={CONFIG: "PermitRootLogin no\n"},
    ),
)
