"""Whether PAM's account rules let the user in: PAM itself is asked, and the files say what refused."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.errors import FirstkeyError
from firstkey.login import pam_rules
from firstkey.login.admission import day, today
from firstkey.login.finding import OK, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.system import openssh, pam, shadow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.case import Case

CHECK = "pam"
NOLOGIN_FILES = ("/run/nologin", "/var/run/nologin", "/etc/nologin")
SHELLS = "/etc/shells"
NOWHERE = "192.0.2.1"
"""The client that PAM is told of where none was named: an address elsewhere (RFC 5737)."""


def findings(case: Case) -> Iterator[Finding]:
    """The obstacles that files show; then PAM's own word, where it can be had without changing anything."""
    modules = pam_rules.account_modules(case.site.tree, _service(case))
    shown = list(_shown(case, modules))
    answer = _asked(case, modules)
    if isinstance(answer, Finding):
        yield from shown
        yield answer
    elif answer.code == pam.SUCCESS:
        yield from (finding for finding in shown if finding.status == OK)
        yield passed(CHECK, "PAM's account rules let the user in")
    else:
        yield from shown or [_refused(case, answer, modules)]


def _service(case: Case) -> str:
    """Sshd 9.8 and later may ask PAM under another name."""
    return case.says("pamservicename") or "sshd"


def _asked(case: Case, modules: list[str]) -> pam.Answer | Finding:
    """PAM's answer, or why it was not asked or did not give any."""
    doubtful = [module for module in modules if module not in pam_rules.PLAIN | pam_rules.COUNTING]
    counting = pam_rules.COUNTING.intersection(modules)
    if not case.site.tree.is_running_system:
        return note(CHECK, why.NOT_RUNNING_SYSTEM, "PAM can only be asked on the system itself")
    if not openssh.is_root():
        return unknown(CHECK, reasons.NEEDS_ROOT, "only root can ask PAM about a user")
    if counting:
        detail = f"PAM was not asked, since {' '.join(sorted(counting))} would reset its counters"
        if doubtful:
            return unknown(CHECK, why.PAM_UNKNOWN, f"{detail}; {' '.join(doubtful)} has a say too")
        return passed(CHECK, f"{detail}; the other rules are known from their files")
    try:
        return pam.account(_service(case), case.account, host=case.client.address if case.client else NOWHERE)
    except FirstkeyError as error:
        if not doubtful:
            return passed(
                CHECK, f"PAM could not be asked ({error.message}); all its rules are known from files"
            )
        return unknown(CHECK, why.PAM_UNKNOWN, f"{error.message}; {' '.join(doubtful)} has a say")


def _shown(case: Case, modules: list[str]) -> Iterator[Finding]:
    if "pam_nologin" in modules and case.account.uid != 0:
        yield from _closed(case)
    if "pam_unix" in modules:
        yield from _expired(case)
    if "pam_shells" in modules:
        yield from _unlisted_shell(case)


def _closed(case: Case) -> Iterator[Finding]:
    found = next((path for path in NOLOGIN_FILES if case.site.tree.exists(path)), None)
    if found:
        detail = f"while {found} is there, PAM lets only root in"
        yield obstacle("nologin", why.LOGINS_CLOSED, detail, path=found, remedy=f"rm {found}")


def _expired(case: Case) -> Iterator[Finding]:
    try:
        entry = shadow.of(case.site.tree, case.name)
    except FirstkeyError as error:
        yield unanswered("account", error, path=shadow.PATH)
        return
    name = shlex.quote(case.name)
    if entry and entry.has_expired(case.now) and entry.expires is not None:
        detail = f"the account expired on {day(entry.expires)}; by the clock it is {today(case)}"
        yield obstacle("account", why.ACCOUNT_EXPIRED, detail, path=shadow.PATH, remedy=f"chage -E -1 {name}")
    elif entry and entry.wants_new_password(case.now):
        detail = f"the password of {case.name} has expired: a new one is demanded before there is a shell"
        remedy = f"chage -d $(date +%F) {name}"
        yield obstacle("account", why.PASSWORD_EXPIRED, detail, path=shadow.PATH, remedy=remedy)


def _unlisted_shell(case: Case) -> Iterator[Finding]:
    content = (case.site.tree.read(SHELLS, limit=65536) or b"").decode("utf-8", "replace")
    shell = case.account.shell
    if shell not in [line.strip() for line in content.split("\n")]:
        detail = f"pam_shells lets nobody in whose shell is not in {SHELLS}, and {shell} is not"
        yield obstacle(
            "shells", why.PAM_REFUSES, detail, path=SHELLS, remedy=f"echo {shlex.quote(shell)} >> {SHELLS}"
        )


def _refused(case: Case, answer: pam.Answer, modules: list[str]) -> Finding:
    service = _service(case)
    if answer.code == pam.NEW_PASSWORD_WANTED:
        reason = why.PASSWORD_EXPIRED
    elif answer.code == pam.ACCOUNT_EXPIRED:
        reason = why.ACCOUNT_EXPIRED
    else:
        reason = why.PAM_REFUSES
    said = "; ".join(filter(None, [answer.words, *answer.messages]))
    if case.client is None and "pam_access" in modules:
        detail = f"pam_access refuses a client at {NOWHERE} ({said}); it may let others in"
        return unknown(CHECK, why.CLIENT_DEPENDENT, detail, path="/etc/security/access.conf")
    detail = f"PAM refuses {case.name}: {said}; its account rules: {' '.join(modules)}"
    remedy = reason.remedy.replace("NAME", shlex.quote(case.name))
    return obstacle(CHECK, reason, detail, path=f"/etc/pam.d/{service}", remedy=remedy)
