"""What AWS Marketplace asks of every product, and the guide does not of a shared image.

The source is the AWS Marketplace Seller Guide, AMI-based product requirements. The rules are notes unless the
profile says otherwise.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from firstkey import image_reasons
from firstkey.boot.account_entries import SUDOERS_FILES, sudoers
from firstkey.boot.accounts import WriteSudoers
from firstkey.image import sudo
from firstkey.image.rule import Rule
from firstkey.image.rules import boot
from firstkey.image.rules.credentials import CRYPTTAB, crypttab
from firstkey.image.verdict import NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import Refusal

if TYPE_CHECKING:
    from firstkey.image.subject import Image

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


# --- root's rights for the launch key's user ------------------------------------------------------

SUDO = "/usr/bin/sudo"


def check_launch_user(image: Image) -> Verdict:
    """One of those who get the launch key has to be root, or what sudo makes root."""
    names = boot.launch_users(image)
    if not names:
        return not_applicable(boot.OF_ANOTHER)
    to_come = [WriteSudoers(user) for user in map(image.site.config.user, names) if user.sudo]
    rules = sudoers(image.tree, {rule.path: rule.content for rule in to_come})
    is_there = image.tree.exists(SUDO)
    if any(
        boot.is_root(image, name) or (is_there and sudo.makes_root(rules, name, boot.groups(image, name)))
        for name in names
    ):
        return Verdict()
    reason = (
        f"The launch key is for {' and '.join(names)}, and sudo makes none of them root without a password."
    )
    remedy = "Install sudo, and set Sudo=ALL=(ALL) NOPASSWD: ALL in [User NAME] of firstkey.conf"
    return Verdict((Finding(SUDOERS_FILES[0], reason, remedy),))


RULES = (
    Rule(
        id="launch-user-sudo",
        title="The launch key's user can become root",
        severity=NOTE,
        prose=(
            "The owner of an instance needs root's rights on it, and AWS Marketplace requires that a "
            "user has them by sudo. An image has no passwords, so sudo must not ask for one: a rule "
            "for a group (%sudo, wheel) without NOPASSWD is not enough, and wins where it comes last. "
            "The rule has this host's cvtsudoers read the image's sudoers files, and those that Sudo= "
            "in firstkey.conf will write, for each user in Users=; one user is enough. Where "
            "cvtsudoers is not installed, the verdict is unknown. seal leaves this: who becomes root "
            "is yours to decide."
        ),
        check=check_launch_user,
        by_hand=True,
        failing={
            **boot.WORKING,
            "/etc/firstkey/firstkey.conf": "[Keys]\nUsers=ann\n",
            "/etc/passwd": "ann:x:1000:27::/home/ann:/bin/sh\n",
            "/etc/group": "sudo:x:27:\n",
            "/etc/sudoers": "ann ALL=(ALL) NOPASSWD: ALL\n%sudo ALL=(ALL:ALL) ALL\n",
            SUDO: "",
        },
        passing={
            **boot.WORKING,
            "/etc/firstkey/firstkey.conf": "[Keys]\nUsers=ann\n[User ann]\nSudo=ALL=(ALL) NOPASSWD: ALL\n",
            "/etc/sudoers": "%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
            SUDO: "",
        },
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
