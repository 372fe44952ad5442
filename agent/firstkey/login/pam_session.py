"""What PAM's session rules do to a login, as far as their files tell: to open a session would change things.

Modules that let everybody pass are known by name. What another one says is not known without a login, where
its rule may refuse one.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from firstkey import NamedTuple
from firstkey import login_reasons as why
from firstkey.login import pam
from firstkey.login.finding import Finding, obstacle, unknown
from firstkey.system import command
from firstkey.system.sshd import matching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.login.context import Context
    from firstkey.login.pam import Rule
    from firstkey.system.tree import Tree

CHECK = "pam-session"
HARMLESS = frozenset(
    f"pam_{name}"
    for name in (
        "ck_connector", "env", "faildelay", "gnome_keyring", "group", "keyinit", "lastlog", "lastlog2",
        "limits", "localuser", "loginuid", "mail", "mkhomedir", "motd", "oddjob_mkhomedir", "permit",
        "selinux", "sss", "systemd", "tty_audit", "umask", "unix", "usertype", "winbind", "xauth",
    )
)  # fmt: skip
"""They let any local user's session begin, pam_limits up to the limits that it has."""
NAMESPACES = "/etc/security/namespace.conf"
LIMITS = "/etc/security/limits.conf"
SECURITY = (
    "/lib/security",
    "/lib64/security",
    "/usr/lib/security",
    "/usr/lib64/security",
    "/usr/lib/*/security",
    "/lib/*/security",  # where /lib is no link: Debian 11
)
LIMIT = 1024 * 1024
# limits.conf(5): the unit of each item.
ITEMS = {
    "core": (resource.RLIMIT_CORE, 1024), "cpu": (resource.RLIMIT_CPU, 60),
    "data": (resource.RLIMIT_DATA, 1024), "fsize": (resource.RLIMIT_FSIZE, 1024),
    "memlock": (resource.RLIMIT_MEMLOCK, 1024), "nofile": (resource.RLIMIT_NOFILE, 1),
    "rss": (resource.RLIMIT_RSS, 1024), "stack": (resource.RLIMIT_STACK, 1024),
    "nproc": (resource.RLIMIT_NPROC, 1), "as": (resource.RLIMIT_AS, 1024),
}  # fmt: skip
LOGINS = ("maxlogins", "maxsyslogins")
UNLIMITED = ("unlimited", "infinity", "-1")


class Limit(NamedTuple):
    """A line of limits.conf(5) that is about the user."""

    kind: str
    item: str
    value: str
    place: str
    line: str


def findings(context: Context) -> Iterator[Finding]:
    """Each rule that refuses the session, or may; then pam_limits' count of sessions."""
    skipped = doubtful = 0
    for rule in pam.rules(context.site.tree, pam.service(context), "session"):
        if skipped:
            skipped -= 1
            continue
        if rule.may_refuse:
            yield from _judged(context, rule, is_reached=not doubtful)
        doubtful = max(doubtful - 1, 0)
        if rule.module == "pam_permit":
            skipped = rule.skips
        elif rule.skips:
            doubtful = rule.skips
    yield from _counted(context)


def _judged(context: Context, rule: Rule, *, is_reached: bool) -> Iterator[Finding]:
    tree = context.site.tree
    if rule.module == "pam_deny" and is_reached:
        detail = "this rule refuses every session"
        yield obstacle(CHECK, why.SESSION_ENDS, detail, path=rule.place, line=rule.line)
    elif rule.module == "pam_namespace" and not any(_lines(tree, NAMESPACES)):
        return
    elif rule.module not in HARMLESS:
        detail = f"only a login shows whether {rule.module} lets the session begin"
        yield unknown(CHECK, why.PAM_UNKNOWN, detail, path=rule.place, line=rule.line)
    elif not rule.line.startswith("-") and not _is_installed(tree, rule.module):
        detail = f"{rule.module} is not installed, and PAM refuses the session without it"
        yield obstacle(CHECK, why.SESSION_ENDS, detail, path=rule.place, line=rule.line)


