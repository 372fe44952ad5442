"""Whether sshd lets this user log in at all, before it looks at any key (auth.c: allowed_user)."""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Iterator, Sequence

from firstkey import login_reasons as why
from firstkey.login import view
from firstkey.login.context import Context, status
from firstkey.login.finding import Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.ssh import access, restrictions
from firstkey.system import shadow, sshd_tree

ANYBODY_RUNS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
CLOCK_FILES = ("/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config", "/var/lib/firstkey/ledger.json")
"""Files that are written while the clock is right, and never before the machine's present."""
CLOCK_TOLERANCE_SECONDS = 300.0


def findings(context: Context) -> Iterator[Finding]:
    """Lock and expiry (where PAM is not the one to judge), shell, the four lists of users and groups."""
    yield from _clock(context)
    if context.says("refuseconnection") == "yes":
        detail = f"RefuseConnection is yes for {context.name}"
        yield context.in_config("refuseconnection", why.CONNECTION_REFUSED, detail)
    if not restrictions.use_pam(context.effective):
        yield from account(context, by_pam=False)
    if not context.says("chrootdirectory"):
        yield _shell(context)
    yield from _lists(context)


def _clock(context: Context) -> Iterator[Finding]:
    """A clock that is behind makes nothing expire, and one that is ahead everything; only the first shows."""
    for path in CLOCK_FILES:
        try:
            found = status(context.target, path)
        except FirstkeyError:
            continue
        if found and found.st_mtime > context.now + CLOCK_TOLERANCE_SECONDS:
            detail = f"the clock says {_today(context)}, and {path} was written later than that"
            yield note("clock", why.CLOCK_BEHIND, detail, path=path)
            return


def account(context: Context, *, by_pam: bool) -> Iterator[Finding]:
    """Whether the account is over or locked, by its line in shadow(5), as PAM or sshd itself judges it."""
    check, name = "pam" if by_pam else "account", shlex.quote(context.name)
    try:
        entry = shadow.of(context.target.tree, context.name)
    except FirstkeyError as error:
        yield unanswered(check, error, path=shadow.PATH)
        return
    # sshd itself takes an account for expired on the day after; PAM does on the day.
    now = context.now if by_pam else context.now - shadow.DAY
    ended = entry.expires if entry and entry.has_expired(now) else None
    if ended is not None:
        detail = f"the account expired on {_day(ended)}; by the clock it is {_today(context)}"
        yield obstacle(check, why.ACCOUNT_EXPIRED, detail, path=shadow.PATH, command=f"chage -E -1 {name}")
    if by_pam:
        if entry and ended is None and entry.wants_new_password(context.now):
            detail = f"the password of {context.name} has expired: PAM asks for a new one before the shell"
            remedy = f"chage -d $(date +%F) {name}"
            yield obstacle(check, why.PASSWORD_EXPIRED, detail, path=shadow.PATH, command=remedy)
    elif entry and entry.is_locked:
        detail = f"the account {context.name} is locked, and sshd refuses it since UsePAM is no"
        remedy = f"usermod -p '*' {name}"
        yield obstacle(check, why.ACCOUNT_LOCKED, detail, path=shadow.PATH, command=remedy)
    elif ended is None:
        yield passed(check, f"the account {context.name} is neither locked nor expired")


def _day(number: int) -> str:
    """The date of a day of shadow(5)."""
    return time.strftime("%Y-%m-%d", time.gmtime(number * shadow.DAY))


def _today(context: Context) -> str:
    """The date by the clock."""
    return _day(int(context.now // shadow.DAY))


def _shell(context: Context) -> Finding:
    shell = context.account.shell or "/bin/sh"
    remedy = f"usermod -s /bin/sh {shlex.quote(context.name)}"
    try:
        seen = view.look(context.target, context.account, shell, content=False)
    except FirstkeyError as error:
        return unanswered("shell", error, path=shell)
    if seen.file is None:
        detail = f"the shell of {context.name} does not exist"
        return obstacle("shell", why.SHELL_MISSING, detail, path=shell, command=remedy)
    is_file = stat.S_ISREG(seen.file.mode)
    if not (is_file and seen.file.mode & ANYBODY_RUNS):
        detail = f"the shell of {context.name} is not a file that can be run ({view.looks(seen.file)})"
        remedy = f"chmod 0755 {shlex.quote(seen.canonical)}" if is_file else remedy
        return obstacle("shell", why.SHELL_MISSING, detail, path=shell, command=remedy)
    return passed("shell", f"the shell {shell} is there and can be run", path=shell)


def _lists(context: Context) -> Iterator[Finding]:
    """What the four lists of users and groups say."""
    groups = context.target.accounts.group_names(context.account)
    for listing in access.listings(context.words, context.name, groups, context.client):
        check = listing.keyword.lower()
        if listing.refuses is None:
            detail = f"{listing.word} is about {context.name} from some places only"
            place = sshd_tree.where(context.sshd, check, listing.word)
            yield unknown(check, why.CLIENT_DEPENDENT, detail, path=place and str(place))
        elif listing.refuses:
            yield _refused(context, listing, groups)
        elif listing.fits:
            yield passed(check, f"{listing.keyword} has {listing.group or listing.word}")


def _refused(context: Context, listing: access.Listing, groups: Sequence[str]) -> Finding:
    """The list that turns the user away, with what to change."""
    keyword, words, word, command, edit = listing.keyword, " ".join(listing.words), listing.word, "", ""
    if keyword == "DenyUsers":
        reason, detail = why.USER_DENIED, f"{keyword} {word} is about {context.name}"
    elif keyword == "AllowUsers":
        reason, detail = why.USER_NOT_ALLOWED, f"{keyword} {words} does not have {context.name}"
        detail += f" from {context.client.address}" if context.client else ""
        if not any(access.matches(context.name, each.partition("@")[0]) for each in listing.words):
            edit = f"s/{keyword}/& {context.name}/I"  # else the list allows the user from some places only
    elif keyword == "DenyGroups":
        reason = why.GROUP_DENIED
        detail = f"{keyword} {word} is about {listing.group}, a group of {context.name}"
    else:
        reason = why.GROUP_NOT_ALLOWED
        detail = f"{keyword} {words} has none of the groups of {context.name}: {' '.join(groups)}"
        known = {group for group, _, _ in context.target.accounts.groups()}
        plain = next((word for word in listing.words if word in known), "")
        command = plain and f"usermod -aG {shlex.quote(plain)} {shlex.quote(context.name)}"
    found = context.in_config(keyword.lower(), reason, detail, word=word, edit=edit)
    return found._replace(remedy=command, is_command=True) if command else found
