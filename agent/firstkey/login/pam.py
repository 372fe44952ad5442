"""Whether PAM's account rules let the user in: PAM itself is asked, and the files say what refused.

The files cannot tell what a module will answer (system/pam.py asks). They tell which modules have a say,
whether asking is harmless, and which module it may have been that refused.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey import reasons
from firstkey.login.access_control import expired
from firstkey.login.finding import OK, Finding, note, obstacle, passed, unanswered, unknown
from firstkey.reasons import FirstkeyError
from firstkey.system import pam as answers
from firstkey.system import shadow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.context import Context
    from firstkey.system.tree import Tree

CHECK = "pam"
NOLOGIN = "/etc/nologin"
SHELLS = "/etc/shells"
LIMIT = 1024 * 1024
FILES = 100
"""How many files are read of those that one another include."""
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")

COUNTING = frozenset({"pam_faillock", "pam_tally", "pam_tally2"})
"""Their account rules reset counters of failed logins: asking would change something."""
PLAIN = frozenset({"pam_unix", "pam_permit", "pam_deny", "pam_nologin", "pam_localuser", "pam_usertype"})
"""What these say of a local account is known from its files; pam_deny ends what pam_unix did not let pass."""

_RULE = re.compile(r"-?(\w+)\s+(\[[^\]]*\]|\S+)\s+(\S+)")
NOWHERE = "192.0.2.1"
"""The client that PAM is told of where none was named: an address elsewhere (RFC 5737)."""


def findings(context: Context) -> Iterator[Finding]:
    """The obstacles that files show; then PAM's own word, where it can be had without changing anything."""
    modules = account_modules(context.site.tree, _service(context))
    shown = list(_shown(context, modules))
    answer = _asked(context, modules)
    if isinstance(answer, Finding):
        yield from shown
        yield answer
    elif answer.code == answers.SUCCESS:
        yield from (finding for finding in shown if finding.status == OK)
        yield passed(CHECK, "PAM's account rules let the user in")
    else:
        yield from shown or [_refused(context, answer, modules)]


def _service(context: Context) -> str:
    """Sshd 9.8 and later may ask PAM under another name."""
    return context.says("pamservicename") or "sshd"


def _asked(context: Context, modules: list[str]) -> answers.Answer | Finding:
    """PAM's answer, or why it was not asked or did not give any."""
    doubtful = [module for module in modules if module not in PLAIN | COUNTING]
    counting = COUNTING.intersection(modules)
    if not context.site.tree.is_running_system:
        return note(CHECK, why.NOT_RUNNING_SYSTEM, "PAM can only be asked on the system itself")
    if os.geteuid() != 0:
        return unknown(CHECK, reasons.NEEDS_ROOT, "only root can ask PAM about a user")
    if counting:
        detail = f"PAM was not asked, since {' '.join(sorted(counting))} would reset its counters"
        if doubtful:
            return unknown(CHECK, why.PAM_UNKNOWN, f"{detail}; {' '.join(doubtful)} has a say too")
        return passed(CHECK, f"{detail}; the other rules are known from their files")
    try:
        return answers.account(
            _service(context), context.account, host=context.client.address if context.client else NOWHERE
        )
    except FirstkeyError as error:
        if not doubtful:
            return passed(
                CHECK, f"PAM could not be asked ({error.message}); all its rules are known from files"
            )
        return unknown(CHECK, why.PAM_UNKNOWN, f"{error.message}; {' '.join(doubtful)} has a say")


def _shown(context: Context, modules: list[str]) -> Iterator[Finding]:
    if "pam_nologin" in modules:
        yield from closed(context, "/run/nologin", "/var/run/nologin", NOLOGIN)
    if "pam_unix" in modules:
        yield from _expired(context)
    if "pam_shells" in modules:
        yield from _unlisted_shell(context)


def closed(context: Context, *files: str) -> Iterator[Finding]:
    """That one of these files keeps everybody but root out (nologin(5))."""
    found = next((path for path in files if context.site.tree.exists(path)), None)
    if found and context.account.uid != 0:
        detail = f"while {found} is there, only root is let in"
        yield obstacle("nologin", why.LOGINS_CLOSED, detail, path=found, remedy=f"rm {found}")