def _is_installed(tree: Tree, module: str) -> bool:
    """Whether the module is there; where it cannot be seen at which place modules are, it is."""
    there = [any(matching(tree, f"{place}/{name}.so") for place in SECURITY) for name in ("pam_unix", module)]
    return there[1] or not there[0]


# --- limits.conf(5) ---------------------------------------------------------------------------------


def limits(context: Context) -> list[Limit]:
    """The limits that pam_limits gives the user: of several for one thing, the most personal one counts."""
    rule = next(
        (
            r
            for r in pam.rules(context.site.tree, pam.service(context), "session")
            if r.module == "pam_limits"
        ),
        None,
    )
    if rule is None:
        return []
    tree = context.site.tree
    named = [word.partition("=")[2] for word in rule.arguments if word.startswith("conf=")]
    below = [f"/etc/security/limits.d/{name}" for name in sorted(tree.names("/etc/security/limits.d"))]
    paths = named or [LIMITS, *(path for path in below if path.endswith(".conf"))]
    groups = context.site.accounts.group_names(context.account)
    best: dict[tuple[str, str], tuple[int, Limit]] = {}
    for place, line in (each for path in paths for each in _lines(tree, path)):
        domain, kind, item, value = [*line.split(), "", "", ""][:4]
        rank = _rank(context, domain, groups)
        for each in ("soft", "hard") if kind == "-" else (kind,):
            if rank and rank >= best.get((each, item), (0,))[0]:
                best[each, item] = (rank, Limit(each, item, value, place, line))
    return [limit for _, limit in best.values()]


def _rank(context: Context, domain: str, groups: list[str]) -> int:
    """How personal a line is, 0 where it is not about the user. Root heeds only those with its name."""
    if domain == context.name:
        return 3
    if context.account.uid == 0:
        return 0
    low, colon, high = domain.partition(":")
    if colon and (low or high) and f"{low}{high}".isdigit():
        return 3 if int(low or high) <= context.account.uid <= int(high or (1 << 32)) else 0
    return 2 if domain[:1] in ("@", "%") and domain[1:] in groups else int(domain == "*")


def bounds(found: list[Limit]) -> dict[int, tuple[int, int]]:
    """The same for setrlimit(2), as far as they are about what one process may have."""
    both: dict[int, list[int]] = {}
    for limit in found:
        number, unit = ITEMS.get(limit.item, (-1, 0))
        if unit and (limit.value in UNLIMITED or limit.value.isdigit()):
            value = resource.RLIM_INFINITY if limit.value in UNLIMITED else int(limit.value) * unit
            both.setdefault(number, list(resource.getrlimit(number)))[limit.kind == "hard"] = value
    return {
        number: (soft if hard < 0 else hard if soft < 0 else min(soft, hard), hard)
        for number, (soft, hard) in both.items()
    }


def _counted(context: Context) -> Iterator[Finding]:
    for limit in {limit.place: limit for limit in limits(context)}.values():
        if limit.item in LOGINS and limit.value.isdigit() and context.account.uid != 0:
            sessions = _sessions(context, everybody=limit.item == LOGINS[1])
            if sessions >= int(limit.value):
                detail = f"{limit.item} lets no more than {limit.value} in, and {sessions} are there already"
                yield obstacle(CHECK, why.SESSION_LIMIT, detail, path=limit.place, line=limit.line)


def _sessions(context: Context, *, everybody: bool) -> int:
    program = command.find("who") if context.site.tree.is_running_system else None
    said = command.run([program]).stdout.decode("utf-8", "replace") if program else ""
    return sum(1 for line in said.splitlines() if everybody or line.split(" ")[0] == context.name)


def _lines(tree: Tree, path: str) -> Iterator[tuple[str, str]]:
    content = (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "replace")
    for number, raw in enumerate(content.split("\n"), 1):
        line = raw.split("#")[0].strip()
        if line:
            yield f"{path}:{number}", line
