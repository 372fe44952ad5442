"""G6: no keys stay in the image, and no other host or authority is trusted to log in."""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Iterator

from firstkey.image import changes, secrets, whose
from firstkey.image.places import WIPE, Place, unbraced
from firstkey.image.rule import Rule
from firstkey.image.scan import Named
from firstkey.image.subject import Image, noted
from firstkey.image.verdict import ERROR, Finding, Part, Unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh.sshd_config import DEFAULTS, Effective
from firstkey.system import walk
from firstkey.system.sshd_tree import key_files

# --- files of keys --------------------------------------------------------------------------------

KIND = "authorized-keys"
NAMES = frozenset(("authorized_keys", "authorized_keys2"))
"""Also where sshd does not look today: in the homes of accounts that are gone, or under another setting."""
IN_HOMES = unbraced("~/.ssh/authorized_keys{*,.d/*}")
"""Those of other settings, and afterburn's."""
LIMIT = 64 * 1024 * 1024
_LINE = re.compile(rb"^[^\S\n]*[^\s#]", re.MULTILINE)
"""A line that is neither empty nor a comment, whatever else sshd may make of it."""
_KEY = re.compile(rb"^(?![^\S\n]*#)(?:.*[^\S\n])?(?:ssh|ecdsa|sk|rsa)-\S*[^\S\n]+AAAA", re.MULTILINE)
"""A line with a key: the name of a type, and behind it what it names (sshd(8)). `AAAA` are the first bytes of
the length of that name, which is short.
"""


def _check_keys(image: Image) -> Iterator[Part]:
    """A finding for each file with a line that is no comment, and for each link in such a place.

    Owner and mode of what is emptied stay, so that sshd takes what is installed there later. Links go:
    nothing is installed through a link. What is no file of keys by its name or its content is left, whatever
    a setting says: it may name any file of the system.
    """
    unknowns: list[Unknown] = []
    configured = set(_configured(image, unknowns))
    found = {sighting.path for sighting in image.sightings(KIND)}
    found.update(configured, *(image.glob(pattern, unknowns) for pattern in IN_HOMES))
    unknowns += image.home_unknowns
    files = (image.file(path, unknowns) for path in sorted(found))
    for path in sorted({file.path for file in files if file}):
        content, links = b"", image.links_to(path)
        with noted(path, unknowns):
            content = image.read(path, limit=LIMIT) or b""
        is_of_keys, first = _is_of_keys(path, content), _LINE.search(content)
        if first and (is_of_keys or not links):
            configured.difference_update(links)
            number = sum(1 for _ in _LINE.finditer(content))
            keys = "a key" if number == 1 else f"{number} keys"
            reason = f"The owner of {keys} in this file can log in to every instance of the image."
            empty = changes.Empty(path, "keys that give access", links=links)
            line = content.count(b"\n", 0, first.start()) + 1
            yield Finding(path, reason, line=line, changes=(empty,) if is_of_keys else ())
    for path in sorted(configured):
        with noted(path, unknowns):
            yield from _link(image, path)
    yield from unknowns


def _link(image: Image, path: str) -> Iterator[Finding]:
    """That it is a link, which goes; where the system has its files, only one to keys, or to nowhere."""
    status = image.status(path)
    if status is None or not stat.S_ISLNK(status.st_mode) or image.is_elsewhere(path):
        return
    found = walk.follow(image.tree, path)
    if found is None and image.read(path) is not None:  # /dev/null: nothing is to be installed
        return
    is_of_keys = found is None or _is_of_keys(found.path, secrets.content_of(image, found.path) or b"")
    removal = changes.Remove(path, "a link in place of a file of keys")
    reason = "This is a link: the launch key is not installed through it, so no login would work."
    yield Finding(path, reason, changes=(removal,) if is_of_keys or not whose.is_systems(path) else ())


def _is_of_keys(path: str, content: bytes) -> bool:
    """Whether it is a file of keys by its name or its content, whatever a setting makes of it."""
    return path.rpartition("/")[2].startswith("authorized_keys") or bool(_KEY.search(content))


