"""G5: sshd lets somebody in whom the launch key is installed for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from firstkey import login_reasons
from firstkey.image import installers, units
from firstkey.image.rule import Rule, by_hand
from firstkey.image.verdict import ERROR, NOTE, Doubt, Finding, Verdict, not_applicable
from firstkey.reasons import FirstkeyError, Refusal
from firstkey.ssh import restrictions

if TYPE_CHECKING:
    from firstkey.image.rule import Builder
    from firstkey.image.subject import Image
    from firstkey.ssh.sshd_config import Effective

NOLOGIN = "/etc/nologin"
NO_ROOT = ("no", "forced-commands-only")


def check(image: Image) -> Verdict:
    """Ask for everybody who gets the launch key; the first login works if one of them can log in."""
    keys = image.site.config.keys
    names = [name for name in keys.users if not (keys.redirect_root and name == "root")]
    if installers.off(image) or not names:
        return not_applicable("it is not firstkey that installs the launch key for somebody")
    if not image.sshd.is_there:
        return not_applicable("no SSH server is installed")
    closed = tuple(_closed(image))
    if closed:
        return Verdict(closed)
    verdicts = [_verdict(image, name) for name in names]
    findings = tuple(finding for verdict in verdicts for finding in verdict.findings)
    if all(verdict.findings for verdict in verdicts):
        return Verdict(findings)
    doubts = tuple(doubt for verdict in verdicts for doubt in verdict.doubts)
    is_sure = any(not verdict.findings and not verdict.doubts for verdict in verdicts)
    notes = tuple(finding._replace(severity=NOTE) for finding in findings)
    return Verdict(notes, () if is_sure else doubts)


def _closed(image: Image) -> Iterator[Finding]:
    """What keeps everybody out."""
    masked = next((unit for unit in installers.SERVICES if units.is_masked(image.tree, unit)), None)
    if masked and not installers.server_is_on(image):
        reason = f"{masked} is masked, and no other unit starts sshd."
        yield Finding(f"{units.ADMINISTRATOR}/{masked}", reason, f"systemctl unmask {masked}")


def _verdict(image: Image, name: str) -> Verdict:
    said: list[Finding | Doubt] = list(_account(image, name))
    try:
        said += _settings(image, name, image.sshd.effective(name))
    except FirstkeyError as error:
        said.append(Doubt(image.sshd.config, error.refusal))
    findings = tuple(one for one in said if isinstance(one, Finding))
    return Verdict(findings, tuple(one for one in said if isinstance(one, Doubt)))


def _account(image: Image, name: str) -> Iterator[Finding]:
    account = image.accounts.find(name)
    user = image.site.config.user(name)
    if account is None and not user.create:
        remedy = f"Set Create=yes in [User {name}] of firstkey.conf, or Users= in [Keys] to an account"
        yield Finding("/etc/passwd", f"The launch key is for {name}, an account that there is not.", remedy)
    shell = account.shell if account else user.shell
    if restrictions.is_no_shell(shell):
        yield Finding("/etc/passwd", f"The shell of {name} is {shell}.", f"usermod -s /bin/sh {name}")
    if not _is_root(image, name) and image.tree.exists(NOLOGIN):
        yield Finding(NOLOGIN, f"Nobody but root can log in, and {name} is not root.", f"rm {NOLOGIN}")


def _settings(image: Image, name: str, effective: Effective) -> Iterator[Finding | Doubt]:
    """What sshd's effective configuration has against the user, as allowed_user of its auth.c asks."""
    root = restrictions.permit_root_login(effective)
    if _is_root(image, name) and root in NO_ROOT:
        yield _finding(image, "PermitRootLogin", _ROOT, f"{root}, and {name} is root")
    if effective.first("pubkeyauthentication", "yes") == "no":
        yield _finding(image, "PubkeyAuthentication", _PUBKEY, "no")
    commands = effective.first("authorizedkeyscommand", "none")
    if not effective.authorized_keys_files and commands == "none":
        yield _finding(image, "AuthorizedKeysFile", "Set it to a file, or take it out", "none")
    for listing in restrictions.listings(effective.words, name, _groups(image, name), None):
        keyword = listing.keyword
        if listing.refuses is None:
            detail = f"{keyword} is about {name} from some places only"
            yield Doubt(image.sshd.config, Refusal(login_reasons.CLIENT_DEPENDENT, detail))
        elif listing.refuses:
            has = "has" if listing.fits else "does not have"
            yield _finding(image, keyword, LISTS[keyword], f"{' '.join(listing.words)}, which {has} {name}")


_ROOT = "Set PermitRootLogin prohibit-password, or Users= in [Keys] of firstkey.conf to another account"
_PUBKEY = "Set PubkeyAuthentication yes"
LISTS = {
    "DenyUsers": "Take the user out of DenyUsers",
    "AllowUsers": "Add the user to AllowUsers",
    "DenyGroups": "Take the user out of the group, or the group out of DenyGroups",
    "AllowGroups": "Add the user to one of the groups: usermod -aG GROUP NAME",
}


def _groups(image: Image, name: str) -> list[str]:
    account = image.accounts.find(name)
    wanted = image.site.config.user(name).groups
    return [*(image.accounts.group_names(account) if account else [name]), *wanted]


def _is_root(image: Image, name: str) -> bool:
    account = image.accounts.find(name)
    return account.uid == 0 if account else name == "root"


def _finding(image: Image, keyword: str, remedy: str, value: str) -> Finding:
    place = image.sshd.place_of(keyword)
    if place == image.sshd.config:
        place = image.sshd.where(keyword) or place
    path, _, line = place.partition(":")
    detail = f"sshd is told {keyword} {value}, so the launch key lets nobody in there."
    return Finding(path, detail, remedy, int(line) if line else None)


def _failing(tree: Builder) -> None:
    _passing(tree)
    tree.file("/etc/ssh/sshd_config", "PermitRootLogin no\n")


def _passing(tree: Builder) -> None:
    installers.example(tree)
    tree.link(installers.ENABLED, f"/usr/lib/systemd/system/{installers.UNIT}")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    tree.file("/etc/ssh/sshd_config", "PermitRootLogin prohibit-password\nAllowUsers root\n")


RULE = Rule(
    id="first-login",
    title="sshd lets the launch key's user in",
    guideline="G5",
    severity=ERROR,
    prose=(
        "A launch key is of no use where sshd does not let its user in. Checked is, for everybody in Users= "
        "of firstkey.conf, that there is such an account or Create=yes, with a shell, that /etc/nologin is "
        "not about it, and that sshd's effective settings let it in with a key: PermitRootLogin, "
        "PubkeyAuthentication, AuthorizedKeysFile, the lists of users and groups that are allowed and "
        "denied; and that sshd's unit is not masked. If one of the users can log in, the others are notes. "
        "firstkey doctor tells more, on an instance. seal leaves this: the settings may be meant, for other "
        "users."
    ),
    check=check,
    remedy=by_hand,
    failing=_failing,
    passing=_passing,
)
