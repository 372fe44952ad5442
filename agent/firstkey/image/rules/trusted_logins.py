"""G6, beyond keys: nobody else is trusted to log in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey.image import changes, credential_files, leftovers
from firstkey.image.leftovers import Place
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, WARNING, Finding, Verdict

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image

KIND = "trusted-logins"
PLACES = (
    Place("/etc/hosts.equiv", "a list of hosts whose users are let in without a key"),
    Place("/etc/ssh/shosts.equiv", "a list of hosts whose users are let in without a key"),
    Place("~/.rhosts", "a list of hosts whose users are let in without a key"),
    Place("~/.shosts", "a list of hosts whose users are let in without a key"),
    Place("~/.k5login", "a list of whom Kerberos lets in"),
    Place("~/.k5users", "a list of whom Kerberos lets in"),
)
# nss-systemd(8): accounts besides those of passwd, with passwords and keys of their own.
RECORDS = tuple(
    (pattern, "a login", re.compile(rb"\"(?:hashedPassword|sshAuthorizedKeys)\"\s*:\s*(?:\[\s*)?\"[^\"!*]"))
    for pattern in ("/etc/userdb/*.user", "/etc/userdb/*.user-privileged")
)
KEYWORDS = {
    "trustedusercakeys": "whoever has a key of that authority can let anybody in",
    "authorizedkeyscommand": "a program decides whose keys are let in",
    "authorizedprincipalscommand": "a program decides whose certificates are let in",
}
PROGRAMS_OF_PACKAGES = (
    "/opt/aws/bin/eic_run_authorized_keys",  # EC2 Instance Connect, of Amazon Linux
    "/usr/share/ec2-instance-connect/eic_run_authorized_keys",  # the same, of Debian and Ubuntu
    "/usr/bin/sss_ssh_authorizedkeys",
    "/usr/bin/google_authorized_keys",
)


def check(image: Image) -> Verdict:
    """What sshd trusts besides files of keys."""
    seen = leftovers.survey(image, PLACES)
    files = leftovers.checker(*PLACES)(image).findings
    records = credential_files.checker(KIND, (), (), RECORDS)(image)
    findings = (*files, *map(_record, records.findings), *_settings(image))
    return Verdict(findings, (*seen.doubts, *records.doubts))


def _record(found: Finding) -> Finding:
    reason = "systemd lets in whoever has the password or key of this account."
    remedy = f"rm -- {changes.quoted(found.path)}, if nobody needs it"
    return Finding(found.path, reason, remedy, severity=ERROR)


def _settings(image: Image) -> Iterator[Finding]:
    if not image.sshd.is_there:
        return
    for keyword, what in KEYWORDS.items():
        for words in image.sshd.lines(keyword):
            value = " ".join(words)
            is_known = words[:1] and words[0] in PROGRAMS_OF_PACKAGES and set(words[1:]) <= {"%u", "%f"}
            if value.lower() not in ("", "none") and not is_known:
                reason = f"sshd is told {keyword} {value}: {what}, on every instance of the image."
                yield Finding(image.sshd.config, reason, f"Take the {keyword} line out, if it is not meant")


def _failing(tree: Builder) -> None:
    tree.file("/etc/hosts.equiv", "builder\n")


def _passing(tree: Builder) -> None:
    tree.file("/etc/hosts.equiv", "")


RULE = Rule(
    id="trusted-logins",
    title="No other host or authority is trusted to log in",
    guideline="G6",
    severity=WARNING,
    prose=(
        "Keys are not the only way in without a password: .rhosts and hosts.equiv files name hosts whose "
        "users are let in, .k5login files whom Kerberos lets in, records in /etc/userdb accounts with "
        "passwords and keys of their own, TrustedUserCAKeys an authority that can let anybody in, "
        "AuthorizedKeysCommand a program that decides (EC2 Instance Connect's, sssd's and Google's own are "
        "taken as meant). seal removes the lists; the records and settings are only reported, since somebody "
        "may mean them."
    ),
    check=check,
    remedy=leftovers.remover(*PLACES),
    failing=_failing,
    passing=_passing,
)
