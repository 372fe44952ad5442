"""All rules, in the order in which they are reported: by guideline, and within one as they are read best.

A file has one rule (RULE) or several (RULES), perhaps of more than one guideline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey.image.rules import (
    access_keys,
    account_backups,
    account_files,
    ami_tools,
    authorized_keys,
    certificates,
    cloud_credentials,
    cloud_init_data,
    debconf_passwords,
    everything_seen,
    first_boot_questions,
    first_login,
    histories,
    host_key_maker,
    host_keys,
    identities,
    key_installer,
    machine_id,
    marketplace,
    other_passwords,
    private_keys,
    publisher,
    residue,
    root_password,
    root_password_login,
    self_signed,
    system_credentials,
    tool_credentials,
    traces,
    trusted_logins,
    use_dns,
)
from firstkey.image.verdict import ERROR, NOTE

if TYPE_CHECKING:
    from firstkey.image.rule import Rule

SHARED_AMI, MARKETPLACE, PRIVATE = "shared-ami", "marketplace", "private"

PROFILES: dict[str, dict[str, str]] = {
    SHARED_AMI: {},
    # What AWS asks of every product (AWS Marketplace Seller Guide: AMI-based product requirements), and what
    # its scan refuses: no way in but a key pair, and no key or credential in the image for any reason.
    MARKETPLACE: {
        "encrypted-disks": ERROR,
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
    "G6": "Nobody's keys stay in the image",
    "G7": "sshd does not depend on DNS",
    "G8": "Say who made the image",
    "G9": "Keep your own secrets out of the image",
    "beyond": "Beyond the guide",
}


def of(profile: str) -> tuple[Rule, ...]:
    """All rules, as severe as the profile has them."""
    severities = PROFILES[profile]
    return tuple(
        rule._replace(severity=severities[rule.id]) if rule.id in severities else rule for rule in ALL
    )


_BY_FILE = (
    *ami_tools.RULES,
    root_password_login.RULE,
    root_password.RULE,
    other_passwords.RULE,
    host_keys.RULE,
    host_key_maker.RULE,
    key_installer.RULE,
    first_login.RULE,
    authorized_keys.RULE,
    trusted_logins.RULE,
    use_dns.RULE,
    publisher.RULE,
    histories.RULE,
    private_keys.RULE,
    certificates.RULE,
    self_signed.RULE,
    cloud_credentials.RULE,
    tool_credentials.RULE,
    system_credentials.RULE,
    access_keys.RULE,
    machine_id.RULE,
    first_boot_questions.RULE,
    cloud_init_data.RULE,
    *residue.RULES,
    *identities.RULES,
    *traces.RULES,
    account_files.RULE,
    account_backups.RULE,
    debconf_passwords.RULE,
    *marketplace.RULES,
    everything_seen.RULE,
)

ALL: tuple[Rule, ...] = tuple(sorted(_BY_FILE, key=lambda rule: tuple(GUIDELINES).index(rule.guideline)))
