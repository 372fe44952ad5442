"""PAM's account rules for sshd, as far as their files tell (pam.d(5)): which modules have a say.

The files cannot tell what a module will answer; PAM itself is asked for that (system/pam.py). They tell
whether asking is harmless, and which module it may have been that refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firstkey.system.tree import Tree

LIMIT = 1024 * 1024
DEPTH = 16
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")

COUNTING = frozenset({"pam_faillock", "pam_tally", "pam_tally2"})
"""Their account rules reset counters of failed logins: asking would change something."""
PLAIN = frozenset({"pam_unix", "pam_permit", "pam_deny", "pam_nologin", "pam_localuser", "pam_usertype"})
"""What these say of a local account is known from its files; pam_deny ends what pam_unix did not let pass."""

_RULE = re.compile(r"-?(\w+)\s+(\[[^\]]*\]|\S+)\s+(\S+)")


def account_modules(tree: Tree, service: str) -> list[str]:
    """The modules of the service's account rules, in order, `pam_unix` and the like."""
    for name in (service, "other"):  # which speaks for services that have no rules of their own
        found = dict.fromkeys(module for kind, module in _rules(tree, name, DEPTH) if kind == "account")
        if found:
            return list(found)
    return []


def _rules(tree: Tree, service: str, depth: int) -> Iterator[tuple[str, str]]:
    """(type, module) of each rule, files that are included followed."""
    for line in _lines(tree, service) if depth else ():
        words = line.split()
        if words[0] == "@include" and len(words) > 1:
            yield from _rules(tree, words[1], depth - 1)
            continue
        match = _RULE.match(line)
        if match is None:
            continue
        kind, control, target = match.groups()
        if control in ("include", "substack"):
            yield from (rule for rule in _rules(tree, target, depth - 1) if rule[0] == kind)
        else:
            yield kind, target.rsplit("/", 1)[-1].removesuffix(".so")


def _lines(tree: Tree, service: str) -> list[str]:
    paths = [service] if service.startswith("/") else [f"{place}/{service}" for place in DIRECTORIES]
    content = next(filter(None, (tree.read(path, limit=LIMIT) for path in paths)), b"")
    joined = content.decode("utf-8", "replace").replace("\\\n", " ")
    lines = [line.split("#")[0].strip() for line in joined.split("\n")]
    return [line for line in lines if line]