def _expired(context: Context) -> Iterator[Finding]:
    try:
        entry = shadow.of(context.site.tree, context.name)
    except FirstkeyError as error:
        yield unanswered("account", error, path=shadow.PATH)
        return
    over = expired(context, entry, context.now)
    if over:
        yield over
    elif entry and entry.wants_new_password(context.now):
        detail = f"the password of {context.name} has expired: a new one is demanded before there is a shell"
        remedy = f"chage -d $(date +%F) {shlex.quote(context.name)}"
        yield obstacle("account", why.PASSWORD_EXPIRED, detail, path=shadow.PATH, remedy=remedy)


def _unlisted_shell(context: Context) -> Iterator[Finding]:
    content = (context.site.tree.read(SHELLS, limit=65536) or b"").decode("utf-8", "replace")
    shell = context.account.shell
    if shell not in [line.strip() for line in content.split("\n")]:
        detail = f"pam_shells lets nobody in whose shell is not in {SHELLS}, and {shell} is not"
        yield obstacle(
            "shells", why.PAM_REFUSES, detail, path=SHELLS, remedy=f"echo {shlex.quote(shell)} >> {SHELLS}"
        )


def _refused(context: Context, answer: answers.Answer, modules: list[str]) -> Finding:
    service = _service(context)
    if answer.code == answers.NEW_PASSWORD_WANTED:
        reason = why.PASSWORD_EXPIRED
    elif answer.code == answers.ACCOUNT_EXPIRED:
        reason = why.ACCOUNT_EXPIRED
    else:
        reason = why.PAM_REFUSES
    said = "; ".join(filter(None, [answer.words, *answer.messages]))
    if context.client is None and "pam_access" in modules:
        detail = f"pam_access refuses a client at {NOWHERE} ({said}); it may let others in"
        return unknown(CHECK, why.CLIENT_DEPENDENT, detail, path="/etc/security/access.conf")
    detail = f"PAM refuses {context.name}: {said}; its account rules: {' '.join(modules)}"
    remedy = reason.remedy.replace("NAME", shlex.quote(context.name))
    return obstacle(CHECK, reason, detail, path=f"/etc/pam.d/{service}", remedy=remedy)


# --- the rules, as far as their files tell (pam.d(5)) -----------------------------------------------


def account_modules(tree: Tree, service: str) -> list[str]:
    """The modules of the service's account rules, in order, `pam_unix` and the like."""
    for name in (service, "other"):  # which speaks for services that have no rules of their own
        found = [module for kind, module in _rules(tree, name, {}) if kind == "account"]
        if found:
            return found
    return []


Rules = dict[tuple[str, str], None]
"""(type, module) of each rule, once, in order."""


def _rules(tree: Tree, service: str, known: dict[str, Rules]) -> Rules:
    """The rules of a service, included files followed: each is read once, however often it is named."""
    if service in known or len(known) >= FILES:
        return known.get(service, {})
    found = known[service] = {}
    for line in _lines(tree, service):
        words = line.split()
        if words[0] == "@include" and len(words) > 1:
            found.update(_rules(tree, words[1], known))
            continue
        match = _RULE.match(line)
        if match is None:
            continue
        kind, control, target = match.groups()
        if control in ("include", "substack"):
            found.update({rule: None for rule in list(_rules(tree, target, known)) if rule[0] == kind})
        else:
            found[kind, target.rsplit("/", 1)[-1].removesuffix(".so")] = None
    return found


def _lines(tree: Tree, service: str) -> list[str]:
    paths = [service] if service.startswith("/") else [f"{place}/{service}" for place in DIRECTORIES]
    content = next(filter(None, (tree.read(path, limit=LIMIT) for path in paths)), b"")
    joined = content.decode("utf-8", "replace").replace("\\\n", " ")
    lines = [line.split("#")[0].strip() for line in joined.split("\n")]
    return [line for line in lines if line]
