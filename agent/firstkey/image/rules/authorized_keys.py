"""G6: nobody's keys stay in the image, and nobody else is trusted to log in."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from firstkey import reasons
from firstkey.image import changes, secrets, whose
from firstkey.image.places import WIPE, places
from firstkey.image.rule import Rule
from firstkey.image.verdict import ERROR, Doubt, Finding, Verdict
from firstkey.image.watches import Named
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS
from firstkey.system import walk

if TYPE_CHECKING:
    from firstkey.image.changes import Change
    from firstkey.image.subject import Image
    from firstkey.model import Account
    from firstkey.ssh.sshd_config import Effective

# --- files of keys --------------------------------------------------------------------------------

KIND = "authorized-keys"
WATCH = Named(KIND, frozenset(("authorized_keys", "authorized_keys2")))
"""Also where sshd does not look today: in the homes of accounts that are gone, or under another setting."""
AFTERBURN = "~/.ssh/authorized_keys.d/*"
FRAGMENTS = "~/.ssh/authorized_keys*"
LIMIT = 64 * 1024 * 1024


def check_keys(image: Image) -> Verdict:
    """A finding for each file with a line that is no comment, and for each link in such a place.

    Owner and mode of what is emptied stay, so that sshd takes what is installed there later. Links go:
    nothing is installed through a link. What is no file of keys by its name or its content is left, whatever
    sshd is told: a setting may name any file of the system.
    """
    doubts: list[Doubt] = []
    configured = set(_configured(image, doubts))
    found = {sighting.path for sighting in image.sightings(KIND)}
    found.update(configured, image.glob(FRAGMENTS, doubts), image.glob(AFTERBURN, doubts))
    doubts += image.home_doubts
    files = (image.file(path, doubts) for path in found)
    findings = []
    for path in sorted({file.path for file in files if file}):
        try:
            content = image.read(path, limit=LIMIT) or b""
        except FirstkeyError as error:
            doubts.append(Doubt(path, error.refusal))
            continue
        is_of_keys = _is_of_keys(path, content)
        lines = keys_in(content) if is_of_keys or not image.links_to(path) else []
        if lines:
            empty = changes.Empty(path, "keys that give access", image.links_to(path))
            findings.append(_finding(path, lines, (empty,) if is_of_keys else ()))
    gone = {link for finding in findings for link in image.links_to(finding.path)}
    links = [_link(image, path, doubts) for path in sorted(configured) if path not in gone]
    findings += filter(None, links)
    return Verdict(tuple(findings), tuple(dict.fromkeys(doubts)))


def _finding(path: str, lines: list[int], made: tuple[Change, ...]) -> Finding:
    keys = "a key" if len(lines) == 1 else f"{len(lines)} keys"
    reason = f"The owner of {keys} in this file can log in to every instance of the image."
    return Finding(path, reason, line=lines[0], changes=made)


def _link(image: Image, path: str, doubts: list[Doubt]) -> Finding | None:
    """That it is a link, which goes; where the system has its files, only one to keys, or to nowhere."""
    try:
        status = image.status(path)
        if status is None or not stat.S_ISLNK(status.st_mode) or image.is_elsewhere(path):
            return None
        found = walk.follow(image.tree, path)
        if found is None and image.read(path) is not None:  # /dev/null: nothing is to be installed
            return None
    except FirstkeyError as error:
        if error.reason is not reasons.NOT_A_DIRECTORY:
            doubts.append(Doubt(path, error.refusal))
        return None
    is_of_keys = found is None or _is_of_keys(found.path, secrets.content_of(image, found.path) or b"")
    removal = changes.Remove(path, "a link in place of a file of keys")
    reason = "This is a link: the launch key is not installed through it, so no login would work."
    return Finding(path, reason, changes=(removal,) if is_of_keys or not whose.is_systems(path) else ())


def keys_in(content: bytes) -> list[int]:
    """The numbers of the lines that are neither empty nor comments: whatever else sshd may make of them."""
    return [
        number
        for number, line in enumerate(BytesIO(content), 1)
        if line.strip() and not line.lstrip().startswith(b"#")
    ]


def has_key(content: bytes) -> bool:
    """Whether any line has a key in it: the name of a type, and behind it what it names (sshd(8))."""
    lines = (line.split() for line in content.split(b"\n") if not line.lstrip().startswith(b"#"))
    # "AAAA" are the first bytes of the length of the type's name, which is short.
    return any(
        kind.startswith((b"ssh-", b"ecdsa-", b"sk-", b"rsa-")) and blob.startswith(b"AAAA")
        for words in lines
        for kind, blob in zip(words, words[1:])
    )


def _is_of_keys(path: str, content: bytes) -> bool:
    """Whether it is a file of keys by its name or its content, whoever may say so."""
    return path.rpartition("/")[2].startswith("authorized_keys") or has_key(content)


def _configured(image: Image, doubts: list[Doubt]) -> Iterator[str]:
    for account in image.accounts.all():
        for pattern in _patterns(image, account, doubts):
            try:
                yield from map(posixpath.normpath, image.sshd.key_files(account, [pattern]))
            except FirstkeyError as error:
                doubts.append(Doubt(pattern, error.refusal))
            # Where all users' files lie in one directory, those of accounts that are gone lie there too.
            directory, _, name = pattern.rpartition("/")
            if name in ("%u", "%U") and directory.startswith("/") and "%" not in directory:
                yield from (
                    path for path in image.glob(f"{directory}/*", doubts) if _is_beside_keys(image, path)
                )


def _is_beside_keys(image: Image, path: str) -> bool:
    """Whether a file beside those of the accounts is one of keys, and not of anything else."""
    try:
        file = image.file(path)
        return file is not None and has_key(image.read(file.path) or b"")
    except FirstkeyError:
        return True  # told by who looks at it


def _patterns(image: Image, account: Account, doubts: list[Doubt]) -> list[str]:
    """Where sshd looks for this account: the effective setting, and every other one that is written down."""
    written = [value for value in image.sshd.written("AuthorizedKeysFile") if value.lower() != "none"]
    return list(dict.fromkeys([*_effective(image, account, doubts).authorized_keys_files, *written]))


def _effective(image: Image, account: Account, doubts: list[Doubt]) -> Effective:
    if not image.sshd.is_there:
        return DEFAULTS
    try:
        return image.sshd.effective(account.name)
    except FirstkeyError as error:
        doubt = Doubt(image.sshd.config, error.refusal)
        if doubt not in doubts:
            doubts.append(doubt)
        return DEFAULTS


# --- what else sshd trusts ------------------------------------------------------------------------

_HOSTS, _KERBEROS = (
    "a list of hosts whose users are let in without a key",
    "a list of users whom Kerberos admits",
)
TRUSTED = (
    *places(_HOSTS, "/etc/{hosts,ssh/shosts}.equiv", "~/.{r,s}hosts"),
    *places(_KERBEROS, "~/.k5{login,users}"),
)
# nss-systemd(8): accounts besides those of passwd, with passwords and keys of their own.
RECORDS = places(
    "a login",
    "/etc/userdb/*.user{,-privileged}",
    how=WIPE,
    holds=re.compile(rb"\"(?:hashedPassword|sshAuthorizedKeys)\"\s*:\s*(?:\[\s*)?\"[^\"!*]"),
    kept=True,
    says="systemd accepts the password or key of this account.",
    advice="Remove it, if the account is not needed",
    severity=ERROR,
)
KEYWORDS = {
    "trustedusercakeys": "the owner of a key of that authority can admit any user",
    "authorizedkeyscommand": "a program decides whose keys are let in",
    "authorizedprincipalscommand": "a program decides whose certificates are let in",
    "hostbasedauthentication": "hosts that are named in a user's .shosts file vouch for their users",
    "permituserenvironment": "a user with a ForceCommand can have a shell by LD_PRELOAD",
}
PROGRAMS_OF_PACKAGES = (
    "/opt/aws/bin/eic_run_authorized_keys",  # EC2 Instance Connect, of Amazon Linux
    "/usr/share/ec2-instance-connect/eic_run_authorized_keys",  # the same, of Debian and Ubuntu
    "/usr/bin/sss_ssh_authorizedkeys",
    "/usr/bin/google_authorized_keys",
)


def check_trust(image: Image) -> Verdict:
    """Ask sshd for the settings, which may be intended."""
    found: dict[str, str] = {}
    names = [account.name for account in image.accounts.all()]
    for _, effective in image.sshd.logins(names) if image.sshd.is_there else ():
        for keyword in KEYWORDS:
            value = effective.first(keyword) or "none"
            if value.lower() not in ("none", "no") and _lets_in(keyword, value, effective):
                found.setdefault(keyword, value)
    findings = []
    for keyword, value in found.items():
        reason = f"sshd has {keyword} {value}: {KEYWORDS[keyword]}, on every instance of the image."
        remedy = f"Remove the {keyword} line, if it is not intended"
        findings.append(image.sshd.finding(keyword, reason, remedy))
    return Verdict(tuple(findings), image.sshd.doubts if image.sshd.is_there else ())


def _lets_in(keyword: str, value: str, effective: Effective) -> bool:
    if keyword == "hostbasedauthentication":  # what names hosts for all users is one of the TRUSTED
        return effective.first("ignorerhosts", "yes") != "yes"
    if keyword == "permituserenvironment":  # who is not restricted gains nothing by it
        return effective.first("forcecommand", "none") != "none"
    program, *arguments = value.split()
    return program not in PROGRAMS_OF_PACKAGES or not set(arguments) <= {"%u", "%f"}


RULES = (
    Rule(
        id="authorized-keys",
        title="No account has authorized keys",
        guideline="G6",
        severity=ERROR,
        prose=(
            "An instance that is bundled takes its launch key along, and the owner of that key can "
            "log in to every instance of the image. The rule checks the files that sshd reads for "
            "every account (AuthorizedKeysFile, under Match too), in any home, those in homes without "
            "an account and in /etc/skel, and every other file of that name. seal empties them, "
            "including the keys of the person who seals: that is the point. A file that only a "
            "setting names, and that has no key in it, is left and reported. The instance's own "
            "launch key is installed at boot, but never through a link: a link in the place of such a "
            "file is a finding too, and is removed."
        ),
        check=check_keys,
        failing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/etc/ssh/sshd_config": "AuthorizedKeysFile /etc/keys/%u .ssh/authorized_keys\n",
            "/etc/keys/gone": "ssh-ed25519 AAAA gone@builder\n",
            "/srv/svc/.ssh/authorized_keys": "# mine\nssh-ed25519 AAAA svc@builder\n",
        },
        passing={
            "/etc/passwd": "svc:x:990:990::/srv/svc:/bin/sh\n",
            "/srv/svc/.ssh/authorized_keys": "# none\n",
        },
        watches=(WATCH,),
    ),
    Rule(
        id="trusted-logins",
        title="No other host or authority is trusted to log in",
        guideline="G6",
        prose=(
            "Keys are not the only logins without a password: .rhosts and hosts.equiv files name "
            "hosts whose users may log in, .k5login files the users whom Kerberos admits, records in "
            "/etc/userdb accounts with passwords and keys of their own, TrustedUserCAKeys an "
            "authority that can admit any user, AuthorizedKeysCommand a program that decides (EC2 "
            "Instance Connect's, sssd's and Google's own count as intended), HostbasedAuthentication "
            "with IgnoreRhosts no lets each user name such hosts, and PermitUserEnvironment gives a "
            "user with a ForceCommand a shell. The settings count as sshd reports them. seal removes "
            "the lists; the records and settings are only reported, since they may be intended."
        ),
        places=(*TRUSTED, *RECORDS),
        check=check_trust,
        failing={"/etc/hosts.equiv": "builder\n"},
        passing={"/etc/hosts.equiv": ""},
    ),
)
