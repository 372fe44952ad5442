"""Whether sshd lets this user log in at all, before it looks at any key (auth.c: allowed_user)."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey.errors import FirstkeyError
from firstkey.login import view
from firstkey.login.finding import Finding, note, obstacle, passed, unanswered, unknown
from firstkey.ssh import patterns
from firstkey.system import shadow, sshd_question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.case import Case
    from firstkey.reasons import Reason

ANYBODY_RUNS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


CLOCK_WITNESSES = ("/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config", "/var/lib/firstkey/ledger.json")
"""Files that are written while the clock is right, and never before the machine's present."""
CLOCK_TOLERANCE_SECONDS = 300.0


def findings(case: Case) -> Iterator[Finding]:
    """Lock and expiry (where PAM is not the one to judge), shell, the four lists of users and groups."""
    yield from _clock(case)
    if not case.effective.use_pam:
        yield from _account(case)
    if not case.says("chrootdirectory"):
        yield _shell(case)
    yield from _users(case)
    yield from _groups(case)


def _clock(case: Case) -> Iterator[Finding]:
    """A clock that is behind makes nothing expire, and one that is ahead everything; only the first shows."""
    for path in CLOCK_WITNESSES:
        try:
            place = case.site.tree.locate(path)
            if place is None:
                continue
            with place[0] as directory:
                found = directory.status(place[1])
        except FirstkeyError:
            continue
        if found and found.st_mtime > case.now + CLOCK_TOLERANCE_SECONDS:
            detail = f"the clock says {today(case)}, and {path} was written later than that"
            yield note("clock", why.CLOCK_BEHIND, detail, path=path)
            return


def _account(case: Case) -> Iterator[Finding]:
    try:
        entry = shadow.of(case.site.tree, case.name)
    except FirstkeyError as error:
        yield unanswered("account", error, path=shadow.PATH)
        return
    name = shlex.quote(case.name)
    # sshd itself takes an account for expired on the day after; PAM does on the day.
    if entry and entry.expires is not None and case.now // shadow.DAY > entry.expires:
        detail = f"the account expired on {day(entry.expires)}; by the clock it is {today(case)}"
        yield obstacle("account", why.ACCOUNT_EXPIRED, detail, path=shadow.PATH, remedy=f"chage -E -1 {name}")
    if entry and entry.is_locked:
        detail = f"the account {case.name} is locked, and sshd heeds that since UsePAM is no"
        remedy = f"usermod -p '*' {name}"
        yield obstacle("account", why.ACCOUNT_LOCKED, detail, path=shadow.PATH, remedy=remedy)
    elif not (entry and entry.expires is not None and case.now // shadow.DAY > entry.expires):
        yield passed("account", f"the account {case.name} is neither locked nor expired")


def day(number: int) -> str:
    """The date of a day of shadow(5)."""
    import datetime as dt

    try:
        return (dt.date(1970, 1, 1) + dt.timedelta(days=number)).isoformat()
    except OverflowError:
        return f"day {number}"


def today(case: Case) -> str:
    """The date by the clock."""
    return day(int(case.now // shadow.DAY))


def _shell(case: Case) -> Finding:
    shell = case.account.shell or "/bin/sh"
    remedy = f"usermod -s /bin/sh {shlex.quote(case.name)}"
    try:
        seen = view.look(case.site, case.account, shell, content=False)
    except FirstkeyError as error:
        return unanswered("shell", error, path=shell)
    if seen.file is None:
        detail = f"the shell of {case.name} does not exist"
        return obstacle("shell", why.SHELL_MISSING, detail, path=shell, remedy=remedy)
    if not (seen.file.is_file and seen.file.mode & ANYBODY_RUNS):
        detail = f"the shell of {case.name} is not a file that can be run ({seen.file.looks})"
        remedy = f"chmod 0755 {shlex.quote(seen.canonical)}" if seen.file.is_file else remedy
        return obstacle("shell", why.SHELL_MISSING, detail, path=shell, remedy=remedy)
    return passed("shell", f"the shell {shell} is there and can be run", path=shell)


def _users(case: Case) -> Iterator[Finding]:
    denied, pattern = _any_user(case, "denyusers")
    if denied:
        yield _listed(
            case, "denyusers", why.USER_DENIED, f"DenyUsers {pattern} is about {case.name}", pattern
        )
    elif denied is None:
        yield _depends(case, "denyusers", pattern)
    if not case.words("allowusers"):
        return
    allowed, pattern = _any_user(case, "allowusers")
    if allowed is None:
        yield _depends(case, "allowusers", pattern)
    elif allowed:
        yield passed("allowusers", f"AllowUsers has {pattern}")
    else:
        detail = f"AllowUsers {' '.join(case.words('allowusers'))} does not have {case.name}"
        detail += f" from {case.client.address}" if case.client else ""
        yield _listed(case, "allowusers", why.USER_NOT_ALLOWED, detail)


def _any_user(case: Case, keyword: str) -> tuple[bool | None, str]:
    """Whether one of the keyword's patterns fits (None: that depends on the client), and which one."""
    doubtful = ""
    for pattern in case.words(keyword):
        try:
            fits = patterns.user_matches(case.name, case.client, pattern)
        except patterns.BadPattern:
            # sshd ends the connection over it, whatever the list is for.
            return keyword == "denyusers", pattern
        if fits:
            return True, pattern
        doubtful = pattern if fits is None else doubtful
    return (None, doubtful) if doubtful else (False, "")


def _groups(case: Case) -> Iterator[Finding]:
    if not (case.words("denygroups") or case.words("allowgroups")):
        return
    groups = case.site.accounts.group_names(case.account)
    denied = _first_match(groups, case.words("denygroups"))
    if denied:
        detail = f"DenyGroups {denied[1]} is about {denied[0]}, a group of {case.name}"
        yield _listed(case, "denygroups", why.GROUP_DENIED, detail, denied[1])
    if not case.words("allowgroups"):
        return
    allowed = _first_match(groups, case.words("allowgroups"))
    if allowed:
        yield passed("allowgroups", f"AllowGroups has {allowed[0]}")
        return
    wanted = case.words("allowgroups")
    detail = f"AllowGroups {' '.join(wanted)} has none of the groups of {case.name}: {' '.join(groups)}"
    plain = next((word for word in wanted if not set("*?") & set(word)), "GROUP")
    remedy = f"usermod -aG {shlex.quote(plain)} {shlex.quote(case.name)}"
    yield _listed(case, "allowgroups", why.GROUP_NOT_ALLOWED, detail)._replace(remedy=remedy)


def _first_match(groups: list[str], wanted: list[str]) -> tuple[str, str] | None:
    return next(((group, word) for group in groups for word in wanted if patterns.matches(group, word)), None)


def _listed(case: Case, keyword: str, reason: Reason, detail: str, word: str = "") -> Finding:
    place = sshd_question.where(case.site.tree, keyword, word)
    remedy = reason.remedy.replace("sshd_config", place) if place else reason.remedy
    return obstacle(keyword, reason, detail, path=place, remedy=remedy.replace("the user", case.name))


def _depends(case: Case, keyword: str, pattern: str) -> Finding:
    place = sshd_question.where(case.site.tree, keyword, pattern)
    return unknown(
        keyword, why.CLIENT_DEPENDENT, f"{pattern} is about {case.name} from some places only", path=place
    )
