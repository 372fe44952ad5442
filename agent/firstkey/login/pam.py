"""Whether PAM's rules let the user in, and let the session begin.

PAM itself is asked about the account (system/pam.py). The files show which modules have a say, whether asking
is harmless, and which module may have refused. To open a session would change things, so of the session's
rules only the files are read. Modules that let every user pass are known by name. What another module says is
not known without a login, where its rule may refuse one.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from itertools import islice

from firstkey import NamedTuple, reasons
from firstkey import login_reasons as why
from firstkey.login.access_control import account
from firstkey.login.context import Context
from firstkey.login.finding import OK, Finding, note, obstacle, passed, unknown
from firstkey.reasons import FirstkeyError
from firstkey.system import pam as answers
from firstkey.system.sshd import matching
from firstkey.system.tree import Tree

CHECK, SESSION = "pam", "pam-session"
NOLOGIN = "/etc/nologin"
SHELLS = "/etc/shells"
LIMIT = 1024 * 1024
MOST = 1000
"""How many rules are looked at of files that include one another."""
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")

COUNTING = frozenset({"pam_faillock", "pam_tally", "pam_tally2"})
"""Their account rules reset counters of failed logins, and refuse no user."""
ACTING = COUNTING | {"pam_exec"}
"""Asking them would change something, or start a program that may."""
PLAIN = frozenset({"pam_unix", "pam_permit", "pam_deny", "pam_nologin", "pam_localuser", "pam_usertype"})
"""What these say of a local account is known from its files; pam_deny ends what pam_unix did not let pass."""

HARMLESS = frozenset(
    f"pam_{name}"
    for name in (
        "ck_connector", "env", "faildelay", "gnome_keyring", "group", "keyinit", "lastlog", "lastlog2",
        "limits", "localuser", "loginuid", "mail", "mkhomedir", "motd", "oddjob_mkhomedir", "permit",
        "selinux", "sss", "systemd", "tty_audit", "umask", "unix", "usertype", "winbind", "xauth",
    )
)  # fmt: skip
"""They let any local user's session begin; of pam_limits, the trial of the shell asks (session.py)."""
NAMESPACES = "/etc/security/namespace.conf"
# /lib is no link on Debian 11.
SECURITY = tuple(
    f"{place}/security" for place in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/lib/*", "/lib/*")
)

_RULE = re.compile(r"-?(\w+)\s+(\[[^\]]*\]|\S+)\s+(\S+)")
_CONTROL = re.compile(
    r"required|requisite|sufficient|optional"
    r"|\[\s*(?:\w+\s*=\s*(?:ignore|ok|done|bad|die|reset|\d+)(?=[\s\]])\s*)+\]"
)
_INCLUDE = re.compile(r"(@include)()\s+(\S+)")
NOWHERE = "192.0.2.1"
"""The client's address for PAM where none was named: an address elsewhere (RFC 5737)."""


def findings(context: Context) -> Iterator[Finding]:
    """The obstacles that files show; then PAM's own word, where it can be had without changing anything."""
    found = rules(context.target.tree, service(context), "account")
    shown = list(_shown(context, found))
    answer = _asked(context, found)
    choosy = next((rule for rule in found if not context.client and _names_clients(context, rule)), None)
    if isinstance(answer, Finding):
        yield from shown
        yield answer
    elif answer.code != answers.SUCCESS and (shown or not choosy):
        yield from shown or [_refused(context, answer, found)]
    else:
        yield from (finding for finding in shown if finding.status == OK)
        if choosy:
            detail = (
                f"asked about a client at {NOWHERE}, PAM says: {answer.words}; others may get another answer"
            )
            yield unknown(CHECK, why.CLIENT_DEPENDENT, detail, path=choosy.place, line=choosy.line)
        else:
            yield passed(CHECK, "PAM's account rules let the user in")


def service(context: Context) -> str:
    """Sshd 9.8 and later may ask PAM under another name."""
    return context.says("pamservicename") or "sshd"


def _asked(context: Context, found: list[Rule]) -> answers.Answer | Finding:
    """PAM's answer, or why it was not asked or did not give any."""
    modules = dict.fromkeys(rule.module for rule in found if rule.control != "optional")
    uncertain = [module for module in modules if module not in PLAIN | COUNTING]
    acting = ACTING.intersection(rule.module for rule in found)
    if not context.target.tree.is_running_system:
        return note(CHECK, why.NOT_RUNNING_SYSTEM, "PAM can only be asked on the system itself")
    if os.geteuid() != 0:
        return unknown(CHECK, reasons.NEEDS_ROOT, "only root can ask PAM about a user")
    if acting:
        detail = f"PAM was not asked, since {' '.join(sorted(acting))} would do more than answer"
        if uncertain:
            return unknown(CHECK, why.PAM_UNKNOWN, f"{detail}; {' '.join(uncertain)} has a say too")
        return passed(CHECK, f"{detail}; the other rules are known from their files")
    try:
        return answers.account(
            service(context), context.account, host=context.client.address if context.client else NOWHERE
        )
    except FirstkeyError as error:
        return unknown(CHECK, why.PAM_UNKNOWN, error.message)


def _shown(context: Context, found: list[Rule]) -> Iterator[Finding]:
    modules = [rule.module for rule in found]
    for rule in found:
        if _is_missing(context.target.tree, rule):
            detail = f"{rule.module} is not installed, and PAM refuses every user without it"
            yield obstacle(CHECK, why.PAM_REFUSES, detail, path=rule.place, line=rule.line)
    if "pam_nologin" in modules:
        yield from closed(context, "/run/nologin", "/var/run/nologin", NOLOGIN)
    if "pam_unix" in modules:
        yield from account(context, by_pam=True)
    if "pam_shells" in modules:
        content = (context.target.tree.read(SHELLS, limit=65536) or b"").decode("utf-8", "replace")
        shell = context.account.shell
        if shell not in [line.strip() for line in content.split("\n")]:
            detail = f"pam_shells refuses users whose shell is not in {SHELLS}, and {shell} is not"
            add = f"echo {shlex.quote(shell)} >> {SHELLS}"
            yield obstacle("shells", why.PAM_REFUSES, detail, path=SHELLS, command=add)


def closed(context: Context, *files: str) -> Iterator[Finding]:
    """That one of these files keeps all users but root out (nologin(5))."""
    found = next((path for path in files if context.target.tree.exists(path)), None)
    if found and context.account.uid != 0:
        detail = f"while {found} is there, only root is let in"
        yield obstacle("nologin", why.LOGINS_CLOSED, detail, path=found, command=f"rm {found}")


def _refused(context: Context, answer: answers.Answer, found: list[Rule]) -> Finding:
    """PAM does not say which module it was: the first that may have been is shown."""
    said = "; ".join(filter(None, [answer.words, *answer.messages]))
    likely = [rule for rule in found if rule.module not in PLAIN] or found
    lists = [place for rule in likely if (place := _list_of(rule))]
    about = {"path": likely[0].place, "line": likely[0].line} if likely else {}
    detail = f"PAM refuses {context.name}: {said}; asked was {' '.join(rule.module for rule in likely)}"
    detail += f", whose rules are in {' '.join(lists)}" if lists else ""
    known = {answers.NEW_PASSWORD_WANTED: why.PASSWORD_EXPIRED, answers.ACCOUNT_EXPIRED: why.ACCOUNT_EXPIRED}
    return obstacle(CHECK, known.get(answer.code, why.PAM_REFUSES), detail, **about)


def _names_clients(context: Context, rule: Rule) -> bool:
    """Whether the rule, or a line about the user in the list of pam_access, is about clients."""
    if rule.module != "pam_access":
        return "rhost" in rule.line
    tree, accounts, path = context.target.tree, context.target.accounts, _list_of(rule)
    below = f"{path.removesuffix('.conf')}.d"
    files = (path, *(f"{below}/{name}" for name in tree.names(below)))
    listed = ([*line.split(":", 2), "", ""] for file in files for _, line in lines(tree, file))
    return "sep=" in rule.line or any(
        origins.strip() != "ALL"
        and not all(word != context.name and accounts.find(word) for word in users.split())
        for _, users, origins, *_ in listed
    )


def _list_of(rule: Rule) -> str:
    """The file that the module goes by."""
    named = [word.partition("=")[2] for word in rule.arguments if word.startswith(("file=", "accessfile="))]
    usual = {"pam_access": "/etc/security/access.conf", "pam_time": "/etc/security/time.conf"}
    return named[0] if named else usual.get(rule.module, "")


# --- the session ---------------------------------------------------------------------------------


def session(context: Context) -> Iterator[Finding]:
    """Each rule that refuses the session, or may."""
    skipped = uncertain = 0
    for rule in rules(context.target.tree, service(context), "session"):
        if skipped:
            skipped -= 1
            continue
        if rule.may_refuse:
            yield from _of_session(context, rule, is_reached=not uncertain)
        uncertain = max(uncertain - 1, 0) if rule.control != "sufficient" else MOST
        if rule.module == "pam_permit":
            skipped = rule.skips
        elif rule.skips:
            uncertain = rule.skips


def _of_session(context: Context, rule: Rule, *, is_reached: bool) -> Iterator[Finding]:
    tree = context.target.tree
    detail = ""
    if not _CONTROL.fullmatch(rule.control):
        detail = f"PAM knows no {rule.control!a} before a module, and refuses the session"
    elif _is_missing(tree, rule):
        detail = f"{rule.module} is not installed, and PAM refuses the session without it"
    elif rule.module == "pam_deny" and is_reached:
        detail = "this rule refuses every session"
    if detail:
        yield obstacle(SESSION, why.SESSION_ENDS, detail, path=rule.place, line=rule.line)
    elif rule.module not in HARMLESS and (rule.module != "pam_namespace" or any(lines(tree, NAMESPACES))):
        detail = f"only a login shows whether {rule.module} lets the session begin"
        yield unknown(SESSION, why.PAM_UNKNOWN, detail, path=rule.place, line=rule.line)


def _is_missing(tree: Tree, rule: Rule) -> bool:
    """Whether PAM refuses since the module, or file, is not there; `-` only keeps that out of the log."""
    names = (rule.file,) if "/" in rule.file else tuple(f"{place}/{rule.file}" for place in SECURITY)
    usual = (f"{place}/pam_unix.so" for place in SECURITY)  # without it, modules are in another place
    is_there = any(matching(tree, each) for each in names) or not any(matching(tree, each) for each in usual)
    return rule.may_refuse and "module_unknown=ignore" not in rule.control and not is_there


# --- the rules, as far as their files show (pam.d(5)) -----------------------------------------------


class Rule(NamedTuple):
    """One rule: the file of its module and the words behind it, and where it stands."""

    control: str
    file: str
    arguments: tuple[str, ...]
    place: str
    line: str

    @property
    def module(self) -> str:
        """Its module's name, `pam_unix` and the like."""
        return self.file.rsplit("/", 1)[-1].removesuffix(".so")

    @property
    def may_refuse(self) -> bool:
        """Whether the service is refused where the module says no, or is not there."""
        if not (self.control.startswith("[") and _CONTROL.fullmatch(self.control)):
            return self.control not in ("optional", "sufficient")
        actions = dict(word.split("=", 1) for word in self.control[1:-1].split() if "=" in word)
        return not {"bad", "die"}.isdisjoint({actions.get("default", "bad"), *actions.values()})

    @property
    def skips(self) -> int:
        """How many rules are passed over where the module says yes."""
        match = re.search(r"\b(?:success|default)=(\d{1,3})\b", self.control)
        return int(match[1]) if match else 0


def rules(tree: Tree, service: str, kind: str) -> list[Rule]:
    """The service's rules of one kind (account, session), in order, included files followed."""
    for name in (service, "other"):  # which speaks for services that have no rules of their own
        path = _file(tree, name)
        found = list(islice(_rules(tree, path, kind, ()), MOST)) if path else []
        if found:
            return found
    return []


def _file(tree: Tree, service: str) -> str | None:
    places = [service] if service.startswith("/") else [f"{place}/{service}" for place in DIRECTORIES]
    return next((path for path in places if tree.read(path, limit=LIMIT) is not None), None)


def _rules(tree: Tree, file: str, kind: str, above: tuple[str, ...]) -> Iterator[Rule]:
    for place, line in lines(tree, file):
        match = _INCLUDE.match(line) or _RULE.match(line)
        if match is None or match[1].lower() not in (kind, "@include"):
            continue
        includes = match[2].lower() in ("include", "substack", "")
        inner = _file(tree, match[3]) if includes else None
        if inner is None:  # PAM wants a file that is included as it wants a module
            control = "required" if includes else match[2].lower()
            yield Rule(control, match[3], tuple(line[match.end() :].split()), place, line)
        elif inner not in (*above, file):
            yield from _rules(tree, inner, kind, (*above, file))


def lines(tree: Tree, path: str) -> Iterator[tuple[str, str]]:
    """Each line with its FILE:LINE, without comments. A backslash joins two, but not at a comment's end."""
    content = (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "replace")
    number = 1
    for raw in re.sub(r"(?m)^([^#\n]*)\\[ \t]*\n", "\\1\0", content).split("\n"):
        line = raw.replace("\0", " ").split("#")[0].strip()
        if line:
            yield f"{path}:{number}", line
        number += 1 + raw.count("\0")
