"""PAM's account rules for sshd, as far as their files tell (pam.d(5)): which modules have a say.

The files cannot tell what a module will answer; PAM itself is asked for that (system/pam.py). They tell
whether asking is harmless, and which module it may have been that refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstkey.system.tree import Tree

LIMIT = 1024 * 1024
FILES = 100
"""How many files are read of those that one another include."""
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")

COUNTING = frozenset({"pam_faillock", "pam_tally", "pam_tally2"})
"""Their account rules reset counters of failed logins: asking would change something."""
PLAIN = frozenset({"pam_unix", "pam_permit", "pam_deny", "pam_nologin", "pam_localuser", "pam_usertype"})
"""What these say of a local account is known from its files; pam_deny ends what pam_unix did not let pass."""

_RULE = re.compile(r"-?(\w+)\s+(\[[^\]]*\]|\S+)\s+(\S+)")


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
