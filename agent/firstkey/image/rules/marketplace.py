"""What AWS Marketplace asks of every product, and the guide does not of a shared image.

The source is the AWS Marketplace Seller Guide, AMI-based product requirements. The rules are notes unless the
profile says otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from firstkey.boot.account_entries import SUDOERS_FILES, sudoers
from firstkey.boot.accounts import WriteSudoers
from firstkey.image import sudo
from firstkey.image.rule import advisory
from firstkey.image.rules import boot
from firstkey.image.rules.credentials import CRYPTTAB, crypttab
from firstkey.image.subject import Image
from firstkey.image.verdict import Finding, Part, Unknown, not_applicable, not_looked_at
from firstkey.reasons import FirstkeyError
from firstkey.system.accounts import OS_RELEASE, release_fields

# --- the system's end of life ---------------------------------------------------------------------

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


def _check_support(image: Image) -> Iterator[Part]:
    """Hold the release's last day against today."""
    path = next((path for path in OS_RELEASE if image.tree.exists(path)), None)
    if path is None:
        yield not_applicable("the image does not say what system it has")
        return
    fields = release_fields(image.read(path) or b"")
    system, version = fields.get("ID", ""), fields.get("VERSION_ID", "")
    known = ENDS.get(system, {})
    end = fields.get("SUPPORT_END") or known.get(version) or known.get(version.partition(".")[0], "")
    if not DATE.fullmatch(end):
        why = f"until when {system or 'this system'} {version} gets updates is not known here"
        yield not_looked_at(path, why)
    elif end < time.strftime("%Y-%m-%d", time.gmtime()):
        reason = f"{system} {version} has got no security updates since {end}."
        yield Finding(path, reason, "Build the image from a release that is supported")


# --- encrypted disks ------------------------------------------------------------------------------

# A key that is new at each boot: swap, or a scratch disk (crypttab(5)).
RANDOM = ("/dev/urandom", "/dev/random", "/dev/hw_random")


def _check_encryption(image: Image) -> Iterator[Part]:
    """A finding for each disk that a key from elsewhere opens."""
    for number, (name, _, *more) in crypttab(image):
        if not (more and more[0] in RANDOM):
            reason = f"The disk {name} is encrypted: all instances would need the same key."
            remedy = "Build the image on a disk that is not encrypted, and remove the line"
            yield Finding(CRYPTTAB, reason, remedy, number)


# --- root's rights for the launch key's user ------------------------------------------------------

SUDO = "/usr/bin/sudo"


def _check_launch_user(image: Image) -> Iterator[Part]:
    """One of those who get the launch key has to be root, or what sudo makes root."""
    names = boot.launch_users(image)
    if not names:
        yield not_applicable(boot.OF_ANOTHER)
        return
    to_come = [WriteSudoers(user) for user in map(image.target.config.user, names) if user.sudo]
    rules = sudoers(image.tree, {rule.path: rule.content for rule in to_come})
    answers = [_becomes_root(image, name, rules) for name in names]
    if True in answers:
        return
    unknowns = [answer for answer in dict.fromkeys(answers) if isinstance(answer, Unknown)]
    yield from unknowns
    if not unknowns:
        whom = " and ".join(names)
        reason = f"The launch key is for {whom}, and sudo makes none of them root without a password."
        remedy = "Install sudo, and set Sudo=ALL=(ALL) NOPASSWD: ALL in [User NAME] of firstkey.conf"
        yield Finding(SUDOERS_FILES[0], reason, remedy)


def _becomes_root(image: Image, name: str, rules: str) -> bool | Unknown:
    account = image.accounts.find(name)
    numbers = (account.uid, image.accounts.group_ids(account)) if account else None
    if boot.is_root(image, name) or not image.tree.exists(SUDO):
        return boot.is_root(image, name)
    try:
        return sudo.makes_root(rules, name, boot.groups(image, name), numbers)
    except FirstkeyError as error:
        return Unknown(SUDOERS_FILES[0], error.refusal)


RULES = (
    advisory(
        id="launch-user-sudo",
        title="The launch key's user can become root",
        prose="""AWS Marketplace requires that a user has root's rights by sudo. An image has no passwords, so
        sudo must not ask for one: a rule for a group (%sudo, wheel) without NOPASSWD is not enough, and wins
        where it comes last. This host's cvtsudoers reads the image's sudoers files, and those that Sudo= in
        firstkey.conf will write, for each user in Users=; one user is enough. The verdict is unknown without
        cvtsudoers, and where it depends on an instance's name, its netgroups or the date, or on noexec,
        exempt_group or runas_default. requiretty does not count: a login has a terminal. Who becomes root is
        yours to decide.""",
        check=_check_launch_user,
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
    advisory(
        id="supported-system",
        title="The operating system is supported",
        prose="""A release without security updates is unsafe from its first boot, and AWS Marketplace removes
        products with it. The date is SUPPORT_END= in os-release, or else a table of Debian, Ubuntu, Red Hat's
        and their kin; for other releases, the verdict is unknown.""",
        check=_check_support,
        failing={OS_RELEASE[0]: 'ID=debian\nVERSION_ID="10"\n'},
        passing={OS_RELEASE[0]: 'ID="amzn"\nVERSION_ID="2023"\nSUPPORT_END="9999-12-31"\n'},
    ),
    advisory(
        id="encrypted-disks",
        title="No disk of the image is encrypted",
        prose="""All instances would have one key, and could not boot without it; AWS Marketplace takes no
        encrypted file systems. The rule checks /etc/crypttab, without lines whose key is new at each boot.
        EBS encrypts volumes itself, which the rule does not see.""",
        check=_check_encryption,
        failing={CRYPTTAB: "data UUID=01234567-89ab-cdef-0123-456789abcdef none luks\n"},
        passing={CRYPTTAB: "# name device key options\nswap /dev/nvme1n1p2 /dev/urandom swap\n"},
    ),
)
