"""All rules, in the order in which they are reported: by guideline, and within one as they are read best.

A file has the RULES of a guideline, or those that share what they read.
"""

from __future__ import annotations

from firstkey.image.rule import Rule
from firstkey.image.rules import (
    ami_tools,
    authorized_keys,
    boot,
    credentials,
    host_keys,
    identities,
    marketplace,
    passwords,
    private_keys,
    publisher,
    residue,
    sshd_settings,
    traces,
)
from firstkey.image.verdict import ERROR, NOTE

SHARED_AMI, MARKETPLACE, PRIVATE = "shared-ami", "marketplace", "private"

PROFILES: dict[str, dict[str, str]] = {
    SHARED_AMI: {},
    # What AWS asks of every product (AWS Marketplace Seller Guide: AMI-based product requirements), and what
    # its scan refuses: no way in but a key pair, and no key or credential in the image for any reason.
    MARKETPLACE: {
        "encrypted-disks": ERROR,
        "launch-user-sudo": ERROR,
        "password-login": ERROR,
        "root-login": ERROR,
        "supported-system": ERROR,
        "trusted-logins": ERROR,
        "self-signed-keys": ERROR,
    },
    # What an image that stays with those who built it need not hide from them.
    PRIVATE: {
        "builder-names": NOTE,
        "known-hosts": NOTE,
        "login-records": NOTE,
        "logs": NOTE,
        "mail": NOTE,
        "process-accounting": NOTE,
        "sudo-timestamps": NOTE,
        "temporary-files": NOTE,
    },
}
"""For whom the image is: the severities of rules where they are not the rule's own."""

GUIDELINES = {
    "G1": "Keep the AMI tools current",
    "G2": "No password login for root over SSH",
    "G3": "No local root password",
    "G4": "No SSH host keys in the image",
    "G5": "Install the launch key at boot",
    "G6": "No keys stay in the image",
    "G7": "sshd does not depend on DNS",
    "G8": "Say who made the image",
    "G9": "Keep your own secrets out of the image",
    "beyond": "Beyond the guide",
}


def of(profile: str) -> tuple[Rule, ...]:
    """All rules, as severe as the profile has them."""
    severities = PROFILES[profile]
    return tuple(rule._replace(severity=severities.get(rule.id, rule.severity)) for rule in ALL)


def by_id(name: str) -> Rule:
    """The rule of that id. Raises KeyError."""
    return {rule.id: rule for rule in ALL}[name]


_OF_THE_GUIDE = (ami_tools, host_keys, authorized_keys, publisher, private_keys, credentials)
# What makes copies disturb each other comes first.
_BEYOND = (identities, boot, residue, traces, passwords, sshd_settings, marketplace)

ALL: tuple[Rule, ...] = tuple(
    rule._replace(prose=" ".join(rule.prose.split()))
    for guideline in GUIDELINES
    for file in (*_OF_THE_GUIDE, *_BEYOND)
    for rule in file.RULES
    if rule.guideline == guideline
)