def _configured(image: Image, unknowns: list[Unknown]) -> Iterator[str]:
    """Where sshd looks: by each account's effective setting, and by every other one that is written down."""
    written = [value for value in image.sshd.written("AuthorizedKeysFile") if value.lower() != "none"]
    for account in image.accounts.all():
        effective = DEFAULTS
        try:
            effective = image.sshd.effective(account.name) if image.sshd.is_there else DEFAULTS
        except FirstkeyError as error:
            unknowns.append(Unknown(image.sshd.main_file, error.refusal))
        for pattern in dict.fromkeys((*effective.authorized_keys_files, *written)):
            with noted(pattern, unknowns):
                yield from map(posixpath.normpath, key_files(image.sshd, account, [pattern]))
            # Where all users' files lie in one directory, those of accounts that are gone lie there too.
            directory, _, name = pattern.rpartition("/")
            if name in ("%u", "%U") and directory.startswith("/") and "%" not in directory:
                beside = image.glob(f"{directory}/*", unknowns)
                yield from (path for path in beside if _is_beside_keys(image, path))


def _is_beside_keys(image: Image, path: str) -> bool:
    """Whether a file beside those of the accounts is one of keys, and not of anything else."""
    try:
        file = image.file(path)
        return file is not None and bool(_KEY.search(image.read(file.path) or b""))
    except FirstkeyError:
        return True  # an unknown of the check itself


# --- what else sshd trusts ------------------------------------------------------------------------

TRUSTED = (
    Place(
        "{/etc/{hosts,ssh/shosts}.equiv,~/.{r,s}hosts}",
        "a list of hosts whose users are let in without a key",
    ),
    Place("~/.k5{login,users}", "a list of users whom Kerberos admits"),
    # nss-systemd(8): accounts besides those of passwd, with passwords and keys of their own.
    Place(
        "/etc/userdb/*.user{,-privileged}",
        "a login",
        how=WIPE,
        holds=re.compile(rb"\"(?:hashedPassword|sshAuthorizedKeys)\"\s*:\s*(?:\[\s*)?\"[^\"!*]"),
        kept=True,
        says="systemd accepts the password or key of this account.",
        advice="Remove it, if the account is not needed",
        severity=ERROR,
    ),
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


def _check_trust(image: Image) -> Iterator[Part]:
    """Ask sshd for the settings, which may be intended."""
    if not image.sshd.is_there:
        return
    found: dict[str, str] = {}
    for _, effective in image.sshd.logins(account.name for account in image.accounts.all()):
        for keyword in KEYWORDS:
            value = effective.first(keyword) or "none"
            if value.lower() not in ("none", "no") and _lets_in(keyword, value, effective):
                found.setdefault(keyword, value)
    for keyword, value in found.items():
        reason = f"sshd has {keyword} {value}: {KEYWORDS[keyword]}, on every instance of the image."
        yield image.sshd.finding(keyword, reason, f"Remove the {keyword} line, if it is not intended")
    yield from image.sshd.unknowns


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
        prose="""An instance that is bundled takes its launch key along, and the owner of that key can log in
        to every instance of the image. The rule checks the files that sshd reads for every account
        (AuthorizedKeysFile, under Match too), and every file of that name, in homes without an account and
        /etc/skel too. seal empties them, including the keys of the person who seals: that is the point. A
        file that only a setting names, and that has no key in it, is only reported. A link in the place of
        such a file is removed: no launch key is installed through it.""",
        check=_check_keys,
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
        watches=(Named(KIND, NAMES),),
    ),
    Rule(
        id="trusted-logins",
        title="No other host or authority is trusted to log in",
        guideline="G6",
        prose="""Keys are not the only logins without a password: .rhosts and hosts.equiv name hosts whose
        users may log in, .k5login the users whom Kerberos admits, /etc/userdb accounts with passwords and
        keys of their own, TrustedUserCAKeys an authority that can admit any user, AuthorizedKeysCommand a
        program that decides (those of EC2 Instance Connect, sssd and Google count as intended).
        HostbasedAuthentication with IgnoreRhosts no lets each user name such hosts; PermitUserEnvironment
        gives a user with a ForceCommand a shell. sshd reports the settings. seal removes the lists; the
        records and settings may be intended, and are only reported.""",
        places=TRUSTED,
        check=_check_trust,
        failing={"/etc/hosts.equiv": "builder\n"},
        passing={"/etc/hosts.equiv": ""},
    ),
)
