"""What PAM's session rules do to a login, as far as their files show: to open a session would change things.

Modules that let everybody pass are known by name. What another one says is not known without a login, where
its rule may refuse one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstkey import login_reasons as why
from firstkey.login import pam
from firstkey.login.finding import Finding, obstacle, unknown
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
"""They let any local user's session begin; of pam_limits, the trial of the shell asks (session.py)."""
NAMESPACES = "/etc/security/namespace.conf"
# /lib is no link on Debian 11.
SECURITY = tuple(
    f"{place}/security" for place in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/lib/*", "/lib/*")
)
LIMIT = 1024 * 1024


def findings(context: Context) -> Iterator[Finding]:
    """Each rule that refuses the session, or may."""
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


def _judged(context: Context, rule: Rule, *, is_reached: bool) -> Iterator[Finding]:
    tree = context.site.tree
    if rule.module == "pam_deny" and is_reached:
        detail = "this rule refuses every session"
        yield obstacle(CHECK, why.SESSION_ENDS, detail, path=rule.place, line=rule.line)
    elif rule.module == "pam_namespace" and not any(lines(tree, NAMESPACES)):
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


def lines(tree: Tree, path: str) -> Iterator[tuple[str, str]]:
    """The lines of a file of PAM's, each with its FILE:LINE, without comments."""
    content = (tree.read(path, limit=LIMIT) or b"").decode("utf-8", "replace")
    for number, raw in enumerate(content.split("\n"), 1):
        line = raw.split("#")[0].strip()
        if line:
            yield f"{path}:{number}", line
