"""What AWS Marketplace asks of every product, and the guide does not of a shared image.

The source is the AWS Marketplace Seller Guide, AMI-based product requirements. The rules are notes unless the
profile says otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.image.rule import Rule
from firstkey.image.rules.credentials import CRYPTTAB, crypttab
from firstkey.image.verdict import NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import Refusal
from firstkey.ssh import restrictions, sshd_config

if TYPE_CHECKING:
    from firstkey.image.subject import Image
    from firstkey.ssh.sshd_config import Effective

CONFIG = "/etc/ssh/sshd_config"

# --- passwords ------------------------------------------------------------------------------------


def check_passwords(image: Image) -> Verdict:
    """Ask sshd, for every account and every client that a Match block speaks of."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    users = {"root": None, **dict.fromkeys(account.name for account in image.accounts.all())}
    open_to: dict[str, list[str]] = {}
    has_blocks = sshd_config.has_blocks(image.sshd.files.values())
    for user in users if has_blocks else ["root"]:
        for answer in image.sshd.answers(user):
            for keyword in _ways(answer.effective):
                open_to.setdefault(keyword, []).append(user)
    findings = []
    for keyword, names in open_to.items():
        whom = f"{names[0]}, for one" if has_blocks else "everybody"
        reason = f"sshd takes a password ({keyword} yes is effective for {whom})."
        remedy = f"Set {keyword} no before any other line that sets it"
        path, line = image.sshd.line_of(keyword)
        findings.append(Finding(path, reason, remedy, line))
    return Verdict(tuple(findings), image.sshd.doubts)


def _ways(effective: Effective) -> Iterator[str]:
    """The settings by which a password lets somebody in (sshd_config(5))."""
    if effective.first("passwordauthentication", "yes") == "yes":
        yield "PasswordAuthentication"
    if restrictions.use_pam(effective) and effective.first("kbdinteractiveauthentication", "yes") == "yes":
        yield "KbdInteractiveAuthentication"


# --- root -----------------------------------------------------------------------------------------


def check_root(image: Image) -> Verdict:
    """Ask sshd, for root and for every client that a Match block speaks of."""
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    ways = [restrictions.permit_root_login(answer.effective) for answer in image.sshd.answers("root")]
    way = next((way for way in ways if way != "no"), None)
    if way is None:
        return Verdict(doubts=image.sshd.doubts)
    reason = f"Root can log in over SSH (PermitRootLogin {way} is effective)."
    remedy = "Give the launch key to a user who may use sudo (Users=), then set PermitRootLogin no"
    path, line = image.sshd.line_of("PermitRootLogin")
    return Verdict((Finding(path, reason, remedy, line),), image.sshd.doubts)


# --- the system's end of life ---------------------------------------------------------------------

RELEASES = ("/etc/os-release", "/usr/lib/os-release")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
# The last day of security updates without an extra subscription, as far as it was known in November 2026; of
# others it is unknown. Where SUPPORT_END= is set (Amazon Linux, Fedora), that counts (os-release(5)).
ENDS = {
    "almalinux": {"8": "2029-03-01", "9": "2032-05-31", "10": "2035-05-31"},
    "amzn": {"2": "2026-06-30"},
    "centos": {"7": "2024-06-30", "8": "2024-05-31", "9": "2027-05-31", "10": "2030-01-01"},
    "debian": {"10": "2024-06-30", "11": "2026-08-31", "12": "2028-06-30", "13": "2030-06-30"},
    "rhel": {"7": "2024-06-30", "8": "2029-05-31", "9": "2032-05-31", "10": "2035-05-31"},
    "rocky": {"8": "2029-05-31", "9": "2032-05-31", "10": "2035-05-31"},
    "ubuntu": {"20.04": "2025-05-31", "22.04": "2027-04-30", "24.04": "2029-04-30", "26.04": "2031-04-30"},
}


def check_support(image: Image) -> Verdict:
    """Hold the release's last day against today."""
    path = next((path for path in RELEASES if image.tree.exists(path)), None)
    if path is None:
        return not_applicable("the image does not say what system it has")
    lines = (image.read(path) or b"").decode("utf-8", "replace").split("\n")
    fields = {name: value.strip().strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
    system, version = fields.get("ID", ""), fields.get("VERSION_ID", "")
    known = ENDS.get(system, {})
    end = fields.get("SUPPORT_END") or known.get(version) or known.get(version.partition(".")[0], "")
    if not DATE.fullmatch(end):
        detail = f"until when {system or 'this system'} {version} gets updates is not known here"
        return Verdict(doubts=(Doubt(path, Refusal(image_reasons.NOT_LOOKED_AT, detail)),))
    if end >= time.strftime("%Y-%m-%d", time.gmtime()):
        return Verdict()
    reason = f"{system} {version} has got no security updates since {end}."
    return Verdict((Finding(path, reason, "Build the image from a release that is supported"),))


# --- encrypted disks ------------------------------------------------------------------------------

# A key that is new at each boot: swap, or a scratch disk (crypttab(5)).
RANDOM = ("/dev/urandom", "/dev/random", "/dev/hw_random")


def check_encryption(image: Image) -> Verdict:
    """A finding for each disk that a key from elsewhere opens."""
    findings = []
    for number, (name, _, *more) in crypttab(image):
        if more[:1] and more[0] in RANDOM:
            continue
        reason = f"The disk {name} is encrypted: all instances would need the same key."
        remedy = "Build the image on a disk that is not encrypted, and remove the line"
        findings.append(Finding(CRYPTTAB, reason, remedy, number))
    return Verdict(tuple(findings))


RULES = (
    Rule(
        id="password-login",
        title="No account can log in over SSH with a password",
        severity=NOTE,
        prose=(
            "Where sshd accepts passwords, one that is set later, by the user of an instance or by a "
            "program, can be guessed from everywhere. AWS Marketplace takes no product with it. The "
            "rule checks the effective settings of PasswordAuthentication, and of "
            "KbdInteractiveAuthentication where sshd uses PAM, for every account and every client "
            "that a Match block names. seal sets neither: a private image may need passwords."
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
        check=check_root,
        by_hand=True,
        failing={CONFIG: "PermitRootLogin prohibit-password\n"},
        passing={CONFIG: "PermitRootLogin no\n"},
    ),
    Rule(
        id="supported-system",
        title="The operating system is supported",
        severity=NOTE,
        prose=(
            "A release without security updates is unsafe from its first boot, and AWS Marketplace "
            "removes products with it from its list. The date is SUPPORT_END= in os-release, or else "
            "a table of Debian, Ubuntu, Red Hat's and their kin; for other releases, the verdict is "
            "unknown."
        ),
        check=check_support,
        by_hand=True,
        failing={RELEASES[0]: 'ID=debian\nVERSION_ID="10"\n'},
        passing={RELEASES[0]: 'ID="amzn"\nVERSION_ID="2023"\nSUPPORT_END="9999-12-31"\n'},
    ),
    Rule(
        id="encrypted-disks",
        title="No disk of the image is encrypted",
        severity=NOTE,
        prose=(
            "A disk that is encrypted in the image has one key for all instances, and they cannot "
            "boot without it; AWS Marketplace takes no encrypted file systems. The rule checks the "
            "lines of /etc/crypttab, except those whose key is new at each boot. EBS encrypts volumes "
            "itself, which the rule does not see."
        ),
        check=check_encryption,
        by_hand=True,
        failing={CRYPTTAB: "data UUID=01234567-89ab-cdef-0123-456789abcdef none luks\n"},
        passing={CRYPTTAB: "# name device key options\nswap /dev/nvme1n1p2 /dev/urandom swap\n"},
    ),
)
